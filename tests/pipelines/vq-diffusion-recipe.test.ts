// A VQ-Diffusion recipe from pictures to pictures, at tiny size: told captions (words or byte pairs), classes or nothing.
import { existsSync } from "node:fs";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { memoryDataset, selectFrom } from "../../lib/data/dataset.js";
import { openTrainingData, type TrainingData } from "../../lib/data/training-data.js";
import { writePng } from "../../lib/image/image-io.js";
import { vqgan, type VqganConfig } from "../../lib/models/vqgan.js";
import { initialValues } from "../../lib/nn/init.js";
import { Codec } from "../../lib/pipelines/codec.js";
import type { GenerateOptions } from "../../lib/pipelines/generate-options.js";
import { buildVqDiffusionTrainer } from "../../lib/pipelines/training.js";
import type { VqDiffusionPipeline } from "../../lib/pipelines/vq-diffusion.js";
import { loadPipeline, savePipeline } from "../../lib/pipelines/load-pipeline.js";
import { AutoencoderTrainer } from "../../lib/trainers/autoencoder.js";
import { trainLoop } from "../../lib/trainers/loop.js";
import { readRecipe, recipeLr } from "../../lib/trainers/recipe.js";
import { tinyCodec } from "./tiny.js";

let folder: string;
let codec: Codec;

/** Two patterns, each in four shades. */
const picture = (i: number): Uint8Array =>
  Uint8Array.from({ length: 768 }, (_, k) => (k * (i % 2 ? 7 : 13) + 4 * i) % 200);

/** Eight pictures in class folders, in a plain folder, and with captions. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "smalti-told-"));
  codec = await trainedCodec();
  for (let i = 0; i < 8; ++i) {
    const colour = i % 2 ? "red" : "blue";
    const data = picture(i);
    for (const place of [`classes/${colour}/${i}`, `plain/${i}`, `captions/${i}`])
      await writePng(join(folder, `${place}.png`), { width: 16, height: 16, data });
    await writeFile(join(folder, `captions/${i}.txt`), `a ${colour} block\n`);
  }
});

afterAll(async () => {
  codec.dispose();
  await rm(folder, { recursive: true });
});

/** A tokenizer after thirty steps: its tokens tell the pictures apart. */
async function trainedCodec(): Promise<Codec> {
  const pixels = Uint8Array.from(Array.from({ length: 8 }, (_, i) => [...picture(i)]).flat());
  const dataset = memoryDataset({ width: 16, height: 16, pixels });
  const options = { model: tinyCodec, dataset, batchSize: 8, seed: 3 };
  const trainer = await AutoencoderTrainer.create(options);
  for (let i = 0; i < 30; ++i) await trainer.step(i, 3e-3, await trainer.prefetch());
  const trained = new Codec(tinyCodec, trainer.weights());
  trainer.dispose();
  return trained;
}

function untrainedCodec(config: VqganConfig): Codec {
  const { parameters, states } = vqgan(config);
  return new Codec(config, initialValues([...parameters, ...states], 3));
}

const recipe = {
  kind: "vq-diffusion",
  name: "told",
  data: "-",
  batchSize: 4,
  steps: 6,
  lr: 1e-3,
  warmup: 2,
  seed: 2,
  transformer: { width: 24, layers: 1, heads: 2 },
  process: { timesteps: 20 },
  sampling: { steps: 3, guidanceScale: 2, truncation: 0.9, temperature: 1, topK: 0, sampler: "exact" },
}; // prettier-ignore

const text = { length: 12, width: 16, layers: 1, heads: 2 };
const unguided = { ...recipe.sampling, guidanceScale: 1 };

interface PipelineJson {
  settings: { attributes: { class: string[] } };
  components: { model: { model: string; config: { condition: { classes: number } } } };
}

interface Run {
  steps?: number;
  resume?: boolean;
  from?: string;
  state?: string;
  codec?: Codec;
}

/** Trains by a recipe with `entries`; returns the losses and the folder of the pipeline. */
async function train(
  entries: Record<string, unknown>,
  data: TrainingData | string,
  { steps = 6, resume = false, from, state = "state", codec: used = codec }: Run = {},
): Promise<{ losses: number[]; out: string }> {
  const path = join(folder, "recipe.json");
  await writeFile(path, JSON.stringify({ ...recipe, ...entries }));
  const read = await readRecipe(path, "vq-diffusion");
  const set = typeof data === "string" ? await openTrainingData(join(folder, data), 16) : data;
  const built = await buildVqDiffusionTrainer(read, set, used, from === undefined ? {} : { from });
  const losses: number[] = [];
  const options = { steps, lr: recipeLr(read), checkpoint: join(folder, state), resume };
  for await (const event of trainLoop(built.trainer, options))
    if (event.type === "step") losses.push(event.loss);
  const out = join(folder, `pipeline-${state}`);
  await built.save(out, { steps });
  built.trainer.dispose();
  return { losses, out };
}

/** Six steps are three and three; the loss falls when a model learns eight pictures. */
async function expectExactResume(entries: Record<string, unknown>, data: string): Promise<string> {
  const whole = await train(entries, data, { state: "whole" });
  const first = await train(entries, data, { steps: 3, state: "parts" });
  const rest = await train(entries, data, { state: "parts", resume: true });
  expect([...first.losses, ...rest.losses]).toEqual(whole.losses);
  expect(whole.losses.every(Number.isFinite)).toBe(true);
  return whole.out;
}

async function pixels(pipe: VqDiffusionPipeline, options: GenerateOptions): Promise<Buffer[]> {
  const { images } = await pipe.generate(options);
  return images.map(({ data }) => Buffer.from(data));
}

/** A copy of the pipeline gives the same pictures, and a picture can be made again from what it carries. */
async function expectFaithful(pipe: VqDiffusionPipeline, options: GenerateOptions): Promise<void> {
  const { images } = await pipe.generate(options);
  const copy = join(folder, "copy");
  await savePipeline(pipe, copy);
  using again = await loadPipeline(copy, { kind: "vq-diffusion" });
  expect(await pixels(again, options)).toEqual(images.map(({ data }) => Buffer.from(data)));
  const last = images.at(-1)!;
  expect((await again.regenerate(last.metadata)).data).toEqual(last.data);
}

describe("classes", () => {
  it("of folders without captions: trained, resumed, asked for by name or number", async () => {
    const out = await expectExactResume({ condition: { kind: "class" } }, "classes");
    using pipe = await loadPipeline(out, { kind: "vq-diffusion" });
    expect(pipe.parts().model.condition).toEqual({ kind: "class", classes: 3 });
    expect(pipe.classes).toEqual(["blue", "red"]);
    expect(pipe.tokenizer).toBe(undefined);
    expect(existsSync(join(out, "tokenizer.json"))).toBe(false);
    const [blue, red] = await pixels(pipe, { class: ["blue", "red"], seed: 4 });
    expect(await pixels(pipe, { class: "blue", seed: 4 })).toEqual([blue]);
    expect(await pixels(pipe, { class: 1, seed: 4, firstSample: 1 })).toEqual([red]);
    const { images } = await pipe.generate({ class: 1, count: 2 });
    expect(images[1]!.metadata).toMatchObject({ settings: { class: "red", sample: 1 } });
    await expectFaithful(pipe, { class: ["red", "blue"], seed: 9, batchSize: 1 });
  });

  it.each([
    [{ class: "rde" }, /class to be one of blue, red, got "rde"; did you mean "red"\?/],
    [{ class: 2 }, /class to be one of blue, red, got 2/],
    [{ class: ["red", "blue"], count: 40000 }, /at most 65536 pictures/],
    [{ prompt: "a red block" }, /no prompt, which this model does not know/],
    [{ style: "plain" }, /no style, which this model does not know/],
    [{ prompt: ["", ""], class: ["red"] }, /one for each of 2 prompts/],
  ])("refuses %j", async (options, message) => {
    using pipe = await loadPipeline(join(folder, "pipeline-whole"), { kind: "vq-diffusion" });
    await expect(pipe.generate(options)).rejects.toThrow(message);
  });

  it("decides what is seen", async () => {
    const entries = { condition: { kind: "class" }, lr: 0.01, steps: 200, batchSize: 8 };
    const { out } = await train(entries, "classes", { steps: 200, state: "learned" });
    using pipe = await loadPipeline(out, { kind: "vq-diffusion" });
    const images = Array.from({ length: 8 }, (_, i) => ({
      width: 16,
      height: 16,
      data: picture(i),
    }));
    const seen = await pipe.reconstruct(images);
    const options = { count: 8, seed: 1, guidanceScale: 2, steps: 10, truncation: 0.8 };
    const distance = (a: Uint8Array, b: Uint8Array): number =>
      a.reduce((sum, value, k) => sum + (value - b[k]!) ** 2, 0);
    /** How many of eight pictures are nearest to one of the wanted pattern. */
    const agreement = async (name: string, pattern: number): Promise<number> => {
      const made = await pixels(pipe, { class: name, ...options });
      const nearest = made.map((data) => {
        const distances = seen.map((image) => distance(data, image.data));
        return distances.indexOf(Math.min(...distances));
      });
      return nearest.filter((i) => i % 2 === pattern).length;
    };
    expect(await agreement("blue", 0)).toBeGreaterThanOrEqual(7);
    expect(await agreement("red", 1)).toBeGreaterThanOrEqual(7);
  });

  it("without a learned null class, with the other norm, and going on from a pipeline", async () => {
    const entries = { condition: { kind: "class", norm: "instance" }, nullShare: 0 };
    const { out } = await train(entries, "classes", { steps: 1 });
    const { losses } = await train(entries, "classes", { steps: 1, from: out, state: "from" });
    const afresh = await train(entries, "classes", { steps: 1, state: "afresh" });
    expect(losses).not.toEqual(afresh.losses);
    using pipe = await loadPipeline(out, { kind: "vq-diffusion" });
    expect(pipe.parts().model.condition).toEqual({ kind: "class", classes: 2 });
    expect(await pixels(pipe, {})).toHaveLength(1); // the mean of both
  });

  it.each<[string, (file: PipelineJson) => void, RegExp]>([
    ["too many classes", ({ settings }) => settings.attributes.class.push("a", "b"), /counts of settings\.attributes: expected \[\["class",2\]\]/],
    ["another table", ({ components }) => (components.model.config.condition.classes = 9), /counts of settings\.attributes/],
    ["words", ({ components }) => (components.model.config.condition = { kind: "text", width: 8 } as never), /kind "class" or none, got "text"/],
    ["another network", ({ components }) => (components.model.model = "toString"), /text-to-token or vq-transformer/],
  ])("a pipeline.json with %s is refused", async (_, change, message) => {
    const copy = join(folder, "changed");
    await cp(join(folder, "pipeline-whole"), copy, { recursive: true });
    const path = join(copy, "pipeline.json");
    const file = JSON.parse(await readFile(path, "utf8")) as PipelineJson;
    change(file);
    await writeFile(path, JSON.stringify(file));
    await expect(loadPipeline(copy)).rejects.toMatchObject({
      code: "checkpoint",
      message: expect.stringMatching(message) as string,
    });
  }); // prettier-ignore

  it("wants classes", async () => {
    await expect(train({ condition: { kind: "class" } }, "plain")).rejects.toThrow(
      /expected classes, got none; put the pictures of each class into a sub-folder/,
    );
  });

  const fashion = existsSync("/usr/share/datasets/fashion-mnist");
  it.skipIf(!fashion)("of Fashion-MNIST", async () => {
    const { train: all, attributes } = await openTrainingData("fashion-mnist", 32);
    const count = 16;
    const { names, values } = attributes["category"]!;
    const some = {
      train: selectFrom(all, [...Array(count).keys()]),
      attributes: { category: { names, values: values.slice(0, count) } },
    };
    const used = untrainedCodec({ ...tinyCodec, resolution: 32 });
    const { out } = await train({ condition: { kind: "class" } }, some, { codec: used });
    used.dispose();
    using pipe = await loadPipeline(out, { kind: "vq-diffusion" });
    expect(pipe.classes).toContain("sneaker");
    expect((await pixels(pipe, { class: "sneaker" }))[0]).toHaveLength(32 * 32 * 3);
  });
});

describe("nothing", () => {
  it("plain pictures: trained, resumed, made again", async () => {
    const entries = { condition: { kind: "none" }, sampling: unguided };
    const out = await expectExactResume(entries, "plain");
    using pipe = await loadPipeline(out, { kind: "vq-diffusion" });
    const [a, b] = await pixels(pipe, { count: 2 });
    expect(a).not.toEqual(b);
    await expectFaithful(pipe, { count: 2, sampler: "purity" });
    await expect(pipe.generate({ guidanceScale: 2 })).rejects.toThrow(
      /guidanceScale to be 1 without a condition, got 2/,
    );
    await expect(pipe.generate({ class: 0 })).rejects.toThrow(/no class/);
  });
});

describe("captions", () => {
  it("in byte pairs: any word has pieces", async () => {
    const size = 160;
    const vocabulary = { kind: "byte-pairs", size };
    const out = await expectExactResume({ text, vocabulary }, "captions");
    using pipe = await loadPipeline(out, { kind: "vq-diffusion" });
    const { unknown, ids } = pipe.tokenizer!.encode("a red blo", { length: 12 });
    expect(unknown).toEqual([]);
    expect(ids.filter((id) => id !== pipe.tokenizer!.padId).length).toBeGreaterThan(5);
    expect(pipe.tokenizer!.vocabularySize).toBeLessThanOrEqual(size);
    const warnings: string[] = [];
    await pipe.generate({ prompt: "a dry rock", onWarning: (text) => warnings.push(text) });
    expect(warnings).toEqual([]);
    await expectFaithful(pipe, { prompt: ["a red block", "a blue block"] });
  });

  it("in words as rare as the recipe says", async () => {
    const words = async (entries: Record<string, unknown>): Promise<number> => {
      const { out } = await train({ text, ...entries }, "captions", { steps: 1 });
      using pipe = await loadPipeline(out, { kind: "vq-diffusion" });
      return pipe.tokenizer!.vocabularySize;
    };
    const all = await words({ vocabulary: { kind: "words", minimumCount: 1 } });
    expect(all).toBe(4 + 4); // special, and: a red blue block
    expect(await words({ minimumCount: 1 })).toBe(all);
    expect(await words({ vocabulary: { kind: "words", minimumCount: 1000 } })).toBe(4);
  });

  it("are wanted", async () => {
    await expect(train({ text }, "plain")).rejects.toThrow(/expected captions, got none/);
  });
});

describe("recipes", () => {
  it.each<[Record<string, unknown>, RegExp]>([
    [{ condition: { kind: "clas" } }, /condition: expected kind to be one of text, class, none, got "clas"/],
    [{ condition: { kind: "class", classes: 3 } }, /condition: .* got "classes"/],
    [{ condition: { kind: "class" }, text }, /expected no text with condition "class"/],
    [{ condition: { kind: "class" }, unsaidShare: 0.1 }, /expected no unsaidShare with condition "class"/],
    [{ condition: { kind: "none" }, nullShare: 0.1 }, /expected no nullShare with condition "none"/],
    [{ condition: { kind: "none" } }, /sampling\.guidanceScale 1 without a condition, got 2/],
    [{}, /expected text to be an object, got nothing/],
    [{ text, vocabulary: { kind: "bpe" } }, /vocabulary: expected kind to be one of words, byte-pairs/],
    [{ text, vocabulary: { kind: "byte-pairs" } }, /expected size to be a whole number/],
    [{ text, vocabulary: { kind: "words", size: 3 } }, /got "size"/],
    [{ text, vocabulary: { kind: "words" }, minimumCount: 3 }, /minimumCount inside of vocabulary/],
    [{ text, rematerialise: 1 }, /rematerialise to be true or false/],
  ])("%j", async (entries, message) => {
    const path = join(folder, "wrong.json");
    await writeFile(path, JSON.stringify({ ...recipe, ...entries }));
    await expect(readRecipe(path, "vq-diffusion")).rejects.toMatchObject({
      code: "option",
      message: expect.stringMatching(message) as string,
    });
  }); // prettier-ignore
});
