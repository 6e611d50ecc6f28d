// Recipes of denoisers and VAEs from file to pipeline folder: they learn, resume bit for bit, and leave folders that make
// pictures.
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { memoryDataset } from "../../lib/data/dataset.js";
import { psnr } from "../../lib/metrics/psnr.js";
import { vqgan } from "../../lib/models/vqgan.js";
import { initialValues } from "../../lib/nn/init.js";
import {
  buildDenoiserTrainer,
  buildVaeTrainer,
  loadFirstStage,
  loadVae,
  type FrozenParts,
} from "../../lib/pipelines/denoiser-training.js";
import { loadPipeline } from "../../lib/pipelines/load-pipeline.js";
import { openReconstructor } from "../../lib/pipelines/reconstructor.js";
import { saveTokenizerRun } from "../../lib/pipelines/tokenizer-run.js";
import { trainLoop, type Trainable } from "../../lib/trainers/loop.js";
import { readRecipe, recipeLr, type Recipe } from "../../lib/trainers/recipe.js";
import { tinyCodec } from "./tiny.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "smalti-denoiser-"))));
afterAll(() => rm(folder, { recursive: true }));

const side = 16;
const values = Int32Array.from({ length: 8 }, (_, i) => i % 2);
const data = {
  train: memoryDataset({
    name: "stripes",
    width: side,
    height: side,
    pixels: Uint8Array.from({ length: 8 * side * side * 3 }, (_, i) => {
      const [picture, pixel] = [Math.floor(i / (side * side * 3)), Math.floor(i / 3)];
      const along = picture % 2 ? pixel % side : Math.floor(pixel / side) % side;
      return Math.floor(along / 4) % 2 ? 40 + 20 * picture : 220;
    }),
    labels: [...values],
    classes: ["rows", "columns"],
  }),
  attributes: { category: { names: ["rows", "columns"], values } },
};

const common = { data: "-", batchSize: 4, steps: 40, lr: 4e-3, warmup: 0, seed: 5, optimiser: { emaDecay: 0.9 } }; // prettier-ignore
const chain = { timesteps: 40, schedule: "cosine" };
const few = { steps: 4, guidanceScale: 1 };
const onChain = { sampler: "ddim", spacing: "trailing", ...few };
const onPath = { sampler: "flow-ode", spacing: "even", ...few };
const path = { kind: "interpolant", path: "linear" };
const transformer = { width: 24, layers: 1, heads: 2, sigma: "none" };
const unet = { channels: 8, multipliers: [1, 2], residualBlocks: 1, groups: 4 };

const denoisers = {
  ddpm: { network: "ddpm-unet", model: { ...unet, resolution: side, attentionResolutions: [8] }, process: { kind: "gaussian", chain }, sampling: onChain },
  sit: { network: "dit", model: { ...transformer, size: [side, side], patch: 4, channels: 3 }, condition: "class", process: path, loss: { timesteps: "logit-normal" }, sampling: { ...onPath, guidanceScale: 2 } },
  "untold fit": { network: "fit", model: { ...transformer, patch: 4, channels: 3 }, process: path, sampling: onPath },
  refiner: { network: "diffusevae-unet", model: { ...unet, resolution: side, attentionFactors: [2] }, process: { kind: "gaussian", chain, formulation: 2 }, pairDropShare: 0.1, sampling: onChain },
  latent: { network: "dit", model: { ...transformer, size: [4, 4], patch: 1, channels: 4 }, process: path, sampling: onPath },
  "latent diffusion": {
    network: "latent-diffusion-unet",
    model: { ...unet, resolution: 4, inChannels: 4, outChannels: 4, attentionFactors: [1], heads: 2, transformer: { contextWidth: 12 } },
    condition: "class", process: { kind: "gaussian", chain }, sampling: { ...onChain, guidanceScale: 2 },
  },
} as const; // prettier-ignore

async function recipeOf<Kind extends Recipe["kind"]>(
  kind: Kind,
  entries: object,
): Promise<Extract<Recipe, { kind: Kind }>> {
  const file = join(folder, "recipe.json");
  await writeFile(file, JSON.stringify({ kind, name: "tiny", ...common, ...entries }));
  return readRecipe(file, kind);
}

async function run(trainer: Trainable, recipe: Recipe, { name = "state", steps = recipe.steps, resume = false } = {}): Promise<number[]> {
  const losses: number[] = [];
  const loop = { steps, lr: recipeLr(recipe), checkpoint: join(folder, name), resume };
  for await (const event of trainLoop(trainer, loop))
    if (event.type === "step") losses.push(event.loss);
  return losses;
} // prettier-ignore

const mean = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0) / numbers.length; // prettier-ignore

const vaeModel = {
  resolution: side,
  encoder: "16x1,16d4,16t4,4d4,4t1,1x1",
  decoder: "1x1,1u4,1t4,4x1,4u4,4t16,16x1",
  encoderChannels: "16:64,4:32,1:16",
  decoderChannels: "16:16,4:32,1:16",
};

/** The folders that a recipe starts from. */
async function partsOf(name: keyof typeof denoisers): Promise<FrozenParts> {
  if (name === "refiner") return { vae: await loadVae(join(folder, "vae")) };
  if (!name.startsWith("latent")) return {};
  return { firstStage: await loadFirstStage(join(folder, "codec")) };
}

beforeAll(async () => {
  const { parameters, states } = vqgan(tinyCodec);
  const weights = initialValues([...parameters, ...states], 3);
  await saveTokenizerRun(join(folder, "codec"), { config: tinyCodec, weights }, {});
});

describe("a VAE", () => {
  it("learns, goes on from its folder, and is found by a refiner", async () => {
    const recipe = await recipeOf("vae", { model: vaeModel, klWeight: 0.1, steps: 60, lr: 3e-3 });
    const { trainer, save } = await buildVaeTrainer(recipe, data);
    const losses = await run(trainer, recipe);
    expect(mean(losses.slice(-10))).toBeLessThan(0.7 * mean(losses.slice(0, 3)));
    const out = join(folder, "vae");
    await save(out, { step: 40 });
    const { config, weights } = await loadVae(out);
    expect(config).toEqual(vaeModel);
    expect(weights).toEqual(trainer.weights());
    const { trainer: again } = await buildVaeTrainer(recipe, data, { from: out });
    const [first] = await run(again, { ...recipe, steps: 1 }, { name: "again" });
    expect(first).toBeLessThan(0.7 * losses[0]!);
    [trainer, again].forEach((one) => one.dispose());
    await expect(loadFirstStage(out)).rejects.toThrow("expected a component firstStage or codec");
  });

  it("reconstructs pictures by itself, unless it is told classes", async () => {
    const codec = await openReconstructor(join(folder, "vae"));
    expect(codec.imageSize).toBe(side);
    const images = [0, 1].map((i) => ({ width: side, height: side, data: data.train.pixels(i) as Uint8Array })); // prettier-ignore
    const back = await codec.reconstruct(images, { batchSize: 1 });
    codec.dispose();
    for (const [i, { data: before }] of images.entries()) {
      const average = before.reduce((sum, value) => sum + value, 0) / before.length;
      expect(psnr(before, back[i]!.data)).toBeGreaterThan(
        psnr(
          before,
          before.map(() => average),
        ),
      );
    }
    const told = { ...vaeModel, classes: 2, classWidth: 4, decoderChannels: "16:16,4:32,1:20" };
    const recipe = await recipeOf("vae", { model: told, steps: 1 });
    const { trainer, save } = await buildVaeTrainer(recipe, data);
    await save(join(folder, "told"), {});
    trainer.dispose();
    await expect(openReconstructor(join(folder, "told"))).rejects.toThrow(/VAE without classes, got one that is told 2/); // prettier-ignore
  });
});

describe("a denoiser", () => {
  it.each(Object.keys(denoisers) as (keyof typeof denoisers)[])("%s", async (name) => {
    const recipe = await recipeOf("denoiser", { resolution: side, ...denoisers[name] });
    const build = async () => buildDenoiserTrainer(recipe, data, await partsOf(name));
    const built = await build();
    const losses = await run(built.trainer, recipe, { name });
    expect(mean(losses.slice(-10))).toBeLessThan(0.9 * mean(losses.slice(0, 4)));
    const out = join(folder, `out ${name}`);
    await built.save(out, { step: 40 });
    built.trainer.dispose();
    const halves = [await build(), await build()].map(({ trainer }) => trainer);
    await run(halves[0]!, recipe, { name: "half", steps: 2 });
    expect(await run(halves[1]!, recipe, { name: "half", steps: 4, resume: true })).toEqual(losses.slice(2, 4)); // prettier-ignore
    halves.forEach((trainer) => trainer.dispose());
    const pipeline = await loadPipeline(out, { kind: "diffusion" });
    const { images } = await pipeline.generate({ count: 2, seed: 1 });
    expect(images.map(({ width, height }) => [width, height])).toEqual([[side, side], [side, side]]); // prettier-ignore
    pipeline.dispose();
  });

  it("goes on from a pipeline, its class embedder included", async () => {
    const name = "latent diffusion";
    const recipe = await recipeOf("denoiser", { resolution: side, ...denoisers[name], steps: 1 });
    const from = join(folder, `out ${name}`);
    const parts = await partsOf(name);
    const fresh = await buildDenoiserTrainer(recipe, data, parts);
    const later = await buildDenoiserTrainer(recipe, data, { ...parts, from });
    expect([...later.trainer.weights().keys()]).toContain("classEmbedder.embedding.weight");
    const [a] = await run(fresh.trainer, recipe, { name: "fresh" });
    const [b] = await run(later.trainer, recipe, { name: "later" });
    expect(b).toBeLessThan(a!);
    [fresh, later].forEach(({ trainer }) => trainer.dispose());
  });

  it("measures the scale of latents", async () => {
    const recipe = await recipeOf("denoiser", { resolution: side, ...denoisers.latent });
    const { settings, trainer } = await buildDenoiserTrainer(recipe, data, await partsOf("latent"));
    const [batch] = (await trainer.prefetch(0)) as [{ made: { x0: Float32Array } }];
    const { x0 } = batch.made;
    const centre = mean([...x0]);
    expect(Math.sqrt(mean([...x0].map((v) => (v - centre) ** 2)))).toBeCloseTo(1, 0);
    expect(settings.size).toEqual([4, 4]);
    trainer.dispose();
  });

  it.each([
    [denoisers.refiner, "expected --vae <folder> for diffusevae-unet"],
    [{ ...denoisers.ddpm, condition: "class", model: { ...denoisers.ddpm.model, channels: 6 } }, "ddpmUnet"],
    [{ ...denoisers.ddpm, nullShare: 0.2 }, "nullShare 0 for a ddpm-unet"],
    [{ ...denoisers.sit, model: { ...denoisers.sit.model, classes: 3 } }, "no classes in model"],
    [{ ...denoisers.sit, loss: { timestep: "uniform" } }, "timesteps"],
    [{ ...denoisers.sit, process: { kind: "flow" } }, "gaussian, interpolant"],
    [{ ...denoisers.sit, sampling: onChain }, "even"],
    [{ ...denoisers.ddpm, sampling: { ...onChain, guidanceScale: 2 } }, "guidanceScale 1 of a model that knows no empty"],
    [{ ...denoisers["latent diffusion"], condition: "none" }, 'condition "class"'],
    [{ ...denoisers.latent }, "expected pictures [4, 4, 4] for this dit, got [16, 16, 3]; give --first-stage"],
    [{ ...denoisers.sit, resolution: 32 }, "expected pictures [16, 16, 3]"],
  ])("refuses what does not fit: %#", async (entries, message) => {
    const build = async (): Promise<unknown> => {
      const recipe = await recipeOf("denoiser", { resolution: side, ...entries });
      return buildDenoiserTrainer(recipe, data);
    };
    await expect(build()).rejects.toThrow(message);
  }); // prettier-ignore

  it("refuses classes where the pictures have none", async () => {
    const recipe = await recipeOf("denoiser", { resolution: side, ...denoisers.sit });
    await expect(buildDenoiserTrainer(recipe, { ...data, attributes: {} })).rejects.toThrow("expected classes, got none"); // prettier-ignore
  });
});

it("a constant rate stays at its peak after the warm-up", async () => {
  const entries = { resolution: side, ...denoisers.ddpm, lr: 1, warmup: 4 };
  const rate = recipeLr(await recipeOf("denoiser", { ...entries, schedule: "constant" }));
  expect([0, 1, 3, 4, 39].map(rate)).toEqual([0.25, 0.5, 1, 1, 1]);
  expect(recipeLr(await recipeOf("denoiser", entries))(39)).toBeCloseTo(0.1, 2);
});

it("the packaged recipes are read", async () => {
  const recipes = resolve(import.meta.dirname, "../../recipes");
  const kinds: Record<string, Recipe["kind"]> = { vae: "vae", ddpm: "denoiser", sit: "denoiser", diffusevae: "denoiser" }; // prettier-ignore
  const found = (await readdir(recipes)).flatMap((file) => {
    const kind =
      kinds[
        file
          .replace(/\.json$/, "")
          .split("-")
          .at(-1)!
      ];
    return kind ? [readRecipe(join(recipes, file), kind)] : [];
  });
  expect((await Promise.all(found)).length).toBe(5);
});
