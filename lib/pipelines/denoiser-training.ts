// From the recipes of denoisers and of DiffuseVAE's first stage to trainers, and from what they learned to folders.
import type { AttributeValues, TrainingData } from "../data/training-data.js";
import { DiffusionError, formatShape } from "../errors.js";
import { classEmbedder, type ClassEmbedder } from "../models/class-embedder.js";
import type { Denoiser } from "../models/denoiser.js";
import { diffuseVae, type DiffuseVae, type DiffuseVaeConfig } from "../models/diffusevae-vae.js";
import { ParamScope } from "../nn/module.js";
import { denoiserTask, type DenoiserConditions } from "../trainers/denoiser.js";
import {
  recipeDenoiser,
  recipeTraining,
  type DenoiserRecipe,
} from "../trainers/denoiser-recipe.js";
import { latentStage, reconstructionStage, type FrozenStage } from "../trainers/frozen-stage.js";
import { given } from "../trainers/given.js";
import { latentScale } from "../trainers/latent-scale.js";
import type { Values } from "../trainers/train-step.js";
import { vaeTask } from "../trainers/vae.js";
import type { VaeRecipe } from "../trainers/vae-recipe.js";
import {
  loadPart,
  saveAlone,
  startingWeights,
  taskTrainer,
  type BuiltTraining,
  type TrainingStart,
} from "./built-training.js";
import {
  diffusionNetworks,
  firstStages,
  saveDiffusion,
  type WeightedPart,
} from "./diffusion-folder.js";
import { checkDiffusionSettings, type DiffusionNetworks, type DiffusionSettings } from "./diffusion-settings.js"; // prettier-ignore

/** The VAE of a run of `smalti train vae`, or of a pipeline. */
export const loadVae = (folder: string): Promise<WeightedPart> =>
  loadPart(folder, ["vae"], ({ config }) => diffuseVae(config as DiffuseVaeConfig));

/** The first stage of a pipeline, or the codec of a tokenizer run. */
export const loadFirstStage = (folder: string): Promise<WeightedPart> =>
  loadPart(folder, ["firstStage", "codec"], ({ model, config }) => {
    const build = firstStages[model];
    if (build) return build(config as never, {});
    throw new DiffusionError(
      "checkpoint",
      `${folder}: expected a first stage among ${Object.keys(firstStages).join(", ")}, got ${model}`,
    );
  });

/** A VAE in training by a recipe; its folder is where the training of a refiner begins. */
export async function buildVaeTrainer(
  recipe: VaeRecipe,
  data: TrainingData,
  start: TrainingStart = {},
): Promise<BuiltTraining> {
  const { model } = recipe;
  const { classes } = model;
  if (classes !== undefined && classes !== classesOf(data).names.length)
    throw new DiffusionError(
      "data",
      `${data.train.name}: expected ${classes} classes as the model has, got ${classesOf(data).names.length}`,
    );
  const task = vaeTask({ model, ...given(recipe, "klWeight") });
  const specs = task.parameters;
  const initial = await startingWeights(start, ["vae"], specs);
  const trainer = await taskTrainer(task, recipe, data, initial);
  const part = { part: "vae", model: "diffusevae-vae", config: model, specs };
  return {
    trainer,
    save: (folder, training) =>
      saveAlone(folder, recipe, part, trainer.weights(), { ...training, recipe }),
  };
}

/** The class of every picture. Throws "data" for a set where some have none. */
function classesOf({ train, attributes }: TrainingData): AttributeValues {
  const found = attributes["category"];
  if (found?.values.every((value) => value >= 0)) return found;
  throw new DiffusionError(
    "data",
    `${train.name}: expected classes, got ${found ? "pictures without one" : "none"}; put the pictures of each class into a sub-folder, or train without classes`,
  );
}

const embedderScope = "classEmbedder";
const usualNullShare = 0.1;

/** The table of classes that a network with a context learns with it. */
function embedderOf(
  { contextWidth }: Denoiser,
  { nullShare = usualNullShare }: DenoiserRecipe,
  classes: AttributeValues | undefined,
): ClassEmbedder | undefined {
  if (contextWidth === undefined || !classes) return undefined;
  const config = { classes: classes.names.length, nullClass: nullShare > 0, width: contextWidth };
  return classEmbedder(config, new ParamScope().child(embedderScope));
}

/** What the network is told of each picture. */
function conditionsOf(
  denoiser: Denoiser,
  { nullShare = usualNullShare }: DenoiserRecipe,
  classes: AttributeValues | undefined,
  embedder: ClassEmbedder | undefined,
): DenoiserConditions | undefined {
  if (denoiser.classes === undefined && !embedder) return undefined;
  const none = embedder?.config.nullClass ? embedder.config.classes : denoiser.nullClass;
  return {
    inputs: (B) => ({ labels: { shape: [B], dtype: "i32" } }),
    values({ indices }, place) {
      const draws = place.uniform("null");
      const isNull = (i: number): boolean => none !== undefined && (!classes || draws[i]! < nullShare); // prettier-ignore
      const label = (picture: number, i: number): number =>
        isNull(i) ? none! : classes!.values[picture]!;
      return { labels: Int32Array.from(indices, label) };
    },
    ...(embedder && {
      parameters: embedder.parameters,
      encode: ({ labels, ...told }) => ({ ...told, context: embedder.forward(labels!) }),
    }),
  };
}

/** Networks beside the denoiser, from folders. */
export type FrozenParts = {
  /** Whose reconstructions are refined. */
  vae?: WeightedPart;
  /** Whose latents are denoised. */
  firstStage?: WeightedPart;
};

export interface BuiltDenoiser extends BuiltTraining {
  settings: DiffusionSettings;
}

function derivedOf(
  { vae, firstStage, denoiser }: DiffusionNetworks,
  parts: FrozenParts,
  { latentScale: scale = 1 }: DiffusionSettings,
): FrozenStage | undefined {
  if (firstStage) return latentStage(firstStage, parts.firstStage!.weights, { scale });
  if (!vae) return undefined;
  const withLatent = denoiser.latentWidth !== undefined;
  return reconstructionStage(vae as DiffuseVae, parts.vae!.weights, { withLatent });
}

/** Factor of the latents: the recipe's, or measured. */
async function scaleOf(
  recipe: DenoiserRecipe,
  data: TrainingData,
  { model, config, weights }: WeightedPart,
): Promise<number> {
  if (recipe.latentScale !== undefined) return recipe.latentScale;
  const stage = latentStage(firstStages[model]!(config as never, {}), weights);
  const { batchSize, seed = 0 } = recipe;
  const scale = await latentScale(stage, data.train, { batchSize, seed });
  stage.dispose();
  return scale;
}

function settingsOf(
  recipe: DenoiserRecipe,
  classes: AttributeValues | undefined,
  latents: { stride: number; scale: number } | undefined,
): DiffusionSettings {
  const { resolution, process, sampling } = recipe;
  const side = resolution / (latents?.stride ?? 1);
  return {
    process,
    size: [side, side],
    ...(latents && { latentScale: latents.scale }),
    ...(classes && { classes: [...classes.names] }),
    defaults: sampling,
  };
}

/** Throws "option" where the folders of the flags are not those that the network needs. */
function checkParts(
  { network, resolution: side }: DenoiserRecipe,
  { pair, channels, size = [side, side] }: Denoiser,
  { train }: TrainingData,
  parts: FrozenParts,
): void {
  const wrong = (expected: string, got: string): DiffusionError =>
    new DiffusionError("option", `train: expected ${expected}, got ${got}`);
  if (parts.vae && parts.firstStage) throw wrong("--vae or --first-stage", "both");
  if (pair && !parts.vae)
    throw wrong(`--vae <folder> for ${network}, which refines reconstructions`, "none");
  const wanted = [...size, channels];
  const pictures = [side, side, train.channels];
  if (!parts.firstStage && wanted.join() !== pictures.join())
    throw wrong(
      `pictures ${formatShape(wanted)} for this ${network}`,
      `${formatShape(pictures)}; give --first-stage <folder> if it denoises latents`,
    );
}

/** Weights to go on from: those of a pipeline of the same networks. */
async function initialOf(
  { from }: TrainingStart,
  denoiser: Denoiser,
  embedder: ClassEmbedder | undefined,
): Promise<{ initial?: Values }> {
  if (from === undefined) return {};
  const { weights } = await loadPart(from, ["denoiser"], () => denoiser);
  if (!embedder) return { initial: weights };
  const table = await loadPart(from, ["classEmbedder"], () => classEmbedder(embedder.config));
  const named = [...table.weights].map(([name, value]) => [`${embedderScope}.${name}`, value] as const); // prettier-ignore
  return { initial: new Map([...weights, ...named]) };
}

/** The parts of a pipeline with what was learned. */
function learnedParts(
  network: Denoiser,
  embedder: ClassEmbedder | undefined,
  weights: Values,
): { denoiser: WeightedPart; classEmbedder?: WeightedPart } {
  const denoiser = { model: network.name, config: network.config, weights };
  if (!embedder) return { denoiser };
  const names = embedder.parameters.map(({ name }) => name);
  const table = names.map((name) => [name.slice(embedderScope.length + 1), weights.get(name) ?? new Float32Array()] as const); // prettier-ignore
  return {
    denoiser,
    classEmbedder: { model: "class-embedder", config: embedder.config, weights: new Map(table) },
  };
}

/** A denoiser in training by a recipe; its folder is a pipeline. Throws "option" or "data" for what does not fit together. */
export async function buildDenoiserTrainer(
  recipe: DenoiserRecipe,
  data: TrainingData,
  { vae, firstStage, ...start }: TrainingStart & FrozenParts = {},
): Promise<BuiltDenoiser> {
  const frozen: FrozenParts = { ...(vae && { vae }), ...(firstStage && { firstStage }) };
  const classes = recipe.condition === "class" ? classesOf(data) : undefined;
  const network = recipeDenoiser("train", recipe, classes?.names.length ?? 1);
  checkParts(recipe, network, data, frozen);
  const embedder = embedderOf(network, recipe, classes);
  const latents = firstStage && {
    stride: firstStages[firstStage.model]!(firstStage.config as never, {}).stride,
    scale: await scaleOf(recipe, data, firstStage),
  };
  const settings = settingsOf(recipe, classes, latents);
  const parts = (weights: Values) => ({ ...learnedParts(network, embedder, weights), ...frozen });
  const networks = diffusionNetworks(parts(new Map()), settings);
  checkDiffusionSettings(settings, networks);
  const conditions = conditionsOf(network, recipe, classes, embedder);
  const derived = derivedOf(networks, frozen, settings);
  const task = denoiserTask({
    ...recipeTraining(recipe),
    network,
    ...(conditions && { conditions }),
    ...(derived && { derived }),
    ...given(recipe, "pairDropShare"),
  });
  const trainer = await taskTrainer(task, recipe, data, await initialOf(start, network, embedder));
  const save: BuiltTraining["save"] = (folder, training) =>
    saveDiffusion(folder, {
      name: recipe.name,
      settings,
      parts: parts(trainer.weights()),
      training: { ...training, recipe },
    });
  return { trainer, save, settings };
}
