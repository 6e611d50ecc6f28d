// Recipe of a denoiser: the network, the process, what it is told, and how to sample. With the folder of a first stage it
// denoises latents; with that of a VAE it refines reconstructions.
import type { LoaderOptions } from "../data/loader.js";
import { DiffusionError } from "../errors.js";
import { limits, object, oneOf, optional, real, whole, type Rule } from "../models/check-config.js";
import { denoiser, denoiserNames, type Denoiser, type DenoiserName } from "../models/denoiser.js";
import { checkDiffusionProcess, type DiffusionProcess } from "../models/diffusion-process.js";
import { denoiserProcess, type ProcessTraining } from "./denoiser.js";
import { checkDiffusionSampling, type DiffusionSampling } from "./diffusion-sampling.js";
import { splitFrozen } from "./freeze.js";
import {
  checkAugment,
  checkRecipeFields,
  probability,
  type RecipeFields,
} from "./recipe-fields.js";

export interface DenoiserRecipe extends RecipeFields {
  kind: "denoiser";
  /** Side of the pictures. */
  resolution: number;
  network: DenoiserName;
  /** Configuration of the network; the data decide `classes`. */
  model: object;
  /** What the network is told; default "none". */
  condition?: "none" | "class";
  process: DiffusionProcess;
  /** Which error, weights and times; default those of the process. */
  loss?: NonNullable<ProcessTraining["loss"]>;
  /** Share of samples that are told no class, for guidance; default 0.1 where the network has a class of its own for that. */
  nullShare?: number;
  /** Share of samples without the reconstruction of a VAE, for guidance; default 0. */
  pairDropShare?: number;
  /** Factor of latents; default 1 / the deviation of those of the first batches. */
  latentScale?: number;
  augment?: LoaderOptions["augment"];
  /** Defaults of sampling that the pipeline gets. */
  sampling: DiffusionSampling;
}

const rules: Readonly<Record<Exclude<keyof DenoiserRecipe, keyof RecipeFields | "kind">, Rule>> = {
  resolution: whole(1, limits.side),
  network: oneOf(...denoiserNames),
  model: object,
  condition: optional(oneOf("none", "class")),
  process: object,
  loss: optional(object),
  nullShare: optional(probability),
  pairDropShare: optional(probability),
  latentScale: optional(real(1e-6, 1e6)),
  augment: optional(object),
  sampling: object,
};

/** Networks that cannot do without classes: where none is told, they get the class for nothing every time. */
const alwaysTold: readonly DenoiserName[] = ["dit", "fit"];

const fault = (path: string, expected: string, got: string): DiffusionError =>
  new DiffusionError("option", `${path}: expected ${expected}, got ${got}`);

/** The network of a recipe, for data of so many classes. Throws "option". */
export function recipeDenoiser(path: string, recipe: DenoiserRecipe, classes: number): Denoiser {
  const { network, model, condition = "none", nullShare } = recipe;
  if ("classes" in model) throw fault(path, "no classes in model, they are those of the data", "some"); // prettier-ignore
  const isTold = condition === "class";
  const isEmbedded = network === "latent-diffusion-unet" && "transformer" in model;
  const built = denoiser(network, {
    ...model,
    ...(isTold && !isEmbedded && { classes }),
    ...(!isTold && alwaysTold.includes(network) && { classes: 1 }),
  });
  if (nullShare && built.nullClass === undefined && !isEmbedded)
    throw fault(path, `nullShare 0 for a ${network} without a class for nothing`, `${nullShare}`);
  if (built.tokenizer || (isEmbedded && !isTold))
    throw fault(path, isEmbedded ? 'condition "class" for a network that reads a context' : "a network that reads no codes", isEmbedded ? '"none"' : network); // prettier-ignore
  return built;
}

/** How the process of a recipe is trained. */
export const recipeTraining = ({ process, loss }: DenoiserRecipe): ProcessTraining =>
  ({ process, ...(loss && { loss }) }) as ProcessTraining;

/** Checks a recipe by building, without weights, what it describes. Throws "option". */
export function checkDenoiserRecipe(path: string, value: object): void {
  checkRecipeFields(path, value, rules);
  const recipe = value as DenoiserRecipe;
  checkAugment(path, recipe.augment);
  splitFrozen(recipeDenoiser(path, recipe, 2), recipe.freeze ?? []);
  checkDiffusionProcess(`${path}: process`, recipe.process);
  denoiserProcess(recipeTraining(recipe));
  checkDiffusionSampling(`${path}: sampling`, recipe.sampling, recipe.process);
}
