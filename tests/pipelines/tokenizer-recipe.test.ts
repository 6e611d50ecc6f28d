// A tokenizer recipe from file to trained codec: what it switches on acts, and a resumed run goes on bit for bit.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSafetensors, writeSafetensors } from "../../lib/checkpoint/safetensors.js";
import { memoryDataset } from "../../lib/data/dataset.js";
import { lpips } from "../../lib/models/lpips.js";
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
): Promise<{ events: StepEvent[]; weights: ReadonlyMap<string, Float32Array> }> {
  const recipe = { kind: "tokenizer", name, data: "-", batchSize: 2, steps, lr: 1e-3, warmup: 0, seed: 5, model: tinyCodec }; // prettier-ignore
  const path = join(folder, "recipe.json");
  await writeFile(path, JSON.stringify({ ...recipe, ...entries }));
  const read = await readRecipe(path, "tokenizer");
  const { trainer } = await buildTokenizerTrainer(read, { train, attributes: {} });
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

const widths = [2, 3, 4, 4, 5];

/** LPIPS of narrow widths in a file, as taming-transformers names and lays out its tensors. */
async function writeLpips(file: string, wanted: (name: string) => boolean): Promise<string> {
  const path = join(folder, file);
  const { parameters } = lpips({ widths });
  const tensors = parameters
    .filter(({ name }) => wanted(name))
    .map(({ name, shape }) => {
      const foreign = { 4: [shape[3]!, shape[2]!, 3, 3], 2: [1, shape[0]!, 1, 1] }[shape.length] ?? shape; // prettier-ignore
      const elements = shape.reduce((a, b) => a * b, 1);
      const data = Float32Array.from({ length: elements }, (_, i) =>
        Math.abs(Math.sin(i + elements)),
      );
      return { name: `loss.perceptual_loss.${name}`, shape: foreign, data };
    });
  await writeSafetensors(path, tensors);
  return path;
}

describe("perceptual terms", () => {
  it("come from one file or several, weigh in, and stay out of the training state", async () => {
    const weights = await writeLpips("lpips.safetensors", () => true);
    const isNet = (name: string): boolean => name.startsWith("net.");
    const parts = [
      await writeLpips("net.safetensors", isNet),
      await writeLpips("lin.safetensors", (name) => !isNet(name)),
    ];
    const plain = await run({});
    const one = await run({ perceptual: { weights, widths } }, { steps: 6, name: "perceptual" });
    const two = await run({ perceptual: { weights: parts, widths } }, { steps: 3, name: "parts" });
    const none = await run({ perceptual: { weights, widths, weight: 0 } });
    expect(none.events[0]!.metrics["reconstruction"]).toBeCloseTo(plain.events[0]!.metrics["reconstruction"]!, 6); // prettier-ignore
    expect(one.events[0]!.loss).toBeGreaterThan(plain.events[0]!.loss);
    expect(two.events.map(({ loss }) => loss)).toEqual(one.events.slice(0, 3).map(({ loss }) => loss)); // prettier-ignore
    const entries = { perceptual: { weights: parts, widths } };
    const rest = await run(entries, { steps: 6, name: "parts", resume: true });
    expect(rest.weights).toEqual(one.weights);
    using state = await openSafetensors(join(folder, "parts"));
    expect([...state.tensors.keys()].filter((name) => name.includes("perceptual"))).toEqual([]);
  });

  it("name what is wrong with their weights", async () => {
    const weights = await writeLpips("half.safetensors", (name) => name.startsWith("net."));
    await expect(run({ perceptual: { weights, widths } })).rejects.toThrow(
      /half\.safetensors: expected the 33 tensors of LPIPS, got none of lin0\.model\.1\.weight/,
    );
    await expect(run({ perceptual: { weights } })).rejects.toThrow(/another shape/);
    await expect(run({ perceptual: { weights: join(folder, "no") } })).rejects.toMatchObject({ code: "checkpoint" }); // prettier-ignore
    await expect(run({ perceptual: {} })).rejects.toThrow(/weights to be a file, or a list/);
    await expect(run({ perceptual: { weights, widths: [1] } })).rejects.toThrow(/list of 5 items/);
    const model = { ...tinyCodec, resolution: 8, attentionResolutions: [] };
    await expect(run({ model, perceptual: { weights } })).rejects.toThrow(/at least 16 pixels/);
  });
});

it("mixes tokens of two pictures", async () => {
  const [plain, mixed] = [await run({}), await run({ tokenMix: 1 })];
  expect(mixed.events[0]!.loss).not.toBe(plain.events[0]!.loss);
  const both = await run({ tokenMix: 1, adversarial: { start: 0, discriminator: critic } });
  expect(both.events).toHaveLength(4);
});
