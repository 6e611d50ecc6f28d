// What the recipes of single networks have in common: where weights come from, the trainer, and the folder that it leaves.
import { join } from "node:path";
import { loadWeights, saveWeights } from "../checkpoint/weights.js";
import type { TrainingData } from "../data/training-data.js";
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { given } from "../trainers/given.js";
import type { Trainable } from "../trainers/loop.js";
import type { RecipeFields } from "../trainers/recipe-fields.js";
import {
  TaskTrainer,
  type TaskTrainerOptions,
  type TrainingTask,
} from "../trainers/task-trainer.js";
import type { Values } from "../trainers/train-step.js";
import { specsOf, type NetworkConfig, type WeightedPart } from "./diffusion-folder.js";
import { pipelineFolder, readPipelineFile, writePipelineFile } from "./pipeline.js";

/** A trainer, and what writes its folder: told how the run went. */
export interface BuiltTraining {
  trainer: Trainable & { weights(): Values; dispose(): void };
  save(folder: string, training: Record<string, unknown>): Promise<void>;
}

/** Where weights come from. */
export interface TrainingStart {
  /** Folder of a run or pipeline. */
  from?: string;
  /** The run goes on from a training state. */
  isResumed?: boolean;
}

/** A part of a run or a pipeline, under the first of these names that it has. Throws "checkpoint". */
export async function loadPart(
  folderOrName: string,
  names: readonly string[],
  build: (file: NetworkConfig) => Parameters<typeof specsOf>[0],
): Promise<WeightedPart> {
  const folder = await pipelineFolder(folderOrName);
  const { components } = await readPipelineFile(folder);
  const file = names.map((name) => components[name]).find((found) => found !== undefined);
  if (!file)
    throw new DiffusionError(
      "checkpoint",
      `${folder}: expected a component ${names.join(" or ")}, got ${Object.keys(components).join(", ") || "none"}`,
    );
  const { model, config } = file;
  const weights = await loadWeights(join(folder, file.weights), specsOf(build(file)));
  return { model, config, weights };
}

/** Weights to go on from, when there is a folder, for these parameters. Throws "checkpoint". */
export async function startingWeights(
  { from }: TrainingStart,
  names: readonly string[],
  parameters: readonly ParamSpec[],
): Promise<{ initial?: Values }> {
  if (from === undefined) return {};
  return { initial: (await loadPart(from, names, () => ({ parameters }))).weights };
}

export interface TrainedPart {
  part: string;
  model: string;
  config: object;
  specs: readonly ParamSpec[];
}

/** Writes one network as a folder of its own. */
export async function saveAlone(
  folder: string,
  { name }: RecipeFields,
  { part, model, config, specs }: TrainedPart,
  weights: Values,
  training: Record<string, unknown>,
): Promise<void> {
  const file = `${part}.safetensors`;
  const components = { [part]: { model, config: { ...config }, weights: file } };
  await writePipelineFile(
    folder,
    { kind: "models", name, components, settings: {}, training },
    (parts) => saveWeights(join(parts, file), specs, weights, "f32"),
  );
}

/** What a recipe says of the run itself, beside data and batches. */
export const runFields = ["seed", "optimiser", "freeze", "rematerialise", "augment"] as const;

/** The trainer of a task, as the recipe says. */
export async function taskTrainer(
  task: TrainingTask,
  recipe: RecipeFields & Pick<TaskTrainerOptions, "augment">,
  { train }: TrainingData,
  initial: { initial?: Values },
): Promise<TaskTrainer> {
  const { batchSize } = recipe;
  const own = given(recipe, ...runFields);
  return TaskTrainer.create({ task, dataset: train, batchSize, ...own, ...initial });
}
