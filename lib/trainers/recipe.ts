// A recipe: everything that decides a training run, as one JSON file.
import { readFile } from "node:fs/promises";
import { checkOptions, DiffusionError } from "../errors.js";
import type { TextEncoderConfig } from "../models/text-encoder.js";
import type { VqTransformerConfig } from "../models/vq-transformer.js";
import type { VqganConfig } from "../models/vqgan.js";
import { cosine, warmup, type LearningRate } from "../optim/schedule.js";
import type { LossOptions } from "../processes/discrete-loss.js";
import type { MaskReplaceOptions } from "../processes/schedules.js";
import type { LoaderOptions } from "../data/loader.js";
import type { OptimiserOptions } from "./train-step.js";

interface CommonRecipe {
  name: string;
  /** "emoji", "fashion-mnist" or a folder. */
  data: string;
  batchSize: number;
  steps: number;
  /** Peak learning rate: linear warm-up, then half a cosine to a tenth. */
  lr: number;
  /** Steps of warm-up; default 200. */
  warmup?: number;
  seed?: number;
  optimiser?: OptimiserOptions;
}

export interface TokenizerRecipe extends CommonRecipe {
  kind: "tokenizer";
  model: VqganConfig;
  l1?: number;
  l2?: number;
  codebookWeight?: number;
  restartEvery?: number;
  augment?: LoaderOptions["augment"];
}

export interface VqDiffusionRecipe extends CommonRecipe {
  kind: "vq-diffusion";
  /** Words kept in the vocabulary: those that occur at least this often; default 2. */
  minimumCount?: number;
  text: Omit<TextEncoderConfig, "vocabulary" | "padToken">;
  transformer: Omit<VqTransformerConfig, "codes" | "grid" | "timesteps" | "condition">;
  process: Omit<MaskReplaceOptions, "codes">;
  loss?: Omit<LossOptions, "timesteps">;
  nullShare?: number;
  unsaidShare?: number;
  /** Defaults of sampling that the pipeline gets. */
  sampling: {
    steps: number;
    guidanceScale: number;
    truncation: number;
    temperature: number;
    topK: number;
    sampler: "exact" | "released" | "purity";
  };
}

export type Recipe = TokenizerRecipe | VqDiffusionRecipe;

const common = ["kind", "name", "data", "batchSize", "steps", "lr", "warmup", "seed", "optimiser"];
const optionNames: Record<Recipe["kind"], string[]> = {
  tokenizer: [...common, "model", "l1", "l2", "codebookWeight", "restartEvery", "augment"],
  "vq-diffusion": [
    ...common,
    "minimumCount",
    "text",
    "transformer",
    "process",
    "loss",
    "nullShare",
    "unsaidShare",
    "sampling",
  ],
};
const optimiserNames = ["betas", "eps", "weightDecay", "clipNorm", "emaDecay", "accumulate"];

/** Reads a recipe of the given kind. Throws "option" for a wrong kind, a missing number or an unknown key. */
export async function readRecipe<Kind extends Recipe["kind"]>(
  path: string,
  kind: Kind,
): Promise<Extract<Recipe, { kind: Kind }>> {
  let recipe: Recipe;
  try {
    recipe = JSON.parse(await readFile(path, "utf8")) as Recipe;
  } catch (cause) {
    throw new DiffusionError(
      "option",
      `${path}: expected a recipe in JSON, got ${(cause as Error).message}`,
      { cause },
    );
  }
  if (recipe.kind !== kind)
    throw new DiffusionError(
      "option",
      `${path}: expected "kind": "${kind}", got "${String(recipe.kind)}"`,
    );
  checkOptions(path, recipe, optionNames[kind]);
  checkOptions(`${path}: optimiser`, recipe.optimiser ?? {}, optimiserNames);
  for (const key of ["batchSize", "steps", "lr"] as const) {
    if (!(recipe[key] > 0))
      throw new DiffusionError("option", `${path}: expected ${key} above 0, got ${recipe[key]}`);
  }
  return recipe as Extract<Recipe, { kind: Kind }>;
}

/** Learning rate of a recipe. */
export const recipeLr = ({ lr, steps, warmup: updates = 200 }: Recipe): LearningRate =>
  warmup(updates, cosine(lr, Math.max(1, steps - updates), lr / 10));
