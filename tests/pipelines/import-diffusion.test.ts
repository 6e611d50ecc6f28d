// Published layouts with a denoiser become pipelines: files in the originals' names, written by the test, are converted and
// make the same pictures as the folder with the same weights; facts and parts that are missing are asked for.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../lib/checkpoint/open-checkpoint.js";
import type { Checkpoint } from "../../lib/checkpoint/checkpoint.js";
import { diffusionNetworks } from "../../lib/pipelines/diffusion-folder.js";
import type { DiffusionGenerateOptions } from "../../lib/pipelines/diffusion-options.js";
import { identify } from "../../lib/pipelines/import-checkpoint.js";
import { convertDiffusion } from "../../lib/pipelines/import-diffusion.js";
import { loadPipeline } from "../../lib/pipelines/load-pipeline.js";
import { chainOf } from "../../lib/processes/gaussian.js";
import { below, foreignFile, foreignPart, posEmbed, type ForeignValues } from "./foreign-parts.js";
import { tinyDiffusion, tinySystems, type TinySystem } from "./tiny-diffusion.js";

type System = keyof typeof tinySystems;
type Tensors = Map<string, ForeignValues>;

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "smalti-import-diffusion-"));
});

afterAll(() => rm(folder, { recursive: true }));

const vector = (...data: number[]) => ({ shape: [data.length], data: Float32Array.from(data) });

const checkpointOf = async (name: string, tensors: Iterable<[string, ForeignValues]>): Promise<Checkpoint> =>
  openCheckpoint(await foreignFile(join(folder, `${name}.safetensors`), tensors)); // prettier-ignore

/** Pictures of a converted folder, and of the one written with the same weights. */
async function bothPictures(
  system: TinySystem,
  out: string,
  options: DiffusionGenerateOptions,
): Promise<[converted: Uint8Array[], written: Uint8Array[]]> {
  const original = await tinyDiffusion(system);
  using written = await loadPipeline(original, { kind: "diffusion" });
  using converted = await loadPipeline(out, { kind: "diffusion" });
  const { channels } = diffusionNetworks(system.parts, system.settings).denoiser;
  const unsaid = { clamp: false, rederive: false, guidanceChannels: channels };
  const defaults = { ...unsaid, ...written.settings.defaults, ...options };
  const pictures = async (pipe: typeof written) =>
    (await pipe.generate(defaults)).images.map(({ data }) => data);
  const both = [await pictures(converted), await pictures(written)] as [Uint8Array[], Uint8Array[]];
  await rm(original, { recursive: true });
  return both;
}

const kl = (system: TinySystem): Tensors => foreignPart(system, "firstStage", "compvis-autoencoder-kl"); // prettier-ignore
const klFacts = { resolution: 16, "compvis-autoencoder-kl.groups": 4 };
const given = (system: System) => {
  const { process } = tinySystems[system].settings;
  return process.kind === "gaussian" ? { timesteps: process.chain.timesteps } : {};
};

describe("a denoiser and its parts", () => {
  it.each(["dit", "sit"] as const)("%s with a KL autoencoder of its own file", async (name) => {
    const system: TinySystem = tinySystems[name];
    using own = await checkpointOf(name, [...foreignPart(system, "denoiser", "dit"), ["pos_embed", posEmbed]]); // prettier-ignore
    using stage = await checkpointOf("kl", kl(system));
    const facts = { ...klFacts, ...given(name), heads: 2, sigma: name === "dit" ? "learned" : "discarded", latentScale: 0.5 }; // prettier-ignore
    const models = [own, stage].flatMap((file) => identify(file, { facts, isPart: true }));
    const out = join(folder, `${name}-out`);
    const { settings } = await convertDiffusion(out, name, models, { facts, dtype: "f32" });
    expect(settings.defaults).toMatchObject({ steps: name === "dit" ? 40 : 250, guidanceScale: 4, guidanceChannels: 3, sampler: name === "dit" ? "ddpm" : "flow-sde" }); // prettier-ignore
    expect(settings.process).toMatchObject(name === "dit" ? { variance: "learnedRange", chain: { timesteps: 40, schedule: "linear" } } : { path: "linear" }); // prettier-ignore
    const [converted, written] = await bothPictures(system, out, { class: [1, 2], guidanceScale: 2 }); // prettier-ignore
    expect(converted).toEqual(written);
  });

  it("adm: what its file does not say has to be given, the variances it shows", async () => {
    using file = await checkpointOf("adm", foreignPart(tinySystems.adm, "denoiser", "adm-unet"));
    const network = { resolution: 8, heads: 2, headChannels: 0, attentionOrder: "heads-first", groups: 4 }; // prettier-ignore
    const out = join(folder, "adm-out");
    const models = identify(file, { facts: network });
    await expect(convertDiffusion(out, "adm", models)).rejects.toThrow(
      /facts of its process.*--set timesteps=….*--set schedule=….*--networks-only/s,
    );
    const wrong = { ...network, timesteps: 40, schedule: "lienar" };
    await expect(convertDiffusion(out, "adm", models, { facts: wrong })).rejects.toThrow(/schedule to be one of linear/); // prettier-ignore
    expect(() => identify(file, { facts: { schedul: "linear" } })).toThrow(/did you mean "schedule"/); // prettier-ignore
    const facts = { ...network, timesteps: 40, schedule: "linear" };
    const done = await convertDiffusion(out, "adm", models, { facts, dtype: "f32" });
    expect(done.facts).toContainEqual({ name: "variance", value: "learnedRange", from: "the network" }); // prettier-ignore
    expect(done.settings.defaults).toMatchObject({ guidanceScale: 1, clamp: true, rederive: true });
    const { process } = done.settings;
    expect(process).toMatchObject({ chain: { rescaleTimes: true } });
    const scaled = { ...tinySystems.adm, settings: { ...tinySystems.adm.settings, process } };
    const [converted, written] = await bothPictures(scaled, out, { class: 2 });
    expect(converted).toEqual(written);
  });

  it("adm with a classifier in a file of its own", async () => {
    const system: TinySystem = tinySystems.classified;
    using own = await checkpointOf("guided", foreignPart(system, "denoiser", "adm-unet"));
    using judge = await checkpointOf(
      "judge",
      foreignPart(system, "classifier", "adm-encoder-unet"),
    );
    const facts = { resolution: 8, heads: 2, headChannels: 0, attentionOrder: "heads-first", groups: 4, residualBlocks: 1, timesteps: 40, schedule: "linear" }; // prettier-ignore
    const models = [own, judge].flatMap((file) => identify(file, { facts, isPart: true }));
    const out = join(folder, "guided-out");
    const { settings } = await convertDiffusion(out, "x", models, { facts, dtype: "f32" });
    expect(settings.defaults).toMatchObject({ classifierScale: 1 });
    const { process } = settings;
    const scaled: TinySystem = { ...system, settings: { ...system.settings, process } };
    const [converted, written] = await bothPictures(scaled, out, { class: [0, 2] });
    expect(converted).toEqual(written);
  });

  it("ddpm: from the configuration of the original", async () => {
    using own = await checkpointOf("ddpm", foreignPart(tinySystems.ddpm, "denoiser", "ddpm-unet"));
    const value = { model: { var_type: "fixedsmall" }, diffusion: { beta_schedule: "linear", beta_start: 0.0001, beta_end: 0.02, num_diffusion_timesteps: 40 } }; // prettier-ignore
    using file = own.with({ notes: [], configs: [{ where: "celeba.yml", value }] });
    const out = join(folder, "ddpm-out");
    const models = identify(file, { facts: { resolution: 8, groups: 4 } });
    const { settings, facts } = await convertDiffusion(out, "ddpm", models, { dtype: "f32" });
    expect(facts).toContainEqual({ name: "timesteps", value: 40, from: "celeba.yml" });
    expect(settings.process).toMatchObject({ chain: { timesteps: 40 }, variance: "fixedSmall" });
    expect(settings.defaults).toMatchObject({ steps: 40, spacing: "truncated", clamp: true });
    const [converted, written] = await bothPictures(tinySystems.ddpm, out, { count: 2 });
    expect(converted).toEqual(written);
  });

  it("text: latent diffusion in one file says its chain by its betas; the text tower is another file", async () => {
    const system: TinySystem = tinySystems.text;
    const { betas } = chainOf({ timesteps: 40, schedule: "scaled-linear" });
    using file = await checkpointOf("ldm", [
      ...below("model.diffusion_model.", foreignPart(system, "denoiser", "ldm-unet")),
      ...below("first_stage_model.", kl(system)),
      ["betas", vector(...betas)],
      ["scale_factor", { shape: [], data: Float32Array.of(0.5) }],
    ]);
    using words = await checkpointOf("clip", foreignPart(system, "textEncoder", "clip-text"));
    const facts = { ...klFacts, "ldm-unet.resolution": 8, heads: 2, headChannels: 0, groups: 4, activation: "quickGelu", headWidth: 8, textLayer: "last", prediction: "eps" }; // prettier-ignore
    const found = (each: typeof facts) => [file, words].flatMap((one) => identify(one, { facts: each, isPart: true })); // prettier-ignore
    const out = join(folder, "ldm-out");
    const { textLayer, ...without } = facts;
    void textLayer;
    await expect(convertDiffusion(out, "ldm", found(facts), { facts: without })).rejects.toThrow(/--set textLayer=…/); // prettier-ignore
    const alone = identify(file, { facts: without, isPart: true });
    await expect(convertDiffusion(out, "ldm", alone, { facts })).rejects.toThrow(/--text-encoder FILE/); // prettier-ignore
    const { settings, facts: known } = await convertDiffusion(out, "ldm", found(facts), { facts, dtype: "f32" }); // prettier-ignore
    expect(known).toContainEqual({ name: "schedule", value: "scaled-linear", from: "tensor betas" }); // prettier-ignore
    expect(settings).toMatchObject({ latentScale: 0.5, text: { padding: "zero" } });
    const zero: TinySystem = { ...system, settings: { ...system.settings, text: { padding: "zero" } } }; // prettier-ignore
    const [converted, written] = await bothPictures(zero, out, { prompt: ["a cat", "x"] });
    expect(converted).toEqual(written);
  });

  it("classes: vectors of classes inside the file", async () => {
    const system: TinySystem = tinySystems.classes;
    using file = await checkpointOf("cin", [
      ...below("model.diffusion_model.", foreignPart(system, "denoiser", "ldm-unet")),
      ...below("first_stage_model.", kl(system)),
      ...below("cond_stage_model.", foreignPart(system, "classEmbedder", "ldm-class-embedder")),
    ]);
    const facts = { ...klFacts, "ldm-unet.resolution": 8, heads: 2, headChannels: 0, groups: 4, nullClass: true, prediction: "eps", timesteps: 40, schedule: "linear", first: 1e-4, last: 0.02, latentScale: 0.5 }; // prettier-ignore
    const out = join(folder, "cin-out");
    await convertDiffusion(out, "cin", identify(file, { facts }), { facts, dtype: "f32" });
    const [converted, written] = await bothPictures(system, out, { class: [0, 3] });
    expect(converted).toEqual(written);
  });

  it("diffusevae: both stages in one file, whose tensors say the formulation", async () => {
    const system: TinySystem = tinySystems.diffusevae;
    const unet = foreignPart(system, "denoiser", "diffusevae-unet");
    const { betas } = chainOf({ timesteps: 40, schedule: "linear-float32" });
    using file = await checkpointOf("diffusevae", [
      ...below("target_network.decoder.", unet),
      ...below("vae.", foreignPart(system, "vae", "diffusevae-vae")),
      ["target_network.betas", vector(...betas)],
      ["target_network.post_coeff_3", vector(...betas)],
    ]);
    const { encoder, decoder, encoderChannels, decoderChannels } = (system.parts.vae!.config as Record<string, string>); // prettier-ignore
    const layout = { resolution: 8, encoder, decoder, encoderChannels, decoderChannels };
    const facts = { layout, resolution: 8, heads: 2, groups: 4 };
    const out = join(folder, "diffusevae-out");
    const { settings, facts: known } = await convertDiffusion(out, "vae", identify(file, { facts }), { facts, dtype: "f32" }); // prettier-ignore
    expect(known).toContainEqual({ name: "formulation", value: 2, from: "tensor target_network.post_coeff_3" }); // prettier-ignore
    const { process } = settings;
    expect(process).toMatchObject({ chain: { timesteps: 40 }, formulation: 2 });
    const [converted, written] = await bothPictures({ ...system, settings: { ...system.settings, process } }, out, { count: 2 }); // prettier-ignore
    expect(converted).toEqual(written);
    const stored = JSON.parse(await readFile(join(out, "pipeline.json"), "utf8")) as { training: object }; // prettier-ignore
    expect(stored.training).toMatchObject({ process: { formulation: "2: tensor target_network.post_coeff_3" } }); // prettier-ignore
  });

  it("refuses a denoiser of latents without an autoencoder, and two of one part", async () => {
    const system: TinySystem = tinySystems.dit;
    using own = await checkpointOf("alone", [...foreignPart(system, "denoiser", "dit"), ["pos_embed", posEmbed]]); // prettier-ignore
    const facts = { heads: 2, sigma: "learned" };
    const models = identify(own, { facts });
    const out = join(folder, "never");
    await expect(convertDiffusion(out, "x", models, { facts })).rejects.toThrow(/--first-stage FILE/); // prettier-ignore
    await expect(convertDiffusion(out, "x", [...models, ...models], { facts })).rejects.toThrow(/one denoiser, got dit/); // prettier-ignore
    await expect(readFile(join(out, "pipeline.json"))).rejects.toThrow(/ENOENT/);
  });
});
