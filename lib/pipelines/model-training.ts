// From the recipes of KL autoencoders, DiVAE tokenizers and classifiers to trainers, and from what they learned to folders.
import type { TrainingData } from "../data/training-data.js";
import { DiffusionError } from "../errors.js";
import { autoencoderKl } from "../models/autoencoder-kl.js";
import { AutoencoderKlTrainer } from "../trainers/autoencoder-kl.js";
import type { AutoencoderRecipe } from "../trainers/autoencoder-recipe.js";
import { classifierTask } from "../trainers/classifier.js";
import type { ClassifierRecipe } from "../trainers/classifier-recipe.js";
import { divaeTask } from "../trainers/divae.js";
import { recipeDivae, type DivaeRecipe } from "../trainers/divae-recipe.js";
import { given } from "../trainers/given.js";
import { perceptualTerm } from "../trainers/perceptual-term.js";
import {
  runFields,
  saveAlone,
  startingWeights,
  taskTrainer,
  type BuiltTraining,
  type TrainingStart,
} from "./built-training.js";
import { diffusionNetworks, saveDiffusion } from "./diffusion-folder.js";
import { checkDiffusionSettings, type DiffusionSettings } from "./diffusion-settings.js";

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
  const { resolution: side } = model.encoder;
  const settings: DiffusionSettings = { process, size: [side, side], defaults: sampling };
  const denoiser = { model: "divae", config: model };
  checkDiffusionSettings(settings, diffusionNetworks({ denoiser }, settings));
  const task = divaeTask(recipeDivae(recipe));
  const specs = [...task.parameters, ...(task.states ?? [])];
  const initial = await startingWeights(start, ["denoiser", "codec"], specs);
  const trainer = await taskTrainer(task, recipe, data, initial);
  return {
    trainer,
    save: (folder, training) =>
      saveDiffusion(folder, {
        name: recipe.name,
        settings,
        parts: { denoiser: { ...denoiser, weights: trainer.weights() } },
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
