// A tokenizer recipe from file to trained codec: what it switches on acts, and a resumed run goes on bit for bit.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { memoryDataset } from "../../lib/data/dataset.js";
import { buildTokenizerTrainer } from "../../lib/pipelines/training.js";
import type { TrainEvent } from "../../lib/trainers/events.js";
import { trainLoop } from "../../lib/trainers/loop.js";
import { readRecipe, recipeLr } from "../../lib/trainers/recipe.js";
import { tinyCodec } from "./tiny.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "smalti-recipe-"))));
afterAll(() => rm(folder, { recursive: true }));

const train = memoryDataset({
  name: "noise",
  width: 16,
  height: 16,
  channels: 3,
  pixels: Uint8Array.from(
    { length: 8 * 768 },
    (_, i) => (i * i * 31 + Math.floor(i / 768) * i * 7) % 251,
  ),
});

type StepEvent = Extract<TrainEvent, { type: "step" }>;

/** Trains by a recipe with `entries` up to `steps`, resuming when asked, and returns the step events and the weights. */
async function run(
  entries: Record<string, unknown>,
  { steps = 4, resume = false, name = "run" } = {},
): Promise<{ events: StepEvent[]; weights: Map<string, Float32Array> }> {
  const recipe = { kind: "tokenizer", name, data: "-", batchSize: 2, steps, lr: 1e-3, warmup: 0, seed: 5, model: tinyCodec }; // prettier-ignore
  const path = join(folder, "recipe.json");
  await writeFile(path, JSON.stringify({ ...recipe, ...entries }));
  const read = await readRecipe(path, "tokenizer");
  const trainer = await buildTokenizerTrainer(read, { train, attributes: {} });
  const events: TrainEvent[] = [];
  const options = { steps, lr: recipeLr({ ...read, steps: 8 }), checkpoint: join(folder, name) };
  for await (const event of trainLoop(trainer, { ...options, resume })) events.push(event);
  const weights = trainer.weights();
  trainer.dispose();
  return { events: events.filter((event) => event.type === "step"), weights };
}

const metric = (events: readonly StepEvent[], name: string): number[] =>
  events.map(({ metrics }) => metrics[name]!);

const critic = { channels: 4, layers: 1 };

it("adversarial terms begin after their start", async () => {
  const plain = await run({});
  const late = await run({ adversarial: { start: 2, discriminator: critic } });
  expect(metric(plain.events, "discriminator")).toEqual(Array(4).fill(undefined));
  const losses = metric(late.events, "discriminator");
  expect(losses.slice(0, 2)).toEqual([0, 0]);
  expect(Math.min(...losses.slice(2))).toBeGreaterThan(0);
});

it.each([
  ["hinge, batch norm", { loss: "hinge", discriminator: critic }],
  ["vanilla, batch norm", { loss: "vanilla", discriminator: critic }],
  ["hinge, act norm", { discriminator: { ...critic, norm: "act" }, weight: 0.5 }],
])("with %s the decoder learns other weights and a run resumes bit for bit", async (name, game) => {
  const plain = await run({ optimiser: { betas: [0.5, 0.9] } }, { steps: 3 });
  const entries = { adversarial: { start: 0, ...game } };
  const whole = await run(entries, { steps: 6, name });
  const first = await run(entries, { steps: 3, name });
  expect(first.weights.get("decoder.conv_out.weight")).not.toEqual(
    plain.weights.get("decoder.conv_out.weight"),
  );
  const rest = await run(entries, { steps: 6, name, resume: true });
  const curve = [...first.events, ...rest.events].map(({ loss }) => loss);
  expect(curve).toEqual(whole.events.map(({ loss }) => loss));
  expect(rest.weights).toEqual(whole.weights);
  await expect(run({}, { name, resume: true })).rejects.toThrow(/adversarial/);
});

it("mixes tokens of two pictures", async () => {
  const [plain, mixed] = [await run({}), await run({ tokenMix: 1 })];
  expect(mixed.events[0]!.loss).not.toBe(plain.events[0]!.loss);
  const both = await run({ tokenMix: 1, adversarial: { start: 0, discriminator: critic } });
  expect(both.events).toHaveLength(4);
});
