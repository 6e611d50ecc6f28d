// Recipe of a tokenizer: the VQGAN and the terms of its loss.
import type { LoaderOptions } from "../data/loader.js";
import { DiffusionError } from "../errors.js";
import {
  checkFields,
  flag,
  limits,
  listOf,
  object,
  oneOf,
  optional,
  text,
  whole,
  type Rule,
  type Rules,
} from "../models/check-config.js";
import { lpips } from "../models/lpips.js";
import { patchDiscriminator } from "../models/patch-discriminator.js";
import { vqgan, type VqganConfig } from "../models/vqgan.js";
import { discriminatorLosses } from "../processes/adversarial.js";
import type { AdversarialOptions } from "./adversarial-trainer.js";
import { splitFrozen } from "./freeze.js";
import type { PerceptualOptions } from "./perceptual-term.js";
import { checkRecipeFields, probability, weight, type RecipeFields } from "./recipe-fields.js";

export interface TokenizerRecipe extends RecipeFields {
  kind: "tokenizer";
  model: VqganConfig;
  l1?: number;
  l2?: number;
  codebookWeight?: number;
  restartEvery?: number;
  augment?: LoaderOptions["augment"];
  tokenMix?: number;
  /** The game against a discriminator; off by default. */
  adversarial?: AdversarialOptions;
  /** LPIPS beside the other reconstruction terms; off by default. */
  perceptual?: PerceptualOptions;
}

const rules: Readonly<Record<Exclude<keyof TokenizerRecipe, keyof RecipeFields | "kind">, Rule>> = {
  model: object,
  l1: optional(weight),
  l2: optional(weight),
  codebookWeight: optional(weight),
  restartEvery: optional(whole(0, 1e9)),
  augment: optional(object),
  tokenMix: optional(probability),
  adversarial: optional(object),
  perceptual: optional(object),
};

const augmentRules: Rules = { flip: optional(flag), shift: optional(whole(0, limits.side)) };

const lpipsSmallestSide = 16;

const adversarialRules: Readonly<Record<keyof AdversarialOptions, Rule>> = {
  start: whole(0, 1e9),
  weight: optional(weight),
  loss: optional(oneOf(...Object.keys(discriminatorLosses))),
  discriminator: optional(object),
};

const perceptualRules: Readonly<Record<keyof PerceptualOptions, Rule>> = {
  weights: (value) =>
    text(4096)(value) === undefined || listOf(text(4096), 1, 16)(value) === undefined
      ? undefined
      : "a file, or a list of files",
  weight: optional(weight),
  widths: () => undefined, // by lpips
};

/** LPIPS; it halves pictures of three channels four times. */
function checkPerceptual(where: string, options: PerceptualOptions, model: VqganConfig): void {
  checkFields(where, options, perceptualRules);
  lpips(options.widths ? { widths: options.widths } : {});
  const { resolution, imageChannels = 3 } = model;
  if (resolution < lpipsSmallestSide || imageChannels !== 3)
    throw new DiffusionError(
      "option",
      `${where}: expected pictures of 3 channels and at least ${lpipsSmallestSide} pixels, got ${imageChannels} and ${resolution}`,
    );
}

/** The game; every stride-2 layer of the discriminator must leave pixels for the last two layers. */
function checkAdversarial(where: string, options: AdversarialOptions, model: VqganConfig): void {
  checkFields(where, options, adversarialRules);
  const { layers = 3, imageChannels = 3 } = patchDiscriminator(options.discriminator).config;
  const wanted = model.imageChannels ?? 3;
  if (imageChannels !== wanted)
    throw new DiffusionError(
      "option",
      `${where}: expected discriminator.imageChannels ${wanted} as the pictures have, got ${imageChannels}`,
    );
  if (model.resolution < 3 * 2 ** layers)
    throw new DiffusionError(
      "option",
      `${where}: expected pictures of at least ${3 * 2 ** layers} pixels for ${layers} layers, got ${model.resolution}; set discriminator.layers`,
    );
}

/** Checks a recipe by building, without weights, what it describes. Throws "option". */
export function checkTokenizerRecipe(path: string, value: object): void {
  checkRecipeFields(path, value, rules);
  const recipe = value as TokenizerRecipe;
  checkFields(`${path}: augment`, recipe.augment ?? {}, augmentRules);
  splitFrozen(vqgan(recipe.model), recipe.freeze ?? []);
  if (recipe.tokenMix && recipe.batchSize < 2)
    throw new DiffusionError(
      "option",
      `${path}: expected a batchSize of at least 2 with tokenMix, got ${recipe.batchSize}`,
    );
  if (recipe.adversarial)
    checkAdversarial(`${path}: adversarial`, recipe.adversarial, recipe.model);
  if (recipe.perceptual) checkPerceptual(`${path}: perceptual`, recipe.perceptual, recipe.model);
}
