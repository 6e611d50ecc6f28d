// What every recipe has: a name, data, a schedule of learning rates and an optimiser.
import {
  checkFields,
  flag,
  limits,
  listOf,
  object,
  oneOf,
  optional,
  real,
  text,
  whole,
  type Rule,
  type Rules,
} from "../models/check-config.js";
import type { OptimiserOptions } from "./train-step.js";

export interface RecipeFields {
  name: string;
  /** "emoji", "fashion-mnist" or a folder. */
  data: string;
  batchSize: number;
  steps: number;
  /** Peak learning rate, after a linear warm-up. */
  lr: number;
  /** What follows the warm-up: half a cosine to a tenth (default), or the peak to the end, as most denoisers were trained. */
  schedule?: "cosine" | "constant";
  /** Steps of warm-up; default 200. */
  warmup?: number;
  seed?: number;
  optimiser?: OptimiserOptions;
  /** Parts that stay as they are, by the first words of their names, e.g. ["encoder", "quant_conv"]. */
  freeze?: readonly string[];
  /** Less memory for more time, with the same results: cheap values are computed again for the gradients. Default false. */
  rematerialise?: boolean;
}

export const probability = real(0, 1);
export const weight = real(0, 1e6);

export const recipeFieldRules: Readonly<Record<keyof RecipeFields | "kind", Rule>> = {
  kind: text(64),
  name: text(256),
  data: text(4096),
  batchSize: whole(1, limits.batch),
  steps: whole(1, 1e9),
  lr: real(Number.MIN_VALUE, 1000),
  schedule: optional(oneOf("cosine", "constant")),
  warmup: optional(whole(0, 1e9)),
  seed: optional(whole(0, Number.MAX_SAFE_INTEGER)),
  optimiser: optional(object),
  freeze: optional(listOf(text(256), 0, 4096)),
  rematerialise: optional(flag),
};

const optimiserRules: Readonly<Record<keyof OptimiserOptions, Rule>> = {
  betas: optional(listOf(real(0, 1 - 1e-9), 2, 2)),
  eps: optional(real(0, 1)),
  weightDecay: optional(weight),
  clipNorm: optional(real(Number.MIN_VALUE, 1e30)),
  emaDecay: optional(real(0, 1 - 1e-9)),
  accumulate: optional(whole(1, limits.batch)),
};

const augmentRules: Rules = { flip: optional(flag), shift: optional(whole(0, limits.side)) };

/** Checks how pictures are varied. Throws "option". */
export const checkAugment = (path: string, augment: object = {}): void =>
  checkFields(`${path}: augment`, augment, augmentRules);

/** Checks the keys of a recipe, `own` and those that every recipe has, and its optimiser. Throws "option". */
export function checkRecipeFields(path: string, recipe: object, own: Rules): void {
  checkFields(path, recipe, { ...recipeFieldRules, ...own });
  checkFields(`${path}: optimiser`, (recipe as RecipeFields).optimiser ?? {}, optimiserRules);
}
