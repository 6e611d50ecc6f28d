// A recipe: everything that decides a training run, as one JSON file.
import { readFile } from "node:fs/promises";
import { DiffusionError } from "../errors.js";
import { isObject, shown } from "../models/check-config.js";
import { constant, cosine, warmup, type LearningRate } from "../optim/schedule.js";
import { checkAutoencoderRecipe, type AutoencoderRecipe } from "./autoencoder-recipe.js";
import { checkClassifierRecipe, type ClassifierRecipe } from "./classifier-recipe.js";
import { checkDenoiserRecipe, type DenoiserRecipe } from "./denoiser-recipe.js";
import { checkDivaeRecipe, type DivaeRecipe } from "./divae-recipe.js";
import { checkTokenizerRecipe, type TokenizerRecipe } from "./tokenizer-recipe.js";
import { checkVaeRecipe, type VaeRecipe } from "./vae-recipe.js";
import { checkVqDiffusionRecipe, type VqDiffusionRecipe } from "./vq-diffusion-recipe.js";

export type Recipe =
  | TokenizerRecipe
  | VqDiffusionRecipe
  | VaeRecipe
  | DenoiserRecipe
  | AutoencoderRecipe
  | DivaeRecipe
  | ClassifierRecipe;

const checks: Readonly<Record<Recipe["kind"], (path: string, recipe: object) => void>> = {
  tokenizer: checkTokenizerRecipe,
  "vq-diffusion": checkVqDiffusionRecipe,
  vae: checkVaeRecipe,
  denoiser: checkDenoiserRecipe,
  autoencoder: checkAutoencoderRecipe,
  divae: checkDivaeRecipe,
  classifier: checkClassifierRecipe,
};

/** Reads a recipe of the given kind. Throws "option" for a wrong kind, an unknown key or a wrong value. */
export async function readRecipe<Kind extends Recipe["kind"]>(
  path: string,
  kind: Kind,
): Promise<Extract<Recipe, { kind: Kind }>> {
  let recipe: unknown;
  try {
    recipe = JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    throw new DiffusionError(
      "option",
      `${path}: expected a recipe in JSON, got ${(cause as Error).message}`,
      { cause },
    );
  }
  if (!isObject(recipe) || recipe["kind"] !== kind)
    throw new DiffusionError(
      "option",
      `${path}: expected a recipe with "kind": "${kind}", got ${shown(isObject(recipe) ? recipe["kind"] : recipe)}`,
    );
  checks[kind](path, recipe);
  return recipe as unknown as Extract<Recipe, { kind: Kind }>;
}

/** Learning rate of a recipe. */
export const recipeLr = ({ lr, steps, schedule, warmup: updates = 200 }: Recipe): LearningRate =>
  warmup(
    updates,
    schedule === "constant" ? constant(lr) : cosine(lr, Math.max(1, steps - updates), lr / 10),
  );
