import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSafetensors } from "../../lib/checkpoint/safetensors.js";
import { AutoencoderTrainer } from "../../lib/trainers/autoencoder.js";
import { TaskTrainer } from "../../lib/trainers/task-trainer.js";
import type { TrainEvent } from "../../lib/trainers/events.js";
import { trainLoop, type Trainable } from "../../lib/trainers/loop.js";
import { tinyCodec } from "../pipelines/tiny.js";
import { tinyAutoencoder, tinyDiscrete } from "./tiny-trainers.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "smalti-train-"))));
afterAll(() => rm(folder, { recursive: true }));

async function run(
  trainable: Trainable,
  steps: number,
  options: { resume?: boolean; name: string; signal?: AbortSignal; lr?: number },
) {
  const { lr = 2e-3, name, ...rest } = options;
  const events: TrainEvent[] = [];
  for await (const event of trainLoop(trainable, {
    steps,
    lr: () => lr,
    checkpoint: join(folder, name),
    ...rest,
  }))
    events.push(event);
  return events;
}

const losses = (events: TrainEvent[]): number[] =>
  events.flatMap((event) => (event.type === "step" ? [event.loss] : []));

describe("autoencoder", () => {
  it("learns eight pictures", async () => {
    const trainer = await AutoencoderTrainer.create(tinyAutoencoder);
    const curve = losses(await run(trainer, 60, { name: "learn" }));
    trainer.dispose();
    expect(curve.at(-1)!).toBeLessThan(curve[0]! / 2);
  });

  it("continues bit for bit from a checkpoint", async () => {
    const whole = await AutoencoderTrainer.create(tinyAutoencoder);
    const curve = losses(await run(whole, 8, { name: "whole" }));
    whole.dispose();
    const first = await AutoencoderTrainer.create(tinyAutoencoder);
    await run(first, 5, { name: "parts" });
    first.dispose();
    const second = await AutoencoderTrainer.create(tinyAutoencoder);
    const rest = losses(await run(second, 8, { name: "parts", resume: true }));
    expect(rest).toEqual(curve.slice(5));
    second.dispose();
  });

  it("accumulates gradients of two half batches like one whole batch", async () => {
    const plain = {
      ...tinyAutoencoder,
      model: { ...tinyCodec, quantizer: { ...tinyCodec.quantizer, codebook: "gradient" as const } },
    };
    const one = await AutoencoderTrainer.create({ ...plain, batchSize: 8, optimiser: {} });
    const two = await AutoencoderTrainer.create({
      ...plain,
      batchSize: 4,
      optimiser: { accumulate: 2 },
    });
    const [a] = losses(await run(one, 1, { name: "one" }));
    const [b] = losses(await run(two, 1, { name: "two" }));
    expect(b).toBeCloseTo(a!, 5);
    one.dispose();
    two.dispose();
  });

  it("trains with a discriminator", async () => {
    const trainer = await AutoencoderTrainer.create({
      ...tinyAutoencoder,
      adversarial: { start: 2, discriminator: { channels: 4, layers: 1 } },
    });
    const events = await run(trainer, 4, { name: "gan" });
    const last = events.findLast((event) => event.type === "step");
    expect(last?.type === "step" && last.metrics["discriminator"]).toBeGreaterThan(0);
    trainer.dispose();
  });

  it("stops with the step named when the loss is not finite, and keeps the checkpoint", async () => {
    const trainer = await AutoencoderTrainer.create({ ...tinyAutoencoder, optimiser: {} });
    await run(trainer, 2, { name: "nan" });
    const before = await doneOf("nan");
    await expect(run(trainer, 20, { name: "nan", resume: true, lr: 1e38 })).rejects.toThrow(
      /expected a finite loss at step \d+/,
    );
    expect(await doneOf("nan")).toBe(before);
    trainer.dispose();
  });

  it("saves and says so when interrupted", async () => {
    const trainer = await AutoencoderTrainer.create(tinyAutoencoder);
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 300);
    const events = await run(trainer, 100_000, { name: "stop", signal: controller.signal });
    expect(events.at(-1)).toMatchObject({ type: "done", reason: "interrupted" });
    expect(await doneOf("stop")).toBe((events.at(-1) as { step: number }).step);
    trainer.dispose();
  });
});

async function doneOf(name: string): Promise<number> {
  using file = await openSafetensors(join(folder, name));
  return (JSON.parse(file.metadata["smalti.training"]!) as { done: number }).done;
}

describe("mask-and-replace", () => {
  const create = () => TaskTrainer.create(tinyDiscrete());

  it("learns token grids and continues bit for bit", async () => {
    const whole = await create();
    const curve = losses(await run(whole, 60, { name: "discrete" }));
    whole.dispose();
    const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
    expect(mean(curve.slice(-10))).toBeLessThan(mean(curve.slice(0, 10)));
    const first = await create();
    await run(first, 6, { name: "discrete-parts" });
    first.dispose();
    const second = await create();
    expect(losses(await run(second, 9, { name: "discrete-parts", resume: true }))).toEqual(
      curve.slice(6, 9),
    );
    second.dispose();
  });
});
