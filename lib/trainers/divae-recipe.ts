// Recipe of a tokenizer with a diffusion decoder.
import type { LoaderOptions } from "../data/loader.js";
import { object, optional, type Rule } from "../models/check-config.js";
import type { DivaeConfig } from "../models/divae.js";
import { checkDiffusionProcess, type DiffusionProcess } from "../models/diffusion-process.js";
import type { ProcessTraining } from "./denoiser.js";
import { checkDiffusionSampling, type DiffusionSampling } from "./diffusion-sampling.js";
import {
  divaeTask,
  divaeTrainingRules,
  type DivaeTaskOptions,
  type DivaeTrainingOptions,
} from "./divae.js";
import { splitFrozen } from "./freeze.js";
import { checkAugment, checkRecipeFields, type RecipeFields } from "./recipe-fields.js";

export interface DivaeRecipe extends RecipeFields, DivaeTrainingOptions {
  kind: "divae";
  /** Trained on pictures of the encoder's resolution. */
  model: DivaeConfig;
  process: DiffusionProcess;
  /** Which error, weights and times; default those of the process. */
  loss?: NonNullable<ProcessTraining["loss"]>;
  augment?: LoaderOptions["augment"];
  /** Defaults of sampling that the pipeline gets. */
  sampling: DiffusionSampling;
}

type Own = Exclude<keyof DivaeRecipe, keyof RecipeFields | "kind">;

const rules: Readonly<Record<Own, Rule>> = {
  model: object,
  process: object,
  loss: optional(object),
  ...divaeTrainingRules,
  augment: optional(object),
  sampling: object,
};

/** What a recipe says of the task. */
export function recipeDivae(recipe: DivaeRecipe): DivaeTaskOptions {
  const { model, process, loss } = recipe;
  const names = Object.keys(divaeTrainingRules) as (keyof DivaeTrainingOptions)[];
  const given = names.filter((name) => recipe[name] !== undefined);
  return {
    ...{ model, process, ...(loss && { loss }) },
    ...Object.fromEntries(given.map((name) => [name, recipe[name]])),
  } as DivaeTaskOptions;
}

/** Checks a recipe by building, without weights, what it describes. Throws "option". */
export function checkDivaeRecipe(path: string, value: object): void {
  checkRecipeFields(path, value, rules);
  const recipe = value as DivaeRecipe;
  checkAugment(path, recipe.augment);
  checkDiffusionProcess(`${path}: process`, recipe.process);
  checkDiffusionSampling(`${path}: sampling`, recipe.sampling, recipe.process);
  splitFrozen(divaeTask(recipeDivae(recipe)), recipe.freeze ?? []);
}
