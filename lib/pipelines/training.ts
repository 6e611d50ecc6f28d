// From a recipe and data to a trainer, and from a trained model to a pipeline folder.
import { join } from "node:path";
import type { ImageDataset } from "../data/dataset.js";
import type { AttributeValues, TrainingData } from "../data/training-data.js";
import { DiffusionError } from "../errors.js";
import { textToToken } from "../models/text-to-token.js";
import { transformerAlone, type TokenModel } from "../models/token-model.js";
import type { VqTransformerConfig } from "../models/vq-transformer.js";
import { TextTokenizer } from "../text/tokenizer.js";
import { AutoencoderTrainer } from "../trainers/autoencoder.js";
import { classAttribute } from "../trainers/condition-rows.js";
import { discreteTask } from "../trainers/discrete.js";
import { splitFrozen } from "../trainers/freeze.js";
import { perceptualTerm } from "../trainers/perceptual-term.js";
import type { TaskTrainer } from "../trainers/task-trainer.js";
import type { TokenizerRecipe } from "../trainers/tokenizer-recipe.js";
import type { VqDiffusionRecipe } from "../trainers/vq-diffusion-recipe.js";
import { given, runFields, startingWeights, taskTrainer } from "./built-training.js";
import { captionVocabulary } from "./caption-vocabulary.js";
import type { Codec } from "./codec.js";
import { pipelineFolder } from "./pipeline.js";
import { tokeniseDataset } from "./tokenise-dataset.js";
import { saveVqDiffusion } from "./vq-diffusion-folder.js";

/** A tokenizer in training by a recipe; `from` gives the codec to go on from. */
export async function buildTokenizerTrainer(
  recipe: TokenizerRecipe,
  data: TrainingData,
  from?: Codec,
): Promise<AutoencoderTrainer> {
  return AutoencoderTrainer.create({
    model: recipe.model,
    dataset: data.train,
    batchSize: recipe.batchSize,
    ...(from && { initial: from.weights() }),
    ...given(recipe, ...runFields, "adversarial", "tokenMix", "temperature"),
    ...given(recipe, "l1", "l2", "codebookWeight", "restartEvery"),
    ...(recipe.perceptual && { perceptual: await perceptualTerm(recipe.perceptual) }),
  });
}

export interface BuiltVqDiffusion {
  trainer: TaskTrainer;
  model: TokenModel;
  /** Of a text model. */
  tokenizer?: TextTokenizer;
  /** What the model reads beside captions. */
  attributes: Record<string, AttributeValues>;
}

export interface BuildOptions {
  /** Pipeline whose vocabulary and weights to start from. */
  from?: string;
  /** Told how many pictures are tokenised. */
  onProgress?: (done: number) => void;
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

/** Vocabulary, tokens and trainer of a VQ-Diffusion recipe. */
export async function buildVqDiffusionTrainer(
  recipe: VqDiffusionRecipe,
  data: TrainingData,
  codec: Codec,
  { from, onProgress }: BuildOptions = {},
): Promise<BuiltVqDiffusion> {
  const { train } = data;
  const { condition = { kind: "text" } } = recipe;
  const attributes = attributesOf(recipe, data);
  const tokenizer = condition.kind === "text" ? await wordsOf(recipe, train, from) : undefined;
  const model = tokenizer
    ? textModel(recipe, attributes, codec, tokenizer)
    : toldModel(recipe, attributes, codec);
  splitFrozen(model, recipe.freeze ?? []); // what is wrong shows before the pictures are tokenised
  const start = from === undefined ? {} : { from };
  const initial = await startingWeights(start, ["model"], model.parameters);
  const task = discreteTask({
    model,
    process: recipe.process,
    data: { images: train, tokens: await tokeniseDataset(codec, train, onProgress), attributes },
    ...(tokenizer && { tokenizer }),
    ...given(recipe, "loss", "nullShare", "unsaidShare"),
  });
  const trainer = await taskTrainer(task, recipe, data, initial);
  return { trainer, model, attributes, ...(tokenizer && { tokenizer }) };
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

/** Writes the pipeline folder of a trained model. */
export function exportVqDiffusion(
  folder: string,
  recipe: VqDiffusionRecipe,
  codec: Codec,
  { trainer, model, tokenizer, attributes }: BuiltVqDiffusion,
  training: Record<string, unknown>,
): Promise<void> {
  return saveVqDiffusion(folder, {
    name: recipe.name,
    settings: {
      process: recipe.process,
      attributes: Object.fromEntries(
        Object.entries(attributes).map(([name, { names }]) => [name, [...names]]),
      ),
      defaults: recipe.sampling,
    },
    codec: { config: codec.config, weights: codec.weights() },
    model,
    weights: trainer.weights(),
    ...(tokenizer && { tokenizer }),
    training: { ...training, recipe },
  });
}
