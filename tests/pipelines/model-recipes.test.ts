// Recipes of KL autoencoders, DiVAE tokenizers, classifiers and Gumbel tokenizers, from file to folder: what a folder holds,
// how a training goes on from it, and what is refused by name.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { memoryDataset } from "../../lib/data/dataset.js";
import type { BuiltTraining, TrainingStart } from "../../lib/pipelines/built-training.js";
import {
  buildAutoencoderTrainer,
  buildClassifierTrainer,
  buildDivaeTrainer,
} from "../../lib/pipelines/model-training.js";
import { readPipelineFile } from "../../lib/pipelines/pipeline.js";
import { buildTokenizerTrainer } from "../../lib/pipelines/training.js";
import { readRecipe } from "../../lib/trainers/recipe.js";
import { lossesOf, runTrainer } from "../trainers/run-trainer.js";
import { tinyConvolutions } from "./tiny.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "smalti-models-"))));
afterAll(() => rm(folder, { recursive: true }));

const side = 16;
const train = memoryDataset({
  name: "stripes",
  width: side,
  height: side,
  channels: 3,
  pixels: Uint8Array.from({ length: 4 * side * side * 3 }, (_, i) => ((i % 48) * (1 + Math.floor(i / 768))) % 256),
  labels: [0, 1, 0, 1],
  classes: ["thin", "wide"],
}); // prettier-ignore
const data = { train, attributes: {} };
const run = { name: "tiny", data: "-", batchSize: 2, steps: 4, lr: 1e-3, warmup: 0, seed: 3 };

const process = { kind: "gaussian", chain: { timesteps: 20, schedule: "cosine" }, prediction: "x0" }; // prettier-ignore
const sampling = { sampler: "ddim", steps: 4, spacing: "trailing", guidanceScale: 1 };
const unet = { channels: 8, multipliers: [1, 2], residualBlocks: 1, attentionFactors: [2], groups: 4 }; // prettier-ignore

const recipes = {
  autoencoder: {
    model: { ...tinyConvolutions, latentChannels: 2 },
    klWeight: 1e-4,
    adversarial: { start: 1, weight: 0.5, discriminator: { channels: 4, layers: 1 } },
  },
  divae: {
    model: {
      encoder: { resolution: side, patch: 8, width: 16, layers: 1, heads: 2 },
      quantizer: { codes: 6, width: 4 },
      decoder: { kind: "unet", patch: 4, ...unet },
    },
    process,
    loss: { kind: "l1" },
    dropShare: 0.2,
    sampling,
  },
  classifier: { model: { resolution: side, ...unet, headChannels: 4, pool: "attention" }, process },
} as const;

type Kind = keyof typeof recipes;

/** Builds by a recipe file with changes. */
async function build(kind: Kind, changes: object = {}, start: TrainingStart = {}) {
  const path = join(folder, `${kind}.json`);
  await writeFile(path, JSON.stringify({ kind, ...run, ...recipes[kind], ...changes }));
  if (kind === "autoencoder") return buildAutoencoderTrainer(await readRecipe(path, kind), data, start); // prettier-ignore
  if (kind === "divae") return buildDivaeTrainer(await readRecipe(path, kind), data, start);
  return buildClassifierTrainer(await readRecipe(path, kind), data, start);
}

type Disposable = BuiltTraining["trainer"] & { dispose(): void };

async function trainAndSave(built: BuiltTraining, name: string): Promise<number[]> {
  const losses = lossesOf(await runTrainer(built.trainer, 2, join(folder, `${name}.state`)));
  await built.save(join(folder, name), { step: 2 });
  (built.trainer as Disposable).dispose();
  return losses;
}

describe.each([
  ["autoencoder", "models", { codec: "autoencoder-kl" }],
  ["divae", "diffusion", { denoiser: "divae" }],
  ["classifier", "models", { classifier: "adm-encoder-unet" }],
] as const)("%s", (kind, folderKind, parts) => {
  it("leaves a folder from which a training goes on", async () => {
    const first = await trainAndSave(await build(kind), kind);
    const file = await readPipelineFile(join(folder, kind));
    expect(file.kind).toBe(folderKind);
    const models = Object.entries(file.components).map(([part, { model }]) => [part, model]);
    expect(Object.fromEntries(models)).toEqual(parts);
    expect(file.training).toMatchObject({ step: 2, recipe: { kind, name: "tiny" } });
    const next = await trainAndSave(
      await build(kind, {}, { from: join(folder, kind) }),
      `${kind}2`,
    );
    expect(next).not.toEqual(first);
  });

  it("refuses what it does not know", async () => {
    await expect(build(kind, { klWieght: 1 })).rejects.toThrow(/klWieght/);
    await expect(build(kind, { augment: { flop: true } })).rejects.toThrow(/augment: .*flop/);
    await expect(build(kind, { freeze: ["decodr"] })).rejects.toThrow(/freeze/);
    await expect(build(kind, { model: { resolution: side } })).rejects.toThrow();
  });
});

it.each([
  ["autoencoder", "divae"],
  ["divae", "classifier"],
  ["classifier", "autoencoder"],
] as const)("%s does not go on from %s", async (kind, other) => {
  const from = join(folder, other);
  await expect(build(kind, {}, { from })).rejects.toThrow(/expected a component .* got (denoiser|classifier|codec)/); // prettier-ignore
});

it("a decoder alone wants the tokenizer that it stands behind, or a state", async () => {
  const alone = { trains: "decoder" };
  await expect(build("divae", alone)).rejects.toThrow(/expected --from <folder>/);
  const built = await build("divae", alone, { from: join(folder, "divae") });
  expect(await trainAndSave(built, "decoder")).toHaveLength(2);
  ((await build("divae", alone, { isResumed: true })).trainer as Disposable).dispose();
});

it("processes, samplings and outputs are checked by name", async () => {
  await expect(build("divae", { process: { ...process, prediction: "x" } })).rejects.toThrow(/prediction/); // prettier-ignore
  await expect(build("divae", { sampling: { ...sampling, steps: 0 } })).rejects.toThrow(/steps/);
  // said before the first step, not when the pipeline is written after the last one
  await expect(build("divae", { sampling: { ...sampling, classifierScale: 1 } })).rejects.toThrow(/classifierScale 0/); // prettier-ignore
  await expect(build("divae", { dropCodes: "few" })).rejects.toThrow(/all, some/);
  const { model } = recipes.classifier;
  await expect(build("classifier", { model: { ...model, outputs: 2 } })).rejects.toThrow(/no outputs in model/); // prettier-ignore
  await expect(build("autoencoder", { adversarial: { start: 0 } })).rejects.toThrow(
    /adversarial: expected pictures of at least 24 pixels for 3 layers, got 16/,
  );
});

describe("a tokenizer of Gumbel codes", () => {
  const temperature = { from: 0.9, to: 0.1, steps: 3 };
  const gumbel = { kind: "gumbel", codes: 12, width: 4 };
  const read = async (changes: object) => {
    const path = join(folder, "gumbel.json");
    const model = { ...tinyConvolutions, quantizer: gumbel };
    await writeFile(path, JSON.stringify({ kind: "tokenizer", ...run, model, temperature, ...changes })); // prettier-ignore
    return readRecipe(path, "tokenizer");
  };

  it("is trained at the temperatures of its recipe", async () => {
    const losses = async (changes: object): Promise<number[]> => {
      const { trainer } = await buildTokenizerTrainer(await read(changes), data);
      const curve = lossesOf(await runTrainer(trainer, 3, join(folder, "gumbel.state")));
      trainer.dispose();
      return curve;
    };
    const still = { from: 0.9, to: 0.9, steps: 3 };
    const [cooled, same] = [await losses({}), await losses({ temperature: still })];
    expect(cooled.slice(0, 2)).toEqual(same.slice(0, 2)); // whole codes: a temperature moves the next weights
    expect(cooled[2]).not.toBe(same[2]);
  });

  it("refuses other codes and schedules", async () => {
    const nearest = { ...tinyConvolutions, quantizer: { codes: 12, width: 4 } };
    await expect(read({ model: nearest })).rejects.toThrow(/temperature: .*kind "gumbel"/);
    await expect(read({ temperature: { ...temperature, steps: 0 } })).rejects.toThrow(/steps/);
  });
});
