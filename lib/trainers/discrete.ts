// Training of a mask-and-replace model on token grids, told captions, classes or nothing: variational bound and auxiliary
// term with importance-sampled timesteps, and a learned null condition. Source: Gu et al. 2021, arXiv:2111.14822.
import type { ImageDataset } from "../data/dataset.js";
import type { Batch } from "../data/loader.js";
import type { AttributeValues } from "../data/training-data.js";
import { checkOptions, DiffusionError } from "../errors.js";
import type { TokenModel } from "../models/token-model.js";
import {
  discreteLoss,
  drawTimesteps,
  importanceState,
  lossWeightNames,
  lossWeightTable,
  updateImportance,
  type LossOptions,
} from "../processes/discrete-loss.js";
import {
  coefficientNames,
  coefficientTable,
  maskReplaceSchedule,
  type MaskReplaceOptions,
} from "../processes/schedules.js";
import type { TextTokenizer } from "../text/tokenizer.js";
import { maskReplaceForward, randomUniform } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import {
  classAttribute,
  conditionRows,
  type ConditionReader,
  type SampleCondition,
} from "./condition-rows.js";
import type { BatchPlace, TrainingTask } from "./task-trainer.js";
import type { LossTerms, TrainStepOptions } from "./train-step.js";

/** A data set whose pictures have been tokenised. */
export interface TokenisedDataset {
  /** Gives order, captions and weights of the visits. */
  images: ImageDataset;
  /** Token ids (count, N). */
  tokens: Int32Array;
  /** What is known of each picture beside its captions; the classes of a class model under "class". */
  attributes: Readonly<Record<string, AttributeValues>>;
}

export interface DiscreteTaskOptions {
  model: TokenModel;
  process: Omit<MaskReplaceOptions, "codes">;
  loss?: Omit<LossOptions, "timesteps">;
  /** Its pictures are the trainer's data set. */
  data: TokenisedDataset;
  /** Of a text model. */
  tokenizer?: TextTokenizer;
  /** Share of samples trained with the null condition; default 0.1. */
  nullShare?: number;
  /** Share of samples in which an attribute of a text model is left unsaid, each for itself; default 0.1. */
  unsaidShare?: number;
}

const optionNames: readonly (keyof DiscreteTaskOptions)[] = [
  "model", "process", "loss", "data", "tokenizer", "nullShare", "unsaidShare",
]; // prettier-ignore

const noisePurpose = 1;

/** A model of token grids to train; give it to a TaskTrainer. Throws "data" for data that do not fit the model. */
export function discreteTask(options: DiscreteTaskOptions): TrainingTask {
  checkOptions("discreteTask", options, optionNames);
  const { model, process, loss, data, tokenizer } = options;
  const { codes } = model.transformer.config;
  const schedule = maskReplaceSchedule({ ...process, codes });
  const { timesteps } = schedule;
  const reader = { model, tokenizer, counts: countsOf(model, data) };
  const rows = tokenRows(model, data);
  let importance = importanceState(timesteps);
  return {
    configuration: { model: model.config, process },
    parameters: model.parameters,
    inputs: ([B]) => discreteStepOptions(model, B!).inputs,
    loss: (batch) => tokenLoss(model, codes, batch),
    values(batch, place) {
      const { times, probabilities } = drawTimesteps(importance, [...place.uniform("times")]);
      const steps = times.map((t) => ({ t, s: t - 1 }));
      const inputs = {
        x0: rows(batch.indices),
        ...conditionRows(reader, conditionsOf(options, reader.counts, batch, place)),
        times: Int32Array.from(times),
        coeffs: coefficientTable(schedule, steps),
        weights: lossWeightTable(times, probabilities, { timesteps, ...loss }),
        key: place.key,
      };
      return {
        inputs,
        observe: ({ kl }) =>
          void (importance = updateImportance(importance, times, kl as Float32Array)),
      };
    },
    metrics: ["nll"],
    memory: {
      read: () => ({ history: [...importance.history], counts: [...importance.counts] }),
      write({ history = [], counts = [] }) {
        importance = { history: Float64Array.from(history), counts: Float64Array.from(counts) };
      },
    },
  };
}

/** Reads the tokens of pictures, one row a sample. Throws "data" for those of another tokenizer. */
function tokenRows(
  { transformer }: TokenModel,
  { images, tokens }: TokenisedDataset,
): (pictures: Int32Array) => Int32Array {
  const [h, w] = transformer.config.grid;
  const N = h * w;
  if (tokens.length !== images.length * N)
    throw new DiffusionError(
      "data",
      `train: expected ${images.length} x ${N} tokens, got ${tokens.length}; tokenise with the tokenizer of this model`,
    );
  return (pictures) => {
    const rows = new Int32Array(pictures.length * N);
    pictures.forEach((picture, i) =>
      rows.set(tokens.subarray(picture * N, (picture + 1) * N), i * N),
    );
    return rows;
  };
}

/** What each sample of a batch is told. */
function conditionsOf(
  { data, model, nullShare = 0.1, unsaidShare = 0.1 }: DiscreteTaskOptions,
  counts: ConditionReader["counts"],
  batch: Batch,
  place: BatchPlace,
): SampleCondition[] {
  const isUnsaid = model.condition.kind === "text" ? unsaidShare : 0;
  const nulls = place.uniform("null");
  const columns = Object.entries(counts).map(([name, count]) => {
    const unsaid = place.uniform(`unsaid.${name}`);
    const { values } = data.attributes[name]!;
    return [
      name,
      Array.from(batch.indices, (picture, i) => (unsaid[i]! < isUnsaid ? count : values[picture]!)),
    ] as const;
  });
  return batch.captions.map((caption, i) => ({
    caption,
    attributes: Object.fromEntries(columns.map(([name, values]) => [name, values[i]!])),
    isNull: nulls[i]! < nullShare,
  }));
}

/** Number of values of each attribute that the model reads. Throws "data" for one that the data set has not. */
function countsOf({ condition }: TokenModel, data: TokenisedDataset): Record<string, number> {
  if (condition.kind === "none") return {};
  const wanted =
    condition.kind === "text"
      ? { ...condition.attributes }
      : { [classAttribute]: data.attributes[classAttribute]?.names.length ?? 0 };
  for (const [name, count] of Object.entries(wanted)) {
    const found = data.attributes[name];
    if (found && found.values.every((value) => value >= 0 && value < count)) continue;
    throw new DiffusionError(
      "data",
      `train: expected a ${name} from 0 to ${count - 1} of every picture of ${data.images.name}, got ${found ? "others" : "none"}`,
    );
  }
  return wanted;
}

/** Inputs and loss of a step on batches of B token grids. */
export function discreteStepOptions(
  model: TokenModel,
  B: number,
): Pick<TrainStepOptions, "inputs" | "loss"> {
  const { codes, grid: [h, w] } = model.transformer.config; // prettier-ignore
  return {
    inputs: {
      x0: { shape: [B, h * w], dtype: "i32" },
      ...model.conditionInputs(B),
      times: { shape: [B], dtype: "i32" },
      coeffs: { shape: [B, coefficientNames.length] },
      weights: { shape: [B, lossWeightNames.length] },
      key: { shape: [B, 4], dtype: "i32" },
    },
    loss: (_, batch) => tokenLoss(model, codes, batch),
  };
}

/** Condition, corruption, prediction and loss of one batch. */
function tokenLoss(model: TokenModel, codes: number, batch: Record<string, Tensor>): LossTerms {
  const { x0, times, coeffs, weights, key } = batch as Record<
    "x0" | "times" | "coeffs" | "weights" | "key",
    Tensor
  >;
  const [B, N] = x0.shape as [number, number];
  const condition = model.encode(batch);
  const uniform = randomUniform(key, { shape: [B, N, 2], purpose: noisePurpose });
  const xt = maskReplaceForward(x0, coeffs, uniform, { codes });
  const logits = model.transformer.forward({ tokens: xt, times, ...condition });
  const { loss, klPerSample } = discreteLoss({ logits, x0, xt, weights, coeffs });
  return { loss, outputs: { kl: klPerSample, nll: klPerSample.mean() } };
}
