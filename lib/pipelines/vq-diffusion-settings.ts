// What a VQ-Diffusion pipeline keeps in pipeline.json beside its components, and that it fits them.
import { DiffusionError } from "../errors.js";
import {
  checkFields,
  listOf,
  object,
  recordOf,
  shown,
  text,
  whole,
} from "../models/check-config.js";
import type { TokenModel } from "../models/token-model.js";
import { maskReplaceSchedule, type MaskReplaceOptions } from "../processes/schedules.js";
import { classAttribute } from "../trainers/condition-rows.js";
import {
  checkProcess,
  samplingRules,
  type SamplingSettings,
} from "../trainers/vq-diffusion-recipe.js";

export interface VqDiffusionSettings {
  process: Omit<MaskReplaceOptions, "codes">;
  /** Names of the values of each attribute, e.g. { style: ["google", …] }; of a class model { class: [...] }. */
  attributes: Record<string, string[]>;
  defaults: SamplingSettings;
}

/** Settings of sampling within the bounds of a model. Throws "option". */
export function checkSampling(where: string, settings: object, model: TokenModel): void {
  const { codes, timesteps = 100 } = model.transformer.config;
  const isTold = model.condition.kind !== "none";
  checkFields(where, settings, {
    ...samplingRules,
    steps: whole(1, timesteps),
    topK: whole(0, codes),
    ...(!isTold && {
      guidanceScale: (value) => (value === 1 ? undefined : "1 without a condition"),
    }),
  });
}

const sorted = (counts: Readonly<Record<string, number>>): [string, number][] =>
  Object.entries(counts).sort(([a], [b]) => (a < b ? -1 : 1));

/** Numbers of values that the settings may name for a model: with or without a learned null class. */
function allowedCounts({ condition }: TokenModel): Record<string, number>[] {
  if (condition.kind === "text") return [{ ...condition.attributes }];
  if (condition.kind === "none") return [{}];
  const { classes } = condition;
  return [{ [classAttribute]: classes - 1 }, { [classAttribute]: classes }];
}

/** Settings of a pipeline.json, and that they fit the networks. Throws "option". */
export function checkSettings(
  settings: unknown,
  codec: { codes: number; grid: readonly number[] },
  model: TokenModel,
): void {
  checkFields("settings", settings, {
    process: object,
    attributes: recordOf(listOf(text(256), 1, 65536), 64),
    defaults: object,
  });
  const { process, attributes, defaults } = settings as VqDiffusionSettings;
  checkProcess("settings.process", process);
  const { codes, grid, timesteps = 100 } = model.transformer.config;
  const schedule = maskReplaceSchedule({ ...process, codes });
  const counts = Object.fromEntries(
    Object.entries(attributes).map(([name, names]) => [name, names.length]),
  );
  const allowed = allowedCounts(model).map(sorted);
  const found = sorted(counts);
  const isAllowed = allowed.some((each) => JSON.stringify(each) === JSON.stringify(found));
  const pairs: [name: string, actual: unknown, expected: unknown][] = [
    ["codes of the tokenizer", codec.codes, codes],
    ["grid of the tokenizer", codec.grid, grid],
    ["timesteps of settings.process", schedule.timesteps, timesteps],
    ["counts of settings.attributes", found, isAllowed ? found : allowed[0]],
  ];
  for (const [name, actual, expected] of pairs) {
    if (JSON.stringify(actual) === JSON.stringify(expected)) continue;
    throw new DiffusionError(
      "option",
      `${name}: expected ${shown(expected)} as the model has, got ${shown(actual)}`,
    );
  }
  checkSampling("settings.defaults", defaults, model);
}
