// Recipe of a classifier of noisy pictures; the data decide the classes.
import type { LoaderOptions } from "../data/loader.js";
import { DiffusionError } from "../errors.js";
import type { AdmEncoderUnetConfig } from "../models/adm-encoder-unet.js";
import { object, optional, type Rule } from "../models/check-config.js";
import { checkDiffusionProcess, type DiffusionProcess } from "../models/diffusion-process.js";
import { classifierTask } from "./classifier.js";
import { splitFrozen } from "./freeze.js";
import { checkAugment, checkRecipeFields, type RecipeFields } from "./recipe-fields.js";

export interface ClassifierRecipe extends RecipeFields {
  kind: "classifier";
  model: Omit<AdmEncoderUnetConfig, "outputs">;
  /** That of the denoiser which it will guide. */
  process: DiffusionProcess;
  augment?: LoaderOptions["augment"];
}

const rules: Readonly<Record<Exclude<keyof ClassifierRecipe, keyof RecipeFields | "kind">, Rule>> =
  {
    model: object,
    process: object,
    augment: optional(object),
  };

/** Checks a recipe by building, without weights, what it describes. Throws "option". */
export function checkClassifierRecipe(path: string, value: object): void {
  checkRecipeFields(path, value, rules);
  const recipe = value as ClassifierRecipe;
  checkAugment(path, recipe.augment);
  if ("outputs" in recipe.model)
    throw new DiffusionError(
      "option",
      `${path}: expected no outputs in model, they are the classes of the data, got some`,
    );
  checkDiffusionProcess(`${path}: process`, recipe.process);
  const { model, process } = recipe;
  splitFrozen(classifierTask({ model: { ...model, outputs: 2 }, process }), recipe.freeze ?? []);
}
