// Classifiers of noisy pictures in training: they learn, surest where there is least noise, go on bit for bit, and their
// gradients are those of their loss.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { memoryDataset } from "../../lib/data/dataset.js";
import { admEncoderUnet, type AdmEncoderUnetConfig } from "../../lib/models/adm-encoder-unet.js";
import { classifierTask, type ClassifierTaskOptions } from "../../lib/trainers/classifier.js";
import { TaskTrainer, type TaskTrainerOptions } from "../../lib/trainers/task-trainer.js";
import { draws, expectTrueGradients } from "./finite-differences.js";
import { resumesExactly, runTrainer } from "./run-trainer.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "smalti-classifier-"))));
afterAll(() => rm(folder, { recursive: true }));

const side = 8;

/** Eight pictures of two classes: bright on the left, or on the right, at eight brightnesses. */
const halves = memoryDataset({
  name: "halves",
  width: side,
  height: side,
  channels: 3,
  pixels: Uint8Array.from({ length: 8 * 3 * side * side }, (_, i) => {
    const [picture, column] = [Math.floor(i / (3 * side * side)), Math.floor(i / 3) % side];
    return column < side / 2 === (picture % 2 === 0) ? 200 + 5 * picture : 40;
  }),
  labels: [0, 1, 0, 1, 0, 1, 0, 1],
  classes: ["left", "right"],
});

const model: AdmEncoderUnetConfig = {
  resolution: side,
  channels: 8,
  multipliers: [1, 2],
  residualBlocks: 1,
  attentionFactors: [2],
  headChannels: 4,
  groups: 4,
  outputs: 2,
  pool: "attention",
};
const base: ClassifierTaskOptions = {
  model,
  process: { kind: "gaussian", chain: { timesteps: 100, schedule: "cosine" } },
};

const trainer = (task: ClassifierTaskOptions = base, options: Partial<TaskTrainerOptions> = {}) =>
  TaskTrainer.create({
    task: classifierTask(task),
    dataset: halves,
    batchSize: 8,
    seed: 2,
    optimiser: { weightDecay: 0.05 }, // as published
    ...options,
  });

it("learns which half is bright, under noise", async () => {
  const made = await trainer();
  const steps = await runTrainer(made, 100, join(folder, "learn"), { rate: 3e-3 });
  made.dispose();
  const mean = (of: (i: number) => number, from: number, to: number): number =>
    Array.from({ length: to - from }, (_, i) => of(from + i)).reduce((a, b) => a + b) / (to - from);
  const last = (name: string): number => mean((i) => steps[i]!.metrics[name]!, 70, 100);
  expect(steps[0]!.loss).toBeGreaterThan(0.6); // ln 2 for a guess
  expect(mean((i) => steps[i]!.loss, 70, 100)).toBeLessThan(0.35);
  expect(last("top1")).toBeGreaterThan(0.8);
});

it.each([
  ["a chain", base],
  ["a path", { model: { ...model, pool: "adaptive", dropout: 0.1 }, process: { kind: "interpolant", path: "linear" } }],
] as [string, ClassifierTaskOptions][])("goes on bit for bit on %s", async (name, task) => {
  const { whole, parts } = await resumesExactly(() => trainer(task), join(folder, name));
  expect(parts).toEqual(whole);
}); // prettier-ignore

it("has the gradients of its loss", async () => {
  const task = classifierTask(base);
  const shape = [3, side, side, 3];
  const inputs = task.inputs(shape);
  await expectTrueGradients({
    parameters: admEncoderUnet(model).parameters,
    inputs,
    values: {
      images: draws("images", shape),
      times: Float64Array.of(3, 40, 90),
      table: draws("table", inputs["table"]!.shape),
      labels: Int32Array.of(1, 0, 1),
      key: Int32Array.from([3, 0, 0, 1, 3, 0, 1, 1, 3, 0, 2, 1]),
    },
    loss: (_, batch) => task.loss(batch).loss,
  });
});

it("refuses what it does not know, and pictures without a class", async () => {
  const refused = (changes: object) => () => classifierTask({ ...base, ...changes } as ClassifierTaskOptions); // prettier-ignore
  expect(refused({ nosied: true })).toThrow(/nosied/);
  expect(refused({ model: { ...model, pool: "mean" } })).toThrow(/pool to be one of adaptive/);
  await expect(trainer({ ...base, model: { ...model, imageChannels: 1 } })).rejects.toThrow(
    /classifier: expected pictures of 1 channels, got 3/,
  );
  const few = await trainer({ ...base, model: { ...model, outputs: 1 } });
  await expect(runTrainer(few, 1, join(folder, "few"))).rejects.toThrow(
    /expected a class from 0 to 0 for every picture, got 1/,
  );
  few.dispose();
});
