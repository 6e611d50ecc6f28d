// Trainings that compute cheap values again: less memory by the plan, and the same losses and weights to the last bit.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { rematerialise } from "../../lib/autodiff/rematerialise.js";
import type { Graph } from "../../lib/ir/graph.js";
import { textToToken } from "../../lib/models/text-to-token.js";
import { vqgan } from "../../lib/models/vqgan.js";
import { compile } from "../../lib/runtime/program.js";
import { AutoencoderTrainer, generatorStepOptions } from "../../lib/trainers/autoencoder.js";
import { discreteStepOptions } from "../../lib/trainers/discrete.js";
import { TaskTrainer } from "../../lib/trainers/task-trainer.js";
import type { Trainable } from "../../lib/trainers/loop.js";
import type { TokenizerRecipe } from "../../lib/trainers/tokenizer-recipe.js";
import { fusedStepGraph, type TrainStep } from "../../lib/trainers/train-step.js";
import type { VqDiffusionRecipe } from "../../lib/trainers/vq-diffusion-recipe.js";
import { tinyAutoencoder, tinyDiscrete } from "./tiny-trainers.js";

const recipe = <T>(name: string): T =>
  JSON.parse(readFileSync(resolve(import.meta.dirname, `../../recipes/${name}.json`), "utf8")) as T;

const codec = recipe<Omit<TokenizerRecipe, "perceptual">>("emoji-tokenizer");
const told = recipe<VqDiffusionRecipe>("emoji-vq-diffusion");

function tokenGraph(): Graph {
  const side = codec.model.resolution / vqgan(codec.model).stride;
  const { text, transformer, process, batchSize, optimiser } = told;
  const model = textToToken({
    condition: { text: { ...text!, vocabulary: 2000 }, attributes: { style: 4, category: 10 } },
    transformer: {
      ...transformer,
      codes: codec.model.quantizer.codes,
      grid: [side, side],
      timesteps: process.timesteps ?? 100,
      condition: { kind: "text", width: text!.width },
    },
  });
  return fusedStepGraph({
    ...discreteStepOptions(model, batchSize),
    parameters: model.parameters,
    ...(optimiser && { optimiser }),
  });
}

const mebi = 2 ** 20;

async function arenaMebibytes(graph: Graph): Promise<number> {
  using program = await compile(graph);
  return program.plan().arenaBytes / mebi;
}

describe("memory of a step of the recipes, in MiB", () => {
  it.each([
    ["emoji-tokenizer", () => fusedStepGraph(generatorStepOptions(vqgan(codec.model), codec)), 66.9, 43.2],
    ["emoji-vq-diffusion", tokenGraph, 152.1, 118.6],
  ] as [string, () => Graph, number, number][])("%s", async (_, graphOf, kept, lighter) => {
    const graph = graphOf();
    const [plain, light] = [await arenaMebibytes(graph), await arenaMebibytes(rematerialise(graph))];
    expect(plain).toBeLessThanOrEqual(1.02 * kept);
    expect(light).toBeLessThanOrEqual(1.02 * lighter);
    expect(light / plain).toBeLessThanOrEqual((1.02 * lighter) / kept);
  }); // prettier-ignore
});

type Weighed = Trainable & { weights(): Map<string, Float32Array>; dispose(): void };

async function train(trainer: Weighed, step: TrainStep) {
  const losses: number[] = [];
  for (let i = 0; i < 3; ++i)
    losses.push((await trainer.step(i, 2e-3, await trainer.prefetch(i))).loss);
  const bytes = step.programs[0]!.plan().arenaBytes;
  const weights = trainer.weights();
  trainer.dispose();
  return { losses, weights, bytes };
}

async function expectSameInLess(create: (rematerialise: boolean) => ReturnType<typeof train>) {
  const [plain, light] = [await create(false), await create(true)];
  expect(light.losses).toEqual(plain.losses);
  expect(light.weights).toEqual(plain.weights);
  expect(light.bytes).toBeLessThan(plain.bytes);
}

describe("the same results", () => {
  it("of a tokenizer with a discriminator, batches added up", () =>
    expectSameInLess(async (rematerialise) => {
      const adversarial = { start: 0, discriminator: { channels: 4, layers: 1 } };
      const trainer = await AutoencoderTrainer.create({
        ...tinyAutoencoder,
        adversarial,
        optimiser: { accumulate: 2 },
        rematerialise,
      });
      return train(trainer, trainer.generator);
    }));

  it("of a model of tokens", () =>
    expectSameInLess(async (rematerialise) => {
      const options = { ...tinyDiscrete(), batchSize: 64, rematerialise };
      const trainer = await TaskTrainer.create(options);
      return train(trainer, trainer.trainStep);
    }));
});
