// From the recipes of tokenizers and of VQ-Diffusion to trainers, and from what they learned to folders.
import { join } from "node:path";
import type { ImageDataset } from "../data/dataset.js";
import type { AttributeValues, TrainingData } from "../data/training-data.js";
import { DiffusionError } from "../errors.js";
import { textToToken } from "../models/text-to-token.js";
import { transformerAlone, type TokenModel } from "../models/token-model.js";
import type { VqTransformerConfig } from "../models/vq-transformer.js";
import { vqgan } from "../models/vqgan.js";
import { TextTokenizer } from "../text/tokenizer.js";
import { AutoencoderTrainer } from "../trainers/autoencoder.js";
import { classAttribute } from "../trainers/condition-rows.js";
import { discreteTask } from "../trainers/discrete.js";
import { splitFrozen } from "../trainers/freeze.js";
import { given } from "../trainers/given.js";
import { perceptualTerm } from "../trainers/perceptual-term.js";
import type { TokenizerRecipe } from "../trainers/tokenizer-recipe.js";
import type { VqDiffusionRecipe } from "../trainers/vq-diffusion-recipe.js";
import {
  runFields,
  startingWeights,
  taskTrainer,
  type BuiltTraining,
  type TrainingStart,
} from "./built-training.js";
import { captionVocabulary } from "./caption-vocabulary.js";
import type { Codec } from "./codec.js";
import { specsOf } from "./diffusion-folder.js";
import { pipelineFolder } from "./pipeline.js";
import { tokeniseDataset, type TokeniseOptions } from "./tokenise-dataset.js";
import { saveTokenizerRun } from "./tokenizer-run.js";
import { saveVqDiffusion } from "./vq-diffusion-folder.js";

/** A tokenizer in training by a recipe. */
export async function buildTokenizerTrainer(
  recipe: TokenizerRecipe,
  data: TrainingData,
  start: TrainingStart = {},
): Promise<BuiltTraining> {
  const config = recipe.model;
  const trainer = await AutoencoderTrainer.create({
    model: config,
    dataset: data.train,
    batchSize: recipe.batchSize,
    ...(await startingWeights(start, ["codec"], specsOf(vqgan(config)))),
    ...given(recipe, ...runFields, "adversarial", "tokenMix", "temperature"),
    ...given(recipe, "l1", "l2", "codebookWeight", "restartEvery"),
    ...(recipe.perceptual && { perceptual: await perceptualTerm(recipe.perceptual) }),
  });
  return {
    trainer,
    save: (folder, training) =>
      saveTokenizerRun(folder, { config, weights: trainer.weights() }, { ...training, recipe }),
  };
}

/** What a model of this recipe reads of the data beside captions. Throws "data" for a set without classes. */
function attributesOf(
  { condition = { kind: "text" } }: VqDiffusionRecipe,
  { train, attributes }: TrainingData,
): Record<string, AttributeValues> {
  if (condition.kind === "text") return attributes;
  if (condition.kind === "none") return {};
  const classes = attributes["category"];
  if (!classes)
    throw new DiffusionError(
      "data",
      `${train.name}: expected classes, got none; put the pictures of each class into a sub-folder, or set "condition": { "kind": "none" } in the recipe`,
    );
  return { [classAttribute]: classes };
}

/** The words of a text model: of the pipeline it goes on from, or learned. */
async function wordsOf(
  recipe: VqDiffusionRecipe,
  set: ImageDataset,
  from: string | undefined,
): Promise<TextTokenizer> {
  if (from !== undefined)
    return TextTokenizer.load(join(await pipelineFolder(from), "tokenizer.json"));
  const { minimumCount, vocabulary } = recipe;
  const words = { kind: "words", ...(minimumCount !== undefined && { minimumCount }) } as const;
  return captionVocabulary(set, vocabulary ?? words);
}

/**
 * A model of the tokens of a codec in training; its folder is a pipeline. Throws "data" for a set without the classes
 * that the recipe asks for, "aborted" when the signal stops it.
 */
export async function buildVqDiffusionTrainer(
  recipe: VqDiffusionRecipe,
  data: TrainingData,
  codec: Codec,
  start: TrainingStart & TokeniseOptions = {},
): Promise<BuiltTraining> {
  const { train } = data;
  const { condition = { kind: "text" } } = recipe;
  const attributes = attributesOf(recipe, data);
  const tokenizer =
    condition.kind === "text" ? await wordsOf(recipe, train, start.from) : undefined;
  const model = tokenizer
    ? textModel(recipe, attributes, codec, tokenizer)
    : toldModel(recipe, attributes, codec);
  splitFrozen(model, recipe.freeze ?? []); // what is wrong shows before the pictures are tokenised
  const initial = await startingWeights(start, ["model"], model.parameters);
  const task = discreteTask({
    model,
    process: recipe.process,
    data: { images: train, tokens: await tokeniseDataset(codec, train, start), attributes },
    ...(tokenizer && { tokenizer }),
    ...given(recipe, "loss", "nullShare", "unsaidShare"),
  });
  const trainer = await taskTrainer(task, recipe, data, initial);
  const { process, sampling: defaults } = recipe;
  const told = Object.entries(attributes).map(([name, { names }]) => [name, [...names]]);
  const settings = { process, defaults, attributes: Object.fromEntries(told) as Record<string, string[]> }; // prettier-ignore
  return {
    trainer,
    save: (folder, training) =>
      saveVqDiffusion(folder, {
        name: recipe.name,
        settings,
        codec: { config: codec.config, weights: codec.weights() },
        model,
        weights: trainer.weights(),
        ...(tokenizer && { tokenizer }),
        training: { ...training, recipe },
      }),
  };
}

/** What tokenizer and process decide of a transformer. */
const fromCodec = (
  { transformer, process }: VqDiffusionRecipe,
  codec: Codec,
): Omit<VqTransformerConfig, "condition"> => ({
  ...transformer,
  codes: codec.config.quantizer.codes,
  grid: codec.grid,
  timesteps: process.timesteps ?? 100,
});

function textModel(
  recipe: VqDiffusionRecipe,
  attributes: Record<string, AttributeValues>,
  codec: Codec,
  { vocabularySize, padId }: TextTokenizer,
): TokenModel {
  const text = recipe.text!; // checked with the recipe
  return textToToken({
    condition: {
      text: { ...text, vocabulary: vocabularySize, padToken: padId },
      attributes: Object.fromEntries(
        Object.entries(attributes).map(([name, { names }]) => [name, names.length]),
      ),
    },
    transformer: { ...fromCodec(recipe, codec), condition: { kind: "text", width: text.width } },
  });
}

/** A model that is told a class, or nothing; samples that are told nothing get a learned class of their own. */
function toldModel(
  recipe: VqDiffusionRecipe,
  attributes: Record<string, AttributeValues>,
  codec: Codec,
): TokenModel {
  const { condition, nullShare = 0.1 } = recipe;
  const config = fromCodec(recipe, codec);
  if (condition?.kind !== "class") return transformerAlone(config);
  const classes = attributes[classAttribute]!.names.length + (nullShare > 0 ? 1 : 0);
  return transformerAlone({ ...config, condition: { ...condition, classes } });
}
