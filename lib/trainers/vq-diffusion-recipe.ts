// Recipe of a VQ-Diffusion on the tokens of a tokenizer: what it is told (captions, classes or nothing), the network, the
// process and how to sample.
import { DiffusionError } from "../errors.js";
import {
  checkFields,
  flag,
  isObject,
  limits,
  listOf,
  object,
  oneOf,
  optional,
  real,
  shown,
  whole,
  without,
  type Rule,
  type Rules,
} from "../models/check-config.js";
import { textEncoder, textEncoderRules, type TextEncoderConfig } from "../models/text-encoder.js";
import {
  transformerRules,
  vqTransformer,
  type VqTransformerCondition,
  type VqTransformerConfig,
} from "../models/vq-transformer.js";
import type { LossOptions } from "../processes/discrete-loss.js";
import { maskReplaceSchedule, type MaskReplaceOptions } from "../processes/schedules.js";
import { checkRecipeFields, probability, weight, type RecipeFields } from "./recipe-fields.js";

/** What the model is told of a picture. */
export type RecipeCondition =
  | { kind: "text" }
  | Omit<Extract<VqTransformerCondition, { kind: "class" }>, "classes">
  | { kind: "none" };

/** How captions become ids. */
export type RecipeVocabulary =
  | { kind: "words"; /** Words rarer than this are unknown; default 2. */ minimumCount?: number }
  | { kind: "byte-pairs"; /** Tokens in all, the characters included. */ size: number };

/** How to sample; `GenerateOptions` says what each means. */
export interface SamplingSettings {
  steps: number;
  guidanceScale: number;
  truncation: number;
  temperature: number;
  topK: number;
  sampler: "exact" | "released" | "purity";
}

export interface VqDiffusionRecipe extends RecipeFields {
  kind: "vq-diffusion";
  /** Default { kind: "text" }. */
  condition?: RecipeCondition;
  /** With captions. Default words that occur at least `minimumCount` times. */
  vocabulary?: RecipeVocabulary;
  /** The older place of vocabulary.minimumCount. */
  minimumCount?: number;
  /** The encoder of captions; only, and always, with captions. */
  text?: Omit<TextEncoderConfig, "vocabulary" | "padToken">;
  transformer: Omit<VqTransformerConfig, "codes" | "grid" | "timesteps" | "condition">;
  process: Omit<MaskReplaceOptions, "codes">;
  loss?: Omit<LossOptions, "timesteps">;
  /** Share of samples that are told nothing; default 0.1. 0 with classes: the mean of all classes stands for nothing. */
  nullShare?: number;
  /** Share of samples in which an attribute is left unsaid; only with captions. */
  unsaidShare?: number;
  /** Defaults of sampling that the pipeline gets. */
  sampling: SamplingSettings;
}

const rules: Readonly<Record<Exclude<keyof VqDiffusionRecipe, keyof RecipeFields | "kind">, Rule>> =
  {
    condition: optional(object),
    vocabulary: optional(object),
    minimumCount: optional(whole(1, 1e9)),
    text: optional(object),
    transformer: object,
    process: object,
    loss: optional(object),
    nullShare: optional(probability),
    unsaidShare: optional(probability),
    sampling: object,
  };

const level = listOf(probability, 1, limits.timesteps);

/** A mask-and-replace process without its codes. */
const processRules: Readonly<Record<keyof VqDiffusionRecipe["process"], Rule>> = {
  timesteps: optional(whole(1, limits.timesteps)),
  preset: optional(oneOf("released", "paper90")),
  endpoints: optional(object),
  cumulative: optional(object),
};

const endpointRules: Rules = {
  abarFirst: probability,
  abarLast: probability,
  cbarFirst: probability,
  cbarLast: probability,
};

/** Checks a process as files hold it. Throws "option". */
export function checkProcess(where: string, process: unknown): void {
  checkFields(where, process, processRules);
  const { endpoints, cumulative } = process as VqDiffusionRecipe["process"];
  if (endpoints) checkFields(`${where}.endpoints`, endpoints, endpointRules);
  if (cumulative) checkFields(`${where}.cumulative`, cumulative, { abar: level, cbar: level });
}

/** Settings of sampling. */
export const samplingRules: Readonly<Record<keyof SamplingSettings, Rule>> = {
  steps: whole(1, limits.timesteps),
  guidanceScale: real(0, 100),
  truncation: probability,
  temperature: real(0.01, 100),
  topK: whole(0, limits.codes),
  sampler: oneOf("exact", "released", "purity"),
};

const lossRules: Rules = {
  auxiliaryWeight: optional(weight),
  adaptiveAuxiliary: optional(flag),
  maskWeight: optional(listOf(weight, 2, 2)),
};

/** Rules of a value with a "kind" that decides its other keys. */
function checkKind(where: string, value: object, kinds: Readonly<Record<string, Rules>>): void {
  const { kind } = value as { kind?: unknown };
  if (typeof kind !== "string" || !Object.hasOwn(kinds, kind))
    throw new DiffusionError(
      "option",
      `${where}: expected kind to be one of ${Object.keys(kinds).join(", ")}, got ${shown(kind)}`,
    );
  checkFields(where, value, { kind: oneOf(kind), ...kinds[kind] });
}

const conditionKinds: Readonly<Record<RecipeCondition["kind"], Rules>> = {
  text: {},
  class: { norm: optional(oneOf("layer", "instance")) },
  none: {},
};

const vocabularyKinds: Readonly<Record<RecipeVocabulary["kind"], Rules>> = {
  words: { minimumCount: optional(whole(1, 1e9)) },
  "byte-pairs": { size: whole(1, limits.codes) },
};

/** Keys that only some conditions have. */
const keysOf: Readonly<Record<RecipeCondition["kind"], readonly (keyof VqDiffusionRecipe)[]>> = {
  text: ["text", "vocabulary", "minimumCount", "nullShare", "unsaidShare"],
  class: ["nullShare"],
  none: [],
};

/** What the model is told. Throws "option" for keys that do not go with it. */
function checkCondition(path: string, recipe: VqDiffusionRecipe): void {
  const { condition = { kind: "text" }, vocabulary, text, minimumCount } = recipe;
  checkKind(`${path}: condition`, condition, conditionKinds);
  for (const name of keysOf.text)
    if (recipe[name] !== undefined && !keysOf[condition.kind].includes(name))
      throw new DiffusionError(
        "option",
        `${path}: expected no ${name} with condition "${condition.kind}", got ${shown(recipe[name])}`,
      );
  if (condition.kind !== "text") return;
  if (vocabulary) checkKind(`${path}: vocabulary`, vocabulary, vocabularyKinds);
  if (vocabulary && minimumCount !== undefined)
    throw new DiffusionError(
      "option",
      `${path}: expected minimumCount inside of vocabulary, got it beside`,
    );
  if (!isObject(text))
    throw new DiffusionError(
      "option",
      `${path}: expected text to be an object, got ${shown(text)}`,
    );
  checkFields(`${path}: text`, text, without(textEncoderRules, "vocabulary", "padToken"));
  textEncoder({ ...text, vocabulary: 2 });
}

function checkSamplingFields(
  path: string,
  { sampling, process, condition }: VqDiffusionRecipe,
): void {
  checkFields(`${path}: sampling`, sampling, samplingRules);
  const { timesteps } = maskReplaceSchedule({ ...process, codes: 2 });
  if (sampling.steps > timesteps)
    throw new DiffusionError(
      "option",
      `${path}: expected sampling.steps up to the ${timesteps} timesteps, got ${sampling.steps}`,
    );
  if (condition?.kind === "none" && sampling.guidanceScale !== 1)
    throw new DiffusionError(
      "option",
      `${path}: expected sampling.guidanceScale 1 without a condition, got ${sampling.guidanceScale}`,
    );
}

/** Checks a recipe by building, without weights, what it describes. Throws "option". */
export function checkVqDiffusionRecipe(path: string, value: object): void {
  checkRecipeFields(path, value, rules);
  const recipe = value as VqDiffusionRecipe;
  checkCondition(path, recipe);
  const { transformer, process, loss = {} } = recipe;
  checkFields(
    `${path}: transformer`,
    transformer,
    without(transformerRules, "codes", "grid", "timesteps", "condition"),
  );
  checkProcess(`${path}: process`, process);
  checkFields(`${path}: loss`, loss, lossRules);
  checkSamplingFields(path, recipe);
  vqTransformer({ ...transformer, codes: 2, grid: transformer.positions ?? [1, 1] });
}
