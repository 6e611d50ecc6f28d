// From a recipe and data to a trainer, and from a trained model to a pipeline folder.
import { join } from "node:path";
import { loadWeights } from "../checkpoint/weights.js";
import { below, counterHash } from "../data/counter-hash.js";
import type { ImageDataset } from "../data/dataset.js";
import type { TrainingData } from "../data/training-data.js";
import { DiffusionError } from "../errors.js";
import { textToToken, type TextToTokenConfig } from "../models/text-to-token.js";
import { TextTokenizer } from "../text/tokenizer.js";
import { trainWordVocabulary } from "../text/vocabulary.js";
import { AutoencoderTrainer } from "../trainers/autoencoder.js";
import { DiscreteTrainer } from "../trainers/discrete.js";
import type { TokenizerRecipe, VqDiffusionRecipe } from "../trainers/recipe.js";
import type { Codec } from "./codec.js";
import { pipelineFolder, readPipelineFile } from "./pipeline.js";
import { saveVqDiffusion } from "./vq-diffusion.js";

/** The named entries of a recipe that it has. */
const given = <R extends object, Name extends keyof R>(
  recipe: R,
  ...names: Name[]
): Pick<R, Name> =>
  Object.fromEntries(
    names.filter((name) => recipe[name] !== undefined).map((name) => [name, recipe[name]]),
  ) as Pick<R, Name>;

/** A tokenizer in training by a recipe; `from` gives the codec to go on from. */
export function buildTokenizerTrainer(
  recipe: TokenizerRecipe,
  data: TrainingData,
  from?: Codec,
): Promise<AutoencoderTrainer> {
  return AutoencoderTrainer.create({
    model: recipe.model,
    dataset: data.train,
    batchSize: recipe.batchSize,
    ...(from && { initial: from.weights() }),
    ...given(recipe, "seed", "optimiser", "freeze"),
    ...given(recipe, "l1", "l2", "codebookWeight", "restartEvery"),
    ...given(recipe, "augment", "tokenMix", "adversarial"),
  });
}

export interface BuiltVqDiffusion {
  trainer: DiscreteTrainer;
  tokenizer: TextTokenizer;
  model: TextToTokenConfig;
}

const tokeniseBatch = 64;

/** Token ids of every picture of a set, (length * N). */
export async function tokeniseDataset(
  codec: Codec,
  set: ImageDataset,
  onProgress?: (done: number) => void,
): Promise<Int32Array> {
  const tokens = new Int32Array(set.length * codec.tokensPerImage);
  for (let first = 0; first < set.length; first += tokeniseBatch) {
    const count = Math.min(tokeniseBatch, set.length - first);
    const images = await Promise.all(
      Array.from({ length: count }, async (_, i) => ({
        width: set.width,
        height: set.height,
        data: await set.pixels(first + i),
      })),
    );
    tokens.set(
      await codec.encode(images, { batchSize: tokeniseBatch }),
      first * codec.tokensPerImage,
    );
    onProgress?.(first + count);
  }
  return tokens;
}

const captionDraws = 12;

/** Every caption of a set, and some as training draws them, which may be composed of more words. */
function captionsOf(set: ImageDataset): string[] {
  return Array.from({ length: set.length }, (_, i) => {
    const drawn = Array.from({ length: captionDraws }, (_unused, k) => {
      let place = 0;
      return set.caption(i, (n) => below(n, counterHash(k, i, place++)));
    });
    return [...set.captions(i), ...drawn].filter((caption) => caption !== "");
  }).flat();
}

function buildVocabulary(
  { minimumCount = 2 }: VqDiffusionRecipe,
  set: ImageDataset,
): TextTokenizer {
  const captions = captionsOf(set);
  if (captions.length === 0)
    throw new DiffusionError(
      "data",
      `${set.name}: expected captions, got none; add .txt files or captions.json`,
    );
  return new TextTokenizer(trainWordVocabulary(captions, { minCount: minimumCount }));
}

/** What a text-to-image training goes on from: the vocabulary and the weights of a pipeline folder. */
async function startFrom(
  folderOrName: string,
): Promise<{ tokenizer: TextTokenizer; path: string }> {
  const folder = await pipelineFolder(folderOrName);
  const { model } = (await readPipelineFile(folder)).components;
  if (!model)
    throw new DiffusionError("checkpoint", `${folder}: expected a component model, got none`);
  const tokenizer = await TextTokenizer.load(join(folder, "tokenizer.json"));
  return { tokenizer, path: join(folder, model.weights) };
}

export interface BuildOptions {
  /** Pipeline whose vocabulary and weights to start from. */
  from?: string;
  /** Told how many pictures are tokenised. */
  onProgress?: (done: number) => void;
}

/** Vocabulary, tokens and trainer of a text-to-image recipe. */
export async function buildVqDiffusionTrainer(
  recipe: VqDiffusionRecipe,
  data: TrainingData,
  codec: Codec,
  { from, onProgress }: BuildOptions = {},
): Promise<BuiltVqDiffusion> {
  const { train, attributes } = data;
  const start = from === undefined ? undefined : await startFrom(from);
  const tokenizer = start?.tokenizer ?? buildVocabulary(recipe, train);
  const model = modelConfig(recipe, data, codec, tokenizer);
  const trainer = await DiscreteTrainer.create({
    model,
    process: recipe.process,
    data: {
      images: train,
      tokens: await tokeniseDataset(codec, train, onProgress),
      attributes: Object.fromEntries(
        Object.entries(attributes).map(([name, { values }]) => [name, values]),
      ),
    },
    tokenizer,
    batchSize: recipe.batchSize,
    ...(start && { initial: await loadWeights(start.path, textToToken(model).parameters) }),
    ...given(recipe, "seed", "optimiser", "freeze"),
    ...given(recipe, "loss", "nullShare", "unsaidShare"),
  });
  return { trainer, tokenizer, model };
}

function modelConfig(
  recipe: VqDiffusionRecipe,
  { attributes }: TrainingData,
  codec: Codec,
  tokenizer: TextTokenizer,
): TextToTokenConfig {
  return {
    condition: {
      text: { ...recipe.text, vocabulary: tokenizer.vocabularySize, padToken: tokenizer.padId },
      attributes: Object.fromEntries(
        Object.entries(attributes).map(([name, { names }]) => [name, names.length]),
      ),
    },
    transformer: {
      ...recipe.transformer,
      codes: codec.config.quantizer.codes,
      grid: codec.grid,
      timesteps: recipe.process.timesteps ?? 100,
      condition: { kind: "text", width: recipe.text.width },
    },
  };
}

/** Writes the pipeline folder of a trained model. */
export function exportVqDiffusion(
  folder: string,
  recipe: VqDiffusionRecipe,
  { attributes }: TrainingData,
  codec: Codec,
  { trainer, tokenizer, model }: BuiltVqDiffusion,
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
    model: { config: model, weights: trainer.weights() },
    tokenizer,
    training: { ...training, recipe },
  });
}
