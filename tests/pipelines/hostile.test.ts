// Folders, recipes and options of strangers: each wrong value is a DiffusionError that names it, within a second.
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DiffusionError } from "../../lib/errors.js";
import { loadTokenizerRun } from "../../lib/pipelines/tokenizer-run.js";
import type { VqDiffusionPipeline } from "../../lib/pipelines/vq-diffusion.js";
import { loadPipeline } from "../../lib/pipelines/load-pipeline.js";
import { readRecipe, type Recipe } from "../../lib/trainers/recipe.js";
import { processorTime } from "../processor-time.js";
import { tinyPipeline } from "./tiny.js";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

let folder: string;
let scratch: string;
let pipe: VqDiffusionPipeline;
let good: Json;

beforeAll(async () => {
  folder = await tinyPipeline();
  scratch = await mkdtemp(join(tmpdir(), "smalti-hostile-"));
  await cp(folder, scratch, { recursive: true });
  pipe = await loadPipeline(folder, { kind: "vq-diffusion" });
  good = JSON.parse(await readFile(join(folder, "pipeline.json"), "utf8")) as Json;
});

afterAll(async () => {
  pipe.dispose();
  await rm(folder, { recursive: true });
  await rm(scratch, { recursive: true });
});

/** A copy of `value` with the entry at a dotted path replaced; undefined removes it. */
function withEntry(value: Json, path: string, entry: unknown): Json {
  const copy = structuredClone(value) as Record<string, Json>;
  const keys = path.split(".");
  let place: Record<string, Json> = copy;
  for (const key of keys.slice(0, -1)) place = place[key] as Record<string, Json>;
  const last = keys.at(-1)!;
  if (entry === undefined) delete place[last];
  else place[last] = entry as Json;
  return copy;
}

/** The error of a promise; fails when there is none or when it took more than a second of work. */
async function errorOf(action: () => Promise<unknown>): Promise<unknown> {
  const spent = processorTime();
  const error = await action().then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(spent()).toBeLessThan(1000);
  return error;
}

const loadWith = async (json: Json): Promise<VqDiffusionPipeline> => {
  await writeFile(join(scratch, "pipeline.json"), JSON.stringify(json));
  return loadPipeline(scratch, { kind: "vq-diffusion" });
};

const codec = "components.codec.config";
const model = "components.model.config";

describe("pipeline.json", () => {
  it.each<[string, unknown, RegExp]>([
    ["formatVersion", 2, /formatVersion to be 1 \(a newer smalti/],
    ["kind", 7, /kind to be a text/],
    ["kind", "divae", /kind "divae"/],
    ["nmae", "x", /got "nmae"; did you mean "name"\?/],
    ["components", [], /components to be an object/],
    ["components.model", undefined, /components codec \(vqgan\) and model/],
    ["components.codec.model", "vae", /codec \(vae\)/],
    ["components.codec.weights", "../../etc/passwd", /name of a \.safetensors file/],
    ["components.codec.weigths", "x", /did you mean "weights"\?/],
    [`${codec}.resolution`, 1e9, /resolution from 1 to 4096, got 1000000000/],
    [`${codec}.resolution`, "16", /resolution to be a whole number from 1 to 4096, got "16"/],
    [`${codec}.resolution`, 18, /grid of the tokenizer: expected \[4,4\]/],
    [`${codec}.channels`, -8, /channels from 1 to 65536, got -8/],
    [`${codec}.channels`, null, /channels to be a whole number from 1 to 65536, got null/],
    [`${codec}.multipliers`, [], /multipliers to be a list of 1 to 12 items/],
    [`${codec}.multipliers`, [1, 1, 1e6], /each from .* to 1024/],
    [`${codec}.multipliers`, "112", /multipliers to be a list/],
    [`${codec}.residualBlocks`, 1e12, /residualBlocks from 0 to 64/],
    [`${codec}.residualBlocks`, 1.5, /residualBlocks to be a whole number from 0 to 64, got 1.5/],
    [`${codec}.groups`, 0, /groups from 1 to 65536, got 0/],
    [`${codec}.attentionResolutions`, {}, /attentionResolutions to be a list/],
    [`${codec}.middleAttention`, "no", /middleAttention to be true or false, got "no"/],
    [`${codec}.quantizer`, undefined, /quantizer to be an object, got nothing/],
    [`${codec}.quantizer.codes`, 2 ** 40, /codes from 1 to 16777216/],
    [
      `${codec}.quantizer.codes`,
      21,
      /codes of the tokenizer: expected 20 as the model has, got 21/,
    ],
    [`${codec}.quantizer.metric`, "cosin", /metric to be one of euclidean, cosine/],
    [`${codec}.quantizer.widht`, 4, /did you mean "width"\?/],
    [`${codec}.quantizer.decay`, 2, /decay from 0 to 1, got 2/],
    [`${model}.transformer.layers`, 1e9, /layers from 1 to 1024/],
    [`${model}.transformer.layers`, -1, /layers/],
    [`${model}.transformer.heads`, 0, /heads from 1 to/],
    [`${model}.transformer.width`, "24", /width to be a whole number from 1 to 65536, got "24"/],
    [`${model}.transformer.grid`, [1e9, 1e9], /grid to be a list of 2 items, each from 1 to 4096/],
    [`${model}.transformer.grid`, 4, /grid to be a list of 2 items/],
    [`${model}.transformer.mlpRatio`, 1e300, /mlpRatio from/],
    [`${model}.transformer.mlp`, "lin", /mlp to be one of linear, conv/],
    [`${model}.transformer.activation`, "constructor", /activation to be one of/],
    [`${model}.transformer.timesteps`, 1e9, /timesteps from 1 to 100000/],
    [
      `${model}.transformer.timesteps`,
      13,
      /settings\.process: expected 13 as the model has, got 12/,
    ],
    [`${model}.transformer.condition`, { kind: "toString" }, /condition\.kind of text, class/],
    [`${model}.transformer.condition.width`, 17, /width of the text encoder/],
    [`${model}.condition`, null, /condition to be an object/],
    [`${model}.condition.text`, undefined, /text to be an object/],
    [`${model}.condition.text.layers`, 1e10, /layers from 0 to 1024/],
    [`${model}.condition.text.heads`, 3, /width divisible by heads/],
    [`${model}.condition.text.length`, 2 ** 31, /length from 2 to 4096/],
    [`${model}.condition.text.padToken`, 1e5, /padToken below the vocabulary/],
    [`${model}.condition.attributes.style`, 1e12, /attributes to be an object whose values/],
    [`${model}.condition.attributes.style`, 3, /counts of settings\.attributes/],
    ["settings.process.timesteps", "12", /timesteps to be a whole number/],
    ["settings.process.preset", "toString", /preset to be one of released, paper90/],
    ["settings.process.cumulative", { abar: [0.5], cbar: "x" }, /cbar to be a list/],
    ["settings.process.endpoints", { abarFirst: 2 }, /abarFirst from 0 to 1, got 2/],
    ["settings.attributes.style", ["plain", 4], /attributes to be an object/],
    ["settings.defaults", undefined, /defaults to be an object/],
    ["settings.defaults.steps", 1e9, /steps from 1 to 12/],
    ["settings.defaults.topK", -1, /topK from 0 to 20/],
    ["settings.defaults.truncation", "0.9", /truncation to be a number from 0 to 1, got "0\.9"/],
    ["settings.defaults.samplr", "exact", /did you mean "sampler"\?/],
  ])("names the fault: %s = %o", async (path, entry, message) => {
    const error = await errorOf(() => loadWith(withEntry(good, path, entry)));
    expect(error).toBeInstanceOf(DiffusionError);
    expect(error).toMatchObject({ code: "checkpoint" });
    expect((error as Error).message).toMatch(message);
  });

  it("survives any value at any place", async () => {
    const paths = pathsOf(good);
    const values = fc.oneof(
      fc.jsonValue({ maxDepth: 2 }),
      fc.constantFrom(1e308, -1, 2 ** 53, "", [], {}),
    );
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...paths), values, async (path, value) => {
        const loaded = await loadWith(withEntry(good, path, value)).catch(
          (error: unknown) => error,
        );
        if (loaded instanceof Error) expect(loaded).toBeInstanceOf(DiffusionError);
        else (loaded as VqDiffusionPipeline).dispose();
      }),
      { numRuns: 1000 },
    );
  });

  it("reads no text of unbounded size and no other JSON", async () => {
    await writeFile(join(scratch, "pipeline.json"), " ".repeat(2 ** 24 + 1));
    expect(await errorOf(() => loadPipeline(scratch))).toMatchObject({ code: "checkpoint" });
    for (const json of [null, [], "x", 3] as Json[])
      expect(await errorOf(() => loadWith(json))).toMatchObject({ code: "checkpoint" });
  });

  it("wants the vocabulary that the model was trained with", async () => {
    const path = join(scratch, "tokenizer.json");
    const text = await readFile(path, "utf8");
    const json = JSON.parse(text) as { model: { vocab: Record<string, number> } };
    json.model.vocab["intruder"] = Object.keys(json.model.vocab).length;
    await writeFile(path, JSON.stringify(json));
    const error = await errorOf(() => loadWith(good));
    await writeFile(path, text);
    expect((error as Error).message).toMatch(/tokens with padding 0 as the model has, got/);
  });

  it("holds for a tokenizer run as well", async () => {
    await writeFile(
      join(scratch, "pipeline.json"),
      JSON.stringify(withEntry(good, `${codec}.channels`, 2e9)),
    );
    expect(await errorOf(() => loadTokenizerRun(scratch))).toBeInstanceOf(DiffusionError);
  });

  it("rejects names that are no text", async () => {
    for (const name of [undefined, "", 4, null])
      expect(await errorOf(() => loadPipeline(name as string))).toMatchObject({ code: "option" });
  });
});

/** Dotted paths of all entries of objects. */
function pathsOf(value: Json, path = ""): string[] {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [];
  return Object.entries(value).flatMap(([key, child]) => {
    const here = path === "" ? key : `${path}.${key}`;
    return [here, ...pathsOf(child, here)];
  });
}

describe("options of generate", () => {
  it.each<[Record<string, unknown>, RegExp]>([
    [{ count: 1e9 }, /count from 1 to 65536, got 1000000000/],
    [{ count: -1 }, /count from/],
    [{ count: "2" }, /count to be/],
    [{ count: 65536, prompt: ["a", "b"] }, /at most 65536 pictures in one call, got 131072/],
    [{ batchSize: 0 }, /batchSize from 1/],
    [{ batchSize: NaN }, /batchSize to be .* got NaN/],
    [{ seed: "x" }, /seed to be a whole number/],
    [{ seed: 1.5 }, /seed to be a whole number/],
    [{ seed: -1 }, /seed from 0/],
    [{ seed: 2 ** 60 }, /seed from 0/],
    [{ firstSample: 2 ** 31 }, /firstSample from 0/],
    [{ steps: 0, sampler: "released" }, /steps from 1 to 12, got 0/],
    [{ steps: NaN, sampler: "released" }, /steps to be a whole number from 1 to 12, got NaN/],
    [{ steps: 1e9, sampler: "released" }, /steps from 1 to 12/],
    [{ truncation: "0.5" }, /truncation to be a number/],
    [{ topK: 1.5 }, /topK to be a whole number/],
    [{ temperature: Infinity }, /temperature from 0.01 to 100, got Infinity/],
    [{ prompt: 5 }, /prompt to be a text/],
    [{ prompt: [] }, /prompt to be a text .* or a list of 1 to/],
    [{ prompt: ["a", null] }, /prompt to be/],
    [{ prompt: "x".repeat(1e6) }, /prompt to be a text of at most 4096/],
    [{ style: 3 }, /style to be/],
    [{ mask: [1], image: {} }, /image to be a picture/],
    [
      { image: { width: 16, height: 16, data: new Uint8Array(3) }, mask: new Uint8Array(256) },
      /768 values/,
    ],
    [{ signal: {} }, /signal to be an AbortSignal/],
    [{ onProgress: 1 }, /onProgress to be a function/],
    [{ previewEvery: -1 }, /previewEvery from 0/],
  ])("rejects wrong options, number %#", async (options, message) => {
    const error = await errorOf(() => pipe.generate(options));
    expect(error).toBeInstanceOf(DiffusionError);
    expect((error as Error).message).toMatch(message);
  });

  it.each<[Record<string, unknown>]>([
    [{ settings: { count: 1e9 } }],
    [{ settings: { batchSize: 0 } }],
    [{ settings: { sample: -1 } }],
    [{ settings: 4 }],
    [{ seed: "7" }],
    [{ prompt: { length: 1e9 } }],
  ])("takes from a picture only what pictures carry: %o", async (metadata) => {
    const error = await errorOf(() => pipe.regenerate({ model: "tiny", ...metadata } as never));
    expect(error).toMatchObject({ code: "data" });
  });

  it("refuses a condition that the model does not know", async () => {
    const known = pipe.settings.attributes;
    const { style } = known;
    delete known["style"];
    const error = await errorOf(() => pipe.generate({ style: "plain" }));
    known["style"] = style!;
    expect((error as Error).message).toMatch(/expected no style, which this model does not know/);
  });

  it("rejects wrong batches and tokens of the codec", async () => {
    expect(await errorOf(() => pipe.decode(new Int32Array(16), { batchSize: 0 }))).toMatchObject({
      code: "option",
    });
    expect(await errorOf(() => pipe.decode(Array(16).fill(0) as never))).toMatchObject({
      code: "dtype",
    });
    expect(
      await errorOf(() => pipe.decode(new Int32Array(16), { batchsize: 1 } as never)),
    ).toMatchObject({
      code: "option",
    });
  });
});

describe("recipes", () => {
  const recipes = {
    tokenizer: "recipes/emoji-tokenizer.json",
    "vq-diffusion": "recipes/emoji-vq-diffusion.json",
  } as const;
  type Kind = keyof typeof recipes;

  const read = async (kind: Kind, path: string, entry: unknown): Promise<unknown> => {
    const recipe = JSON.parse(await readFile(recipes[kind], "utf8")) as Json;
    const file = join(scratch, "recipe.json");
    await writeFile(file, JSON.stringify(path === "" ? entry : withEntry(recipe, path, entry)));
    return readRecipe(file, kind);
  };

  it("reads those of the repository", async () => {
    for (const file of await readdir("recipes")) {
      const path = join("recipes", file);
      const { kind } = JSON.parse(await readFile(path, "utf8")) as { kind: Recipe["kind"] };
      expect(await readRecipe(path, kind)).toMatchObject({ kind });
    }
  });

  it.each<[Kind, string, unknown, RegExp]>([
    ["tokenizer", "", null, /expected a recipe with "kind": "tokenizer", got null/],
    ["tokenizer", "kind", "vq-diffusion", /got "vq-diffusion"/],
    ["tokenizer", "batchSize", "16", /batchSize to be a whole number from 1 to 65536, got "16"/],
    ["tokenizer", "batchSize", 2 ** 40, /batchSize from 1 to 65536/],
    ["tokenizer", "steps", 1.5, /steps to be a whole number/],
    ["tokenizer", "lr", undefined, /lr to be a number .* got nothing/],
    ["tokenizer", "lr", 0, /lr from/],
    ["tokenizer", "data", 3, /data to be a text/],
    ["tokenizer", "warmpu", 3, /did you mean "warmup"\?/],
    ["tokenizer", "seed", -1, /seed from 0/],
    ["tokenizer", "augment.shift", 1e9, /shift from 0 to 4096/],
    ["tokenizer", "augment.filp", true, /did you mean "flip"\?/],
    ["tokenizer", "model.channels", 1e8, /channels from 1 to 65536/],
    ["tokenizer", "model.quantizer.codes", 0, /codes from 1/],
    ["tokenizer", "optimiser.betas", [0.9, 1], /betas to be a list of 2 items/],
    ["tokenizer", "optimiser.accumulate", 0, /accumulate from 1/],
    ["tokenizer", "optimiser.emaDecay", 1.5, /emaDecay from 0/],
    ["tokenizer", "adversarial", {}, /adversarial: expected start to be a whole number/],
    ["tokenizer", "adversarial", { start: 0, wieght: 1 }, /did you mean "weight"\?/],
    ["tokenizer", "adversarial", { start: 0, loss: "hing" }, /loss to be one of hinge, vanilla/],
    [
      "tokenizer",
      "adversarial",
      { start: 0, discriminator: { layers: 5 } },
      /at least 96 pixels for 5 layers, got 64/,
    ],
    [
      "tokenizer",
      "adversarial",
      { start: 0, discriminator: { imageChannels: 1 } },
      /discriminator\.imageChannels 3 as the pictures have, got 1/,
    ],
    ["tokenizer", "tokenMix", 1.5, /tokenMix from 0 to 1/],
    ["tokenizer", "freeze", "encoder", /freeze to be a list/],
    ["tokenizer", "freeze", ["encodr"], /did you mean "encoder"\?/],
    ["vq-diffusion", "text", undefined, /text to be an object/],
    ["vq-diffusion", "text.layers", 1e9, /layers from 0/],
    ["vq-diffusion", "text.heads", 5, /width divisible by heads/],
    ["vq-diffusion", "transformer.heads", 7, /width divisible by heads/],
    ["vq-diffusion", "transformer.widht", 7, /did you mean "width"\?/],
    ["vq-diffusion", "process.timesteps", 0, /timesteps from 1/],
    ["vq-diffusion", "process.presett", "x", /did you mean "preset"\?/],
    ["vq-diffusion", "loss.auxiliaryWeight", "a", /auxiliaryWeight to be a number/],
    ["vq-diffusion", "loss.auxiliarWeight", 1, /did you mean "auxiliaryWeight"\?/],
    ["vq-diffusion", "nullShare", 2, /nullShare from 0 to 1/],
    ["vq-diffusion", "sampling", undefined, /sampling to be an object/],
    ["vq-diffusion", "sampling.steps", 101, /sampling\.steps up to the 100 timesteps, got 101/],
    ["vq-diffusion", "sampling.sampler", "exakt", /sampler to be one of exact/],
    ["vq-diffusion", "minimumCount", 0, /minimumCount from 1/],
  ])("%s: names the fault: %s = %o", async (kind, path, entry, message) => {
    const error = await errorOf(() => read(kind, path, entry));
    expect(error).toMatchObject({ name: "DiffusionError", code: "option" });
    expect((error as Error).message).toMatch(message);
  });
});
