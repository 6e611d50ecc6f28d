// Families on the weights of original implementations: recognised by names, configured from shapes and the facts of the
// case, every tensor used, converted, loaded, and giving the originals' numbers. Skipped where those files are not beside
// the project.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../lib/checkpoint/open-checkpoint.js";
import { loadWeights } from "../../lib/checkpoint/weights.js";
import { ioValues, readCase } from "../../lib/golden/case.js";
import { compareValues } from "../../lib/golden/compare.js";
import { evaluator, type Tensors } from "../../lib/golden/evaluate.js";
import { channelsFirst, channelsLast } from "../../lib/golden/layouts.js";
import type { AdmUnet } from "../../lib/models/adm-unet.js";
import type { ClipTextEncoder } from "../../lib/models/clip-text-encoder.js";
import { drawLatent, type DiffuseVae } from "../../lib/models/diffusevae-vae.js";
import type { Dit } from "../../lib/models/dit.js";
import type { LatentDiffusionUnet } from "../../lib/models/latent-diffusion-unet.js";
import type { Lpips } from "../../lib/models/lpips.js";
import type { PatchDiscriminator } from "../../lib/models/patch-discriminator.js";
import { convertModels, fitIdentified, identify } from "../../lib/pipelines/import-checkpoint.js";
import type { Trace } from "../../lib/trace/trace.js";

const golden = resolve(import.meta.dirname, "../../../shared/golden");

interface Case {
  kind: string;
  config: Record<string, unknown>;
}

type Facts = Record<string, unknown>;

const compVis = ({ ddconfig, norm_num_groups }: Facts): Facts => ({
  resolution: (ddconfig as Facts)["resolution"],
  groups: norm_num_groups ?? 32,
  outputActivation: (ddconfig as Facts)["tanh_out"] ? "tanh" : "none",
});

const microsoft = ({ transformer }: Facts): Facts => {
  const t = transformer as Record<string, string>;
  return {
    heads: t["n_head"],
    grid: t["hw"],
    activation: t["block_activate"] === "GELU2" ? "quickGelu" : "gelu",
    timeNorm: t["timestep_type"]!.startsWith("adains") ? "instance" : "layer",
    classNorm: t["class_type"]?.startsWith("adains") ? "instance" : "layer",
  };
};

const count = (value: unknown): number => (typeof value === "number" && value > 0 ? value : 0);

const openAi = (c: Facts): Facts => ({
  resolution: c["image_size"],
  heads: count(c["num_head_channels"]) > 0 ? 0 : count(c["num_heads"]),
  headChannels: count(c["num_head_channels"]),
  attentionOrder: c["use_new_attention_order"] ? "qkv-first" : "heads-first",
  groups: c["norm_num_groups"],
});

const unetOf = (c: Facts): Facts => ({
  ...openAi(c),
  imageChannels: c["in_channels"],
  upHeads: count(c["num_heads_upsample"]),
});

const facebook =
  (sigma: "learned" | "discarded") =>
  (c: Facts): Facts => ({
    heads: c["num_heads"],
    nullClass: (c["class_dropout_prob"] as number) > 0,
    sigma,
  });

const clip = { activation: "quickGelu" };

/** Family of each kind of case, and its facts in the words of the original. */
const expected: Readonly<Record<string, [family: string, facts: (config: Facts) => Facts]>> = {
  taming_vqmodel: ["taming-vqgan", compVis],
  taming_gumbelvq: ["taming-vqgan", compVis],
  ldm_vqmodel_interface: ["taming-vqgan", compVis],
  ldm_autoencoder_kl: ["compvis-autoencoder-kl", compVis],
  diffusers_vqmodel: [
    "diffusers-vqmodel",
    (c) => ({
      resolution: 32,
      groups: c["norm_num_groups"] ?? 32,
      activation: c["act_fn"] === "mish" ? "mish" : "silu",
    }),
  ],
  diffusers_vqdiffusion_transformer: [
    "diffusers-vq-diffusion",
    (c) => ({
      heads: c["num_attention_heads"] ?? 16,
      grid: [c["sample_size"], c["sample_size"]],
      activation: { geglu: "geglu", gelu: "gelu", "geglu-approximate": "quickGelu" }[
        (c["activation_fn"] as string | undefined) ?? "geglu"
      ],
      onlyCrossAttention: c["only_cross_attention"] ?? false,
    }),
  ],
  vqd_text2image_transformer: ["microsoft-vq-diffusion", microsoft],
  vqd_class_transformer: ["microsoft-vq-diffusion", microsoft],
  vqd_uncond_transformer: ["microsoft-vq-diffusion", microsoft],
  adm_unet: ["adm-unet", unetOf],
  adm_superres: ["adm-unet", unetOf],
  adm_encoder_unet: ["adm-encoder-unet", (c) => ({ ...openAi(c), residualBlocks: c["num_res_blocks"] })], // prettier-ignore
  diffusevae_unet: ["diffusevae-unet", (c) => ({ resolution: 8, heads: c["num_heads"], groups: c["norm_num_groups"] })], // prettier-ignore
  diffusevae_vae: ["diffusevae-vae", (c) => ({ layout: { resolution: c["input_res"], encoder: c["enc_block_str"], decoder: c["dec_block_str"], encoderChannels: c["enc_channel_str"], decoderChannels: c["dec_channel_str"] } })], // prettier-ignore
  dit_forward: ["dit", facebook("learned")],
  sit_forward: ["dit", facebook("discarded")],
  ldm_unet_crossattn: ["ldm-unet", openAi],
  clip_text_encoder: ["clip-text", (c) => ({ ...clip, headWidth: (c["width"] as number) / (c["heads"] as number) })], // prettier-ignore
  hf_clip_text_model: ["transformers-clip-text", (c) => ({ ...clip, heads: c["num_attention_heads"] })], // prettier-ignore
  taming_lpips_narrow: ["taming-lpips", () => ({})],
  taming_nlayer_discriminator: ["taming-discriminator", () => ({})],
};

/** Names that are another family's too, but for their place in a released file. */
const asked = (kind: string): { family?: string } =>
  kind === "diffusevae_unet" ? { family: "diffusevae-unet" } : {};

/** Outputs of a built model by the names of the case; every input in its own layout. */
type Outputs = (model: object, x: Tensors, t: Trace) => Tensors;

const unet =
  (output = "output"): Outputs =>
  (model, x) => {
    const { forward } = model as AdmUnet & LatentDiffusionUnet;
    const y = forward({
      x: channelsLast(x["x"]!),
      times: x["t"]!,
      ...(x["y"] && { labels: x["y"] }),
      ...(x["low_res"] && { lowRes: channelsLast(x["low_res"]) }),
      ...(x["z"] && { latent: x["z"] }),
      ...(x["context"] && { context: x["context"] }),
    });
    return { [output]: y.rank === 4 ? channelsFirst(y) : y };
  };

const dit: Outputs = (model, x) => ({
  output: channelsFirst((model as Dit).forward({ x: channelsLast(x["x"]!), times: x["t"]!, labels: x["y"]! })), // prettier-ignore
});

const textTower: Outputs = (model, x) => {
  const { hidden, embedding } = (model as ClipTextEncoder).forward(x["tokens"]!);
  return { last_hidden_state: hidden, ...(embedding && { text_embedding: embedding }) };
};

const outputs: Readonly<Record<string, Outputs>> = {
  adm_unet: unet(),
  adm_superres: unet(),
  adm_encoder_unet: unet(),
  diffusevae_unet: unet("eps"),
  ldm_unet_crossattn: unet(),
  dit_forward: dit,
  sit_forward: dit,
  clip_text_encoder: textTower,
  hf_clip_text_model: textTower,
  diffusevae_vae: (model, x) => {
    const { encode, decode } = model as DiffuseVae;
    const posterior = encode(channelsLast(x["x"]!));
    return {
      mu: channelsFirst(posterior.mean),
      decoded: channelsFirst(decode(drawLatent(posterior, channelsLast(x["eps"]!)))),
    };
  },
  taming_lpips_narrow: (model, x) => {
    const distance = (model as Lpips).distance(channelsLast(x["input"]!), channelsLast(x["target"]!)); // prettier-ignore
    return { perceptual_distance: distance.reshape([distance.size, 1, 1, 1]) };
  },
  taming_nlayer_discriminator: (model, x, t) => {
    const { forward, state } = model as PatchDiscriminator;
    return { logits_eval: channelsFirst(forward(channelsLast(x["real"]!), { mode: "eval", state: state(t) }).logits) }; // prettier-ignore
  },
};

const cases = existsSync(golden)
  ? readdirSync(golden).filter(
      (name) =>
        name.replace(/__\w+$/, "") in expected &&
        existsSync(join(golden, name, "weights.safetensors")),
    )
  : [];

describe.skipIf(cases.length === 0)("weights of original implementations", () => {
  it.each(cases)("%s", async (name) => {
    const { kind, config } = JSON.parse(
      readFileSync(join(golden, name, "case.json"), "utf8"),
    ) as Case;
    const [family, factsOf] = expected[kind]!;
    using checkpoint = await openCheckpoint(join(golden, name, "weights.safetensors"));
    const models = identify(checkpoint, { facts: factsOf(config), ...asked(kind) });
    expect(models.map((model) => model.family.name)).toEqual([family]);
    expect(models[0]!.missing).toEqual({});
    const fit = fitIdentified(models[0]!);
    expect(fit.sources.size).toBe(fit.specs.length);
  });

  it.each(cases.filter((name) => name.replace(/__\w+$/, "") in outputs))(
    "%s converted and loaded gives the stored numbers",
    async (name) => {
      const folder = join(golden, name);
      const kind = name.replace(/__\w+$/, "");
      const golds = await readCase({ name, kind, folder });
      const [, factsOf] = expected[kind]!;
      using checkpoint = await openCheckpoint(join(folder, "weights.safetensors"));
      const [found] = identify(checkpoint, { facts: factsOf(golds.config), ...asked(kind) });
      const out = await mkdtemp(join(tmpdir(), "smalti-families-"));
      await convertModels(join(out, name), name, [found!], { dtype: "f32" });
      const file = JSON.parse(await readFile(join(out, name, "pipeline.json"), "utf8")) as {
        components: Record<string, { config: object; weights: string }>;
      };
      const [{ config, weights }] = Object.values(file.components) as [{ config: object; weights: string }]; // prettier-ignore
      const model = found!.family.build(config);
      const specs = [...model.parameters, ...(model.states ?? [])];
      const values = await loadWeights(join(out, name, weights), specs);
      const parameters = new Map(specs.map((spec) => [spec.name, { shape: spec.shape, data: values.get(spec.name)! }])); // prettier-ignore
      const inputs = Object.fromEntries([...golds.io].filter(([, { role }]) => role === "input"));
      const got = await evaluator("ref")((t, x) => outputs[kind]!(model, x, t), { inputs, parameters }); // prettier-ignore
      for (const [key, actual] of Object.entries(got)) {
        const { passed, ofTolerance } = compareValues(key, ioValues(golds, key), actual, golds.rtol); // prettier-ignore
        expect([key, passed, ofTolerance <= 1]).toEqual([key, true, true]);
      }
    },
  );
});
