// A recipe: everything that decides a training run, as one JSON file.
import { readFile } from "node:fs/promises";
import { DiffusionError } from "../errors.js";
import {
  checkFields,
  flag,
  isObject,
  limits,
  listOf,
  object,
  oneOf,
  optional,
  real,
  shown,
  text,
  whole,
  without,
  type Rule,
  type Rules,
} from "../models/check-config.js";
import { textEncoder, textEncoderRules, type TextEncoderConfig } from "../models/text-encoder.js";
import {
  transformerRules,
  vqTransformer,
  type VqTransformerConfig,
} from "../models/vq-transformer.js";
import { patchDiscriminator } from "../models/patch-discriminator.js";
import { vqgan, type VqganConfig } from "../models/vqgan.js";
import { cosine, warmup, type LearningRate } from "../optim/schedule.js";
import { discriminatorLosses } from "../processes/adversarial.js";
import type { LossOptions } from "../processes/discrete-loss.js";
import { maskReplaceSchedule, type MaskReplaceOptions } from "../processes/schedules.js";
import type { LoaderOptions } from "../data/loader.js";
import type { AdversarialOptions } from "./autoencoder.js";
import { splitFrozen } from "./freeze.js";
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
  /** Parts that stay as they are, by the first words of their names, e.g. ["encoder", "quant_conv"]. */
  freeze?: readonly string[];
}

export interface TokenizerRecipe extends CommonRecipe {
  kind: "tokenizer";
  model: VqganConfig;
  l1?: number;
  l2?: number;
  codebookWeight?: number;
  restartEvery?: number;
  augment?: LoaderOptions["augment"];
  tokenMix?: number;
  /** The game against a discriminator; off by default. */
  adversarial?: AdversarialOptions;
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

const probability = real(0, 1);
const weight = real(0, 1e6);
const level = listOf(probability, 1, limits.timesteps);

/** A mask-and-replace process without its codes. */
export const processRules: Readonly<Record<keyof VqDiffusionRecipe["process"], Rule>> = {
  timesteps: optional(whole(1, limits.timesteps)),
  preset: optional(oneOf("released", "paper90")),
  endpoints: optional(object),
  cumulative: optional(object),
};

const endpointRules: Rules = {
  abarFirst: probability,
  abarLast: probability,
  cbarFirst: probability,
  cbarLast: probability,
};

/** Checks a process as files hold it. Throws "option". */
export function checkProcess(where: string, process: unknown): void {
  checkFields(where, process, processRules);
  const { endpoints, cumulative } = process as VqDiffusionRecipe["process"];
  if (endpoints) checkFields(`${where}.endpoints`, endpoints, endpointRules);
  if (cumulative) checkFields(`${where}.cumulative`, cumulative, { abar: level, cbar: level });
}

/** Settings of sampling. */
export const samplingRules: Readonly<Record<keyof VqDiffusionRecipe["sampling"], Rule>> = {
  steps: whole(1, limits.timesteps),
  guidanceScale: real(0, 100),
  truncation: probability,
  temperature: real(0.01, 100),
  topK: whole(0, limits.codes),
  sampler: oneOf("exact", "released", "purity"),
};

const common: Rules = {
  kind: text(64),
  name: text(256),
  data: text(4096),
  batchSize: whole(1, limits.batch),
  steps: whole(1, 1e9),
  lr: real(Number.MIN_VALUE, 1000),
  warmup: optional(whole(0, 1e9)),
  seed: optional(whole(0, Number.MAX_SAFE_INTEGER)),
  optimiser: optional(object),
  freeze: optional(listOf(text(256), 0, 4096)),
};

const recipeRules: Record<Recipe["kind"], Rules> = {
  tokenizer: {
    ...common,
    model: object,
    l1: optional(weight),
    l2: optional(weight),
    codebookWeight: optional(weight),
    restartEvery: optional(whole(0, 1e9)),
    augment: optional(object),
    tokenMix: optional(probability),
    adversarial: optional(object),
  },
  "vq-diffusion": {
    ...common,
    minimumCount: optional(whole(1, 1e9)),
    text: object,
    transformer: object,
    process: object,
    loss: optional(object),
    nullShare: optional(probability),
    unsaidShare: optional(probability),
    sampling: object,
  },
};

const optimiserRules: Readonly<Record<keyof OptimiserOptions, Rule>> = {
  betas: optional(listOf(real(0, 1 - 1e-9), 2, 2)),
  eps: optional(real(0, 1)),
  weightDecay: optional(weight),
  clipNorm: optional(real(Number.MIN_VALUE, 1e30)),
  emaDecay: optional(real(0, 1 - 1e-9)),
  accumulate: optional(whole(1, limits.batch)),
};

const lossRules: Rules = {
  auxiliaryWeight: optional(weight),
  adaptiveAuxiliary: optional(flag),
  maskWeight: optional(listOf(weight, 2, 2)),
};

const augmentRules: Rules = { flip: optional(flag), shift: optional(whole(0, limits.side)) };

const adversarialRules: Readonly<Record<keyof AdversarialOptions, Rule>> = {
  start: whole(0, 1e9),
  weight: optional(weight),
  loss: optional(oneOf(...Object.keys(discriminatorLosses))),
  discriminator: optional(object),
};

/** The game of a tokenizer recipe; every stride-2 layer of the discriminator must leave pixels for the last two. */
function checkAdversarial(where: string, options: AdversarialOptions, model: VqganConfig): void {
  checkFields(where, options, adversarialRules);
  const { layers = 3, imageChannels = 3 } = patchDiscriminator(options.discriminator).config;
  const wanted = model.imageChannels ?? 3;
  if (imageChannels !== wanted)
    throw new DiffusionError(
      "option",
      `${where}: expected discriminator.imageChannels ${wanted} as the pictures have, got ${imageChannels}`,
    );
  if (model.resolution < 3 * 2 ** layers)
    throw new DiffusionError(
      "option",
      `${where}: expected pictures of at least ${3 * 2 ** layers} pixels for ${layers} layers, got ${model.resolution}; set discriminator.layers`,
    );
}

/** Checks the parts of a recipe by building, without weights, what it describes. */
const checkParts: { [Kind in Recipe["kind"]]: (path: string, recipe: Recipe) => void } = {
  tokenizer(path, recipe) {
    const tokenizer = recipe as TokenizerRecipe;
    const { model, augment = {}, freeze = [], adversarial, tokenMix = 0, batchSize } = tokenizer;
    checkFields(`${path}: augment`, augment, augmentRules);
    splitFrozen(vqgan(model), freeze);
    if (tokenMix > 0 && batchSize < 2)
      throw new DiffusionError(
        "option",
        `${path}: expected a batchSize of at least 2 with tokenMix, got ${batchSize}`,
      );
    if (adversarial) checkAdversarial(`${path}: adversarial`, adversarial, model);
  },
  "vq-diffusion"(path, recipe) {
    const { text: words, transformer, process, loss = {}, sampling } = recipe as VqDiffusionRecipe;
    checkFields(`${path}: text`, words, without(textEncoderRules, "vocabulary", "padToken"));
    checkFields(
      `${path}: transformer`,
      transformer,
      without(transformerRules, "codes", "grid", "timesteps", "condition"),
    );
    checkProcess(`${path}: process`, process);
    checkFields(`${path}: loss`, loss, lossRules);
    checkFields(`${path}: sampling`, sampling, samplingRules);
    const { timesteps } = maskReplaceSchedule({ ...process, codes: 2 });
    if (sampling.steps > timesteps)
      throw new DiffusionError(
        "option",
        `${path}: expected sampling.steps up to the ${timesteps} timesteps, got ${sampling.steps}`,
      );
    textEncoder({ ...words, vocabulary: 2 });
    vqTransformer({ ...transformer, codes: 2, grid: transformer.positions ?? [1, 1] });
  },
};

/** Reads a recipe of the given kind. Throws "option" for a wrong kind, an unknown key or a wrong value. */
export async function readRecipe<Kind extends Recipe["kind"]>(
  path: string,
  kind: Kind,
): Promise<Extract<Recipe, { kind: Kind }>> {
  let recipe: unknown;
  try {
    recipe = JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    throw new DiffusionError(
      "option",
      `${path}: expected a recipe in JSON, got ${(cause as Error).message}`,
      { cause },
    );
  }
  if (!isObject(recipe) || recipe["kind"] !== kind)
    throw new DiffusionError(
      "option",
      `${path}: expected a recipe with "kind": "${kind}", got ${shown(isObject(recipe) ? recipe["kind"] : recipe)}`,
    );
  checkFields(path, recipe, recipeRules[kind]);
  checkFields(`${path}: optimiser`, recipe["optimiser"] ?? {}, optimiserRules);
  checkParts[kind](path, recipe as unknown as Recipe);
  return recipe as unknown as Extract<Recipe, { kind: Kind }>;
}

/** Learning rate of a recipe. */
export const recipeLr = ({ lr, steps, warmup: updates = 200 }: Recipe): LearningRate =>
  warmup(updates, cosine(lr, Math.max(1, steps - updates), lr / 10));
