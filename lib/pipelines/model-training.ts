// From the recipes of KL autoencoders, DiVAE tokenizers and classifiers to trainers, and from what they learned to folders.
import { join } from "node:path";
import { loadWeights, saveWeights } from "../checkpoint/weights.js";
import type { TrainingData } from "../data/training-data.js";
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { autoencoderKl } from "../models/autoencoder-kl.js";
import { AutoencoderKlTrainer } from "../trainers/autoencoder-kl.js";
import type { AutoencoderRecipe } from "../trainers/autoencoder-recipe.js";
import { classifierTask } from "../trainers/classifier.js";
import type { ClassifierRecipe } from "../trainers/classifier-recipe.js";
import { divaeTask } from "../trainers/divae.js";
import { recipeDivae, type DivaeRecipe } from "../trainers/divae-recipe.js";
import { perceptualTerm } from "../trainers/perceptual-term.js";
import type { RecipeFields } from "../trainers/recipe-fields.js";
import type { Trainable } from "../trainers/loop.js";
import { TaskTrainer, type TrainingTask } from "../trainers/task-trainer.js";
import type { Values } from "../trainers/train-step.js";
import { saveDiffusion } from "./diffusion-folder.js";
import { pipelineFolder, readPipelineFile, writePipelineFile } from "./pipeline.js";
import { given } from "./training.js";

/** A trainer, and what writes its folder: told how the run went. */
export interface BuiltTraining {
  trainer: Trainable;
  save(folder: string, training: Record<string, unknown>): Promise<void>;
}

/** Where weights come from. */
export interface TrainingStart {
  /** Folder of a run or pipeline. */
  from?: string;
  /** The run goes on from a training state. */
  isResumed?: boolean;
}

/** Weights of the first of these parts that a folder has, for these parameters. Throws "checkpoint". */
async function startingWeights(
  { from }: TrainingStart,
  parts: readonly string[],
  specs: readonly ParamSpec[],
): Promise<{ initial?: Values }> {
  if (from === undefined) return {};
  const folder = await pipelineFolder(from);
  const { components } = await readPipelineFile(folder);
  const file = parts.map((part) => components[part]).find((found) => found !== undefined);
  if (file) return { initial: await loadWeights(join(folder, file.weights), specs) };
  throw new DiffusionError(
    "checkpoint",
    `${folder}: expected a component ${parts.join(" or ")}, got ${Object.keys(components).join(", ") || "none"}`,
  );
}

interface TrainedPart {
  part: string;
  model: string;
  config: object;
  specs: readonly ParamSpec[];
}

/** Writes one network as a folder of its own. */
async function saveAlone(
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
    () => saveWeights(join(folder, file), specs, weights, "f32"),
  );
}

const runFields = ["seed", "optimiser", "freeze", "rematerialise", "augment"] as const;

/** A KL autoencoder in training; its folder is a first stage for denoisers of latents. */
export async function buildAutoencoderTrainer(
  recipe: AutoencoderRecipe,
  data: TrainingData,
  start: TrainingStart = {},
): Promise<BuiltTraining> {
  const { parameters: specs } = autoencoderKl(recipe.model);
  const trainer = await AutoencoderKlTrainer.create({
    model: recipe.model,
    dataset: data.train,
    batchSize: recipe.batchSize,
    ...(await startingWeights(start, ["codec", "firstStage"], specs)),
    ...given(recipe, ...runFields, "adversarial"),
    ...given(recipe, "klWeight", "logVariance", "learnsLogVariance"),
    ...(recipe.perceptual && { perceptual: await perceptualTerm(recipe.perceptual) }),
  });
  const part = { part: "codec", model: "autoencoder-kl", config: recipe.model, specs };
  return {
    trainer,
    save: (folder, training) =>
      saveAlone(folder, recipe, part, trainer.weights(), { ...training, recipe }),
  };
}

async function taskTrainer(
  task: TrainingTask,
  recipe: RecipeFields & Pick<DivaeRecipe, "augment">,
  { train }: TrainingData,
  initial: { initial?: Values },
): Promise<TaskTrainer> {
  const { batchSize } = recipe;
  const own = given(recipe, ...runFields);
  return TaskTrainer.create({ task, dataset: train, batchSize, ...own, ...initial });
}

/** A DiVAE tokenizer in training; its folder is a pipeline. Throws "option" for a decoder alone without a tokenizer. */
export async function buildDivaeTrainer(
  recipe: DivaeRecipe,
  data: TrainingData,
  start: TrainingStart = {},
): Promise<BuiltTraining> {
  const { model, process, sampling, trains } = recipe;
  if (trains === "decoder" && start.from === undefined && !start.isResumed)
    throw new DiffusionError(
      "option",
      'train: expected --from <folder> with the tokenizer that "trains": "decoder" keeps, got none',
    );
  const task = divaeTask(recipeDivae(recipe));
  const specs = [...task.parameters, ...(task.states ?? [])];
  const initial = await startingWeights(start, ["denoiser", "codec"], specs);
  const trainer = await taskTrainer(task, recipe, data, initial);
  const { resolution: side } = model.encoder;
  return {
    trainer,
    save: (folder, training) =>
      saveDiffusion(folder, {
        name: recipe.name,
        settings: { process, size: [side, side], defaults: sampling },
        parts: { denoiser: { model: "divae", config: model, weights: trainer.weights() } },
        dtype: "f32",
        training: { ...training, recipe },
      }),
  };
}

/** A classifier of noisy pictures in training. Throws "data" for a set without classes. */
export async function buildClassifierTrainer(
  recipe: ClassifierRecipe,
  data: TrainingData,
  start: TrainingStart = {},
): Promise<BuiltTraining> {
  const { classes, name } = data.train;
  if (classes.length === 0)
    throw new DiffusionError(
      "data",
      `${name}: expected classes, got none; put the pictures of each class into a sub-folder`,
    );
  const model = { ...recipe.model, outputs: classes.length };
  const task = classifierTask({ model, process: recipe.process });
  const specs = task.parameters;
  const initial = await startingWeights(start, ["classifier"], specs);
  const trainer = await taskTrainer(task, recipe, data, initial);
  const part = { part: "classifier", model: "adm-encoder-unet", config: model, specs };
  const facts = { classes: [...classes], recipe };
  return {
    trainer,
    save: (folder, training) =>
      saveAlone(folder, recipe, part, trainer.weights(), { ...training, ...facts }),
  };
}
