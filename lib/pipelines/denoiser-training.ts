// From the recipes of denoisers and of DiffuseVAE's first stage to trainers, and from what they learned to folders.
import { join } from "node:path";
import { loadWeights, saveWeights } from "../checkpoint/weights.js";
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
import { latentScale } from "../trainers/latent-scale.js";
import type { RecipeFields } from "../trainers/recipe-fields.js";
import type { Values } from "../trainers/train-step.js";
import { TaskTrainer, type TaskTrainerOptions } from "../trainers/task-trainer.js";
import { vaeTask } from "../trainers/vae.js";
import type { VaeRecipe } from "../trainers/vae-recipe.js";
import {
  diffusionFiles,
  diffusionNetworks,
  firstStages,
  saveDiffusion,
  specsOf,
  type NetworkConfig,
  type WeightedPart,
} from "./diffusion-folder.js";
import { checkDiffusionSettings, type DiffusionNetworks, type DiffusionSettings } from "./diffusion-settings.js"; // prettier-ignore
import { pipelineFolder, readPipelineFile, writePipelineFile } from "./pipeline.js";

/** What a recipe says of the run itself. */
function runOptions(
  recipe: RecipeFields & Pick<TaskTrainerOptions, "augment">,
  { train }: TrainingData,
  initial: Values | undefined,
): Omit<TaskTrainerOptions, "task"> {
  const { batchSize, seed, optimiser, freeze, rematerialise, augment } = recipe;
  return {
    ...{ dataset: train, batchSize },
    ...(seed !== undefined && { seed }),
    ...(optimiser && { optimiser }),
    ...(freeze && { freeze }),
    ...(rematerialise && { rematerialise }),
    ...(augment && { augment }),
    ...(initial && { initial }),
  };
}

/** A part of a run or a pipeline, under the first of the names that it has. Throws "checkpoint". */
async function loadPart(
  folderOrName: string,
  names: readonly string[],
  build: (file: NetworkConfig) => Parameters<typeof specsOf>[0],
): Promise<WeightedPart> {
  const folder = await pipelineFolder(folderOrName);
  const { components, kind } = await readPipelineFile(folder);
  const file = names.map((name) => components[name]).find((found) => found !== undefined);
  if (!file)
    throw new DiffusionError(
      "checkpoint",
      `${folder}: expected a component ${names.join(" or ")}, got a folder of kind ${kind} with ${Object.keys(components).join(", ") || "none"}`,
    );
  const { model, config } = file;
  const weights = await loadWeights(join(folder, file.weights), specsOf(build(file)));
  return { model, config, weights };
}

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

/** A VAE in training by a recipe; `from` is a folder to go on from. */
export async function buildVaeTrainer(
  recipe: VaeRecipe,
  data: TrainingData,
  from?: string,
): Promise<TaskTrainer> {
  const { model, klWeight } = recipe;
  const { classes } = model;
  if (classes !== undefined && classes !== classesOf(data).names.length)
    throw new DiffusionError(
      "data",
      `${data.train.name}: expected ${classes} classes as the model has, got ${classesOf(data).names.length}`,
    );
  const initial = from === undefined ? undefined : (await loadVae(from)).weights;
  const task = vaeTask({ model, ...(klWeight !== undefined && { klWeight }) });
  return TaskTrainer.create({ task, ...runOptions(recipe, data, initial) });
}

/** Writes a trained VAE as a folder of its own, for the training of a refiner. */
export async function saveVaeRun(
  folder: string,
  recipe: VaeRecipe,
  weights: Values,
  training: Record<string, unknown>,
): Promise<void> {
  const file = diffusionFiles.vae;
  const vae = { model: "diffusevae-vae", config: { ...recipe.model }, weights: file };
  const { parameters } = diffuseVae(recipe.model);
  await writePipelineFile(
    folder,
    { kind: "vae", name: recipe.name, components: { vae }, settings: {}, training: { ...training, recipe } },
    () => saveWeights(join(folder, file), parameters, weights, "f32"),
  ); // prettier-ignore
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

export interface BuiltDenoiser {
  trainer: TaskTrainer;
  settings: DiffusionSettings;
  /** What is written beside the weights of the denoiser, and where those of its class embedder are found. */
  parts: FrozenParts & { denoiser: NetworkConfig; classEmbedder?: NetworkConfig };
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
  from: string,
  denoiser: Denoiser,
  embedder: ClassEmbedder | undefined,
): Promise<Values> {
  const { weights } = await loadPart(from, ["denoiser"], () => denoiser);
  if (!embedder) return weights;
  const table = await loadPart(from, ["classEmbedder"], () => classEmbedder(embedder.config));
  const named = [...table.weights].map(([name, value]) => [`${embedderScope}.${name}`, value] as const); // prettier-ignore
  return new Map([...weights, ...named]);
}

export interface BuildDenoiserOptions extends FrozenParts {
  /** Pipeline whose weights to start from. */
  from?: string;
}

/** A denoiser in training by a recipe. Throws "option" or "data" for what does not fit together. */
export async function buildDenoiserTrainer(
  recipe: DenoiserRecipe,
  data: TrainingData,
  { from, ...frozen }: BuildDenoiserOptions = {},
): Promise<BuiltDenoiser> {
  const classes = recipe.condition === "class" ? classesOf(data) : undefined;
  const network = recipeDenoiser("train", recipe, classes?.names.length ?? 1);
  checkParts(recipe, network, data, frozen);
  const embedder = embedderOf(network, recipe, classes);
  const { firstStage } = frozen;
  const latents = firstStage && {
    stride: firstStages[firstStage.model]!(firstStage.config as never, {}).stride,
    scale: await scaleOf(recipe, data, firstStage),
  };
  const settings = settingsOf(recipe, classes, latents);
  const parts: BuiltDenoiser["parts"] = {
    denoiser: { model: network.name, config: network.config },
    ...frozen,
    ...(embedder && { classEmbedder: { model: "class-embedder", config: embedder.config } }),
  };
  const networks = diffusionNetworks(parts, settings);
  checkDiffusionSettings(settings, networks);
  const conditions = conditionsOf(network, recipe, classes, embedder);
  const derived = derivedOf(networks, frozen, settings);
  const { pairDropShare } = recipe;
  const task = denoiserTask({
    ...recipeTraining(recipe),
    network,
    ...(conditions && { conditions }),
    ...(derived && { derived }),
    ...(pairDropShare !== undefined && { pairDropShare }),
  });
  const initial = from === undefined ? undefined : await initialOf(from, network, embedder);
  const trainer = await TaskTrainer.create({ task, ...runOptions(recipe, data, initial) });
  return { trainer, settings, parts };
}

/** Writes the pipeline folder of a trained denoiser. */
export async function exportDenoiser(
  folder: string,
  recipe: DenoiserRecipe,
  { trainer, settings, parts }: BuiltDenoiser,
  training: Record<string, unknown>,
): Promise<void> {
  const { denoiser, classEmbedder: table, ...frozen } = parts;
  const weights = trainer.weights();
  const prefix = `${embedderScope}.`;
  const ofTable = [...weights].filter(([name]) => name.startsWith(prefix));
  const stripped = ofTable.map(([name, value]) => [name.slice(prefix.length), value] as const);
  await saveDiffusion(folder, {
    name: recipe.name,
    settings,
    parts: {
      denoiser: { ...denoiser, weights },
      ...frozen,
      ...(table && { classEmbedder: { ...table, weights: new Map(stripped) } }),
    },
    training: { ...training, recipe },
  });
}
