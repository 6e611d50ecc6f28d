// Recipe of a KL autoencoder, the first stage of latent diffusion.
import type { LoaderOptions } from "../data/loader.js";
import { autoencoderKl, type AutoencoderKlConfig } from "../models/autoencoder-kl.js";
import { flag, object, optional, real, type Rule } from "../models/check-config.js";
import {
  adversarialRecipeRules,
  checkAdversarialRecipe,
  type AdversarialRecipe,
} from "./adversarial-recipe.js";
import type { AutoencoderKlTrainerOptions } from "./autoencoder-kl.js";
import { splitFrozen } from "./freeze.js";
import { checkAugment, checkRecipeFields, weight, type RecipeFields } from "./recipe-fields.js";

export interface AutoencoderRecipe
  extends
    RecipeFields,
    AdversarialRecipe,
    Pick<AutoencoderKlTrainerOptions, "klWeight" | "logVariance" | "learnsLogVariance"> {
  kind: "autoencoder";
  model: AutoencoderKlConfig;
  augment?: LoaderOptions["augment"];
}

type Own = Exclude<keyof AutoencoderRecipe, keyof RecipeFields | "kind">;

const rules: Readonly<Record<Own, Rule>> = {
  model: object,
  klWeight: optional(weight),
  logVariance: optional(real(-30, 20)),
  learnsLogVariance: optional(flag),
  augment: optional(object),
  ...adversarialRecipeRules,
};

/** Checks a recipe by building, without weights, what it describes. Throws "option". */
export function checkAutoencoderRecipe(path: string, value: object): void {
  checkRecipeFields(path, value, rules);
  const recipe = value as AutoencoderRecipe;
  checkAugment(path, recipe.augment);
  splitFrozen(autoencoderKl(recipe.model), recipe.freeze ?? []);
  checkAdversarialRecipe(path, recipe, recipe.model);
}
