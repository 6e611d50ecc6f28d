// Recipe of DiffuseVAE's first stage.
import type { LoaderOptions } from "../data/loader.js";
import { object, optional, type Rule } from "../models/check-config.js";
import { diffuseVae, type DiffuseVaeConfig } from "../models/diffusevae-vae.js";
import { splitFrozen } from "./freeze.js";
import { checkAugment, checkRecipeFields, weight, type RecipeFields } from "./recipe-fields.js";

export interface VaeRecipe extends RecipeFields {
  kind: "vae";
  model: DiffuseVaeConfig;
  /** Weight of the divergence; default 1. */
  klWeight?: number;
  augment?: LoaderOptions["augment"];
}

const rules: Readonly<Record<Exclude<keyof VaeRecipe, keyof RecipeFields | "kind">, Rule>> = {
  model: object,
  klWeight: optional(weight),
  augment: optional(object),
};

/** Checks a recipe by building, without weights, what it describes. Throws "option". */
export function checkVaeRecipe(path: string, value: object): void {
  checkRecipeFields(path, value, rules);
  const recipe = value as VaeRecipe;
  checkAugment(path, recipe.augment);
  splitFrozen(diffuseVae(recipe.model), recipe.freeze ?? []);
}
