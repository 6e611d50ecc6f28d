// Checks of what a VQ-Diffusion pipeline is given: options of a call, and settings of a pipeline.json whose parts must fit
// together.
import { DiffusionError } from "../errors.js";
import {
  checkFields,
  isObject,
  listOf,
  object,
  optional,
  recordOf,
  shown,
  text,
  whole,
  type Rule,
  type Rules,
} from "../models/check-config.js";
import type { TextToTokenConfig } from "../models/text-to-token.js";
import { maskReplaceSchedule, type MaskReplaceOptions } from "../processes/schedules.js";
import { checkProcess, samplingRules } from "../trainers/recipe.js";

const longestText = 4096;
const maxPictures = 65536;

const either =
  (one: Rule, other: Rule): Rule =>
  (value) =>
    one(value) === undefined || other(value) === undefined
      ? undefined
      : `${one(value)} or ${other(value)}`;

const oneOrList = optional(either(text(longestText), listOf(text(longestText), 1, maxPictures)));
const call: Rule = (value) => (typeof value === "function" ? undefined : "a function");

const generateRules: Rules = {
  prompt: oneOrList,
  style: oneOrList,
  category: oneOrList,
  count: optional(whole(1, maxPictures)),
  seed: optional(whole(0, Number.MAX_SAFE_INTEGER)),
  firstSample: optional(whole(0, 2 ** 31 - 1 - maxPictures)),
  ...Object.fromEntries(Object.keys(samplingRules).map((name) => [name, () => undefined])), // by checkSampling
  image: optional((value) =>
    isObject(value) && ArrayBuffer.isView(value["data"])
      ? undefined
      : "a picture { width, height, data }",
  ),
  mask: optional((value) => (value instanceof Uint8Array ? undefined : "a Uint8Array")),
  batchSize: optional(whole(1, maxPictures)),
  signal: optional((value) => (value instanceof AbortSignal ? undefined : "an AbortSignal")),
  onProgress: optional(call),
  onWarning: optional(call),
  previewEvery: optional(whole(0, 1e9)),
};

/** Checks the options of `generate` and `stream` except those of sampling. Throws "option". */
export function checkGenerateOptions(options: {
  prompt?: string | readonly string[];
  count?: number;
}): void {
  checkFields("generate", options, generateRules);
  const { prompt = "", count = 1 } = options;
  const pictures = (typeof prompt === "string" ? 1 : prompt.length) * count;
  if (pictures > maxPictures)
    throw new DiffusionError(
      "option",
      `generate: expected at most ${maxPictures} pictures in one call, got ${pictures}; call it several times`,
    );
}

/** Settings of sampling within the bounds of a model. Throws "option". */
export function checkSampling(
  where: string,
  settings: object,
  { timesteps, codes }: { timesteps: number; codes: number },
): void {
  checkFields(where, settings, {
    ...samplingRules,
    steps: whole(1, timesteps),
    topK: whole(0, codes),
  });
}

interface Fitting {
  codec: { codes: number; grid: readonly number[] };
  model: TextToTokenConfig;
}

/** Settings of a pipeline.json, and that they fit the networks. Throws "option". */
export function checkSettings(settings: unknown, { codec, model }: Fitting): void {
  checkFields("settings", settings, {
    process: object,
    attributes: recordOf(listOf(text(256), 1, 65536), 64),
    defaults: object,
  });
  const { process, attributes, defaults } = settings as {
    process: Omit<MaskReplaceOptions, "codes">;
    attributes: Record<string, string[]>;
    defaults: object;
  };
  checkProcess("settings.process", process);
  const { codes, grid, timesteps = 100 } = model.transformer;
  const schedule = maskReplaceSchedule({ ...process, codes });
  const counts = Object.fromEntries(
    Object.entries(attributes).map(([name, names]) => [name, names.length]),
  );
  const pairs: [name: string, actual: unknown, expected: unknown][] = [
    ["codes of the tokenizer", codec.codes, codes],
    ["grid of the tokenizer", codec.grid, grid],
    ["timesteps of settings.process", schedule.timesteps, timesteps],
    ["counts of settings.attributes", sorted(counts), sorted(model.condition.attributes ?? {})],
  ];
  for (const [name, actual, expected] of pairs) {
    if (JSON.stringify(actual) === JSON.stringify(expected)) continue;
    throw new DiffusionError(
      "option",
      `${name}: expected ${shown(expected)} as the model has, got ${shown(actual)}`,
    );
  }
  checkSampling("settings.defaults", defaults, { timesteps, codes });
}

const sorted = (counts: Readonly<Record<string, number>>): [string, number][] =>
  Object.entries(counts).sort(([a], [b]) => (a < b ? -1 : 1));
