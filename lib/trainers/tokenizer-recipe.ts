// Recipe of a tokenizer: the VQGAN and the terms of its loss.
import type { LoaderOptions } from "../data/loader.js";
import { DiffusionError } from "../errors.js";
import { object, optional, whole, type Rule } from "../models/check-config.js";
import { vqgan, type VqganConfig } from "../models/vqgan.js";
import {
  adversarialRecipeRules,
  checkAdversarialRecipe,
  type AdversarialRecipe,
} from "./adversarial-recipe.js";
import { checkTemperature, type TemperatureSchedule } from "./autoencoder.js";
import { splitFrozen } from "./freeze.js";
import {
  checkAugment,
  checkRecipeFields,
  probability,
  weight,
  type RecipeFields,
} from "./recipe-fields.js";

export interface TokenizerRecipe extends RecipeFields, AdversarialRecipe {
  kind: "tokenizer";
  model: VqganConfig;
  l1?: number;
  l2?: number;
  codebookWeight?: number;
  restartEvery?: number;
  augment?: LoaderOptions["augment"];
  tokenMix?: number;
  /** Of Gumbel codes; default the quantizer's throughout. */
  temperature?: TemperatureSchedule;
}

const rules: Readonly<Record<Exclude<keyof TokenizerRecipe, keyof RecipeFields | "kind">, Rule>> = {
  model: object,
  l1: optional(weight),
  l2: optional(weight),
  codebookWeight: optional(weight),
  restartEvery: optional(whole(0, 1e9)),
  augment: optional(object),
  tokenMix: optional(probability),
  temperature: optional(object),
  ...adversarialRecipeRules,
};

/** Checks a recipe by building, without weights, what it describes. Throws "option". */
export function checkTokenizerRecipe(path: string, value: object): void {
  checkRecipeFields(path, value, rules);
  const recipe = value as TokenizerRecipe;
  checkAugment(path, recipe.augment);
  splitFrozen(vqgan(recipe.model), recipe.freeze ?? []);
  if (recipe.tokenMix && recipe.batchSize < 2)
    throw new DiffusionError(
      "option",
      `${path}: expected a batchSize of at least 2 with tokenMix, got ${recipe.batchSize}`,
    );
  checkTemperature(`${path}: temperature`, recipe);
  checkAdversarialRecipe(path, recipe, recipe.model);
}
