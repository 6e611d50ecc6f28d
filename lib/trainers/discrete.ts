// Training of a mask-and-replace model on token grids: variational bound and auxiliary term with importance-sampled
// timesteps; words, attributes and a learned null condition. Source: Gu et al. 2021, arXiv:2111.14822.
import {
  loadTrainingState,
  saveTrainingState,
  type RunConfiguration,
} from "../checkpoint/training-state.js";
import type { ImageDataset } from "../data/dataset.js";
import type { Batch } from "../data/loader.js";
import { DiffusionError } from "../errors.js";
import { textToToken, type TextToToken, type TextToTokenConfig } from "../models/text-to-token.js";
import { initialValues } from "../nn/init.js";
import { uniformStream } from "../nn/random.js";
import {
  discreteLoss,
  drawTimesteps,
  importanceState,
  lossWeightNames,
  lossWeightTable,
  updateImportance,
  type ImportanceState,
  type LossOptions,
} from "../processes/discrete-loss.js";
import {
  coefficientNames,
  coefficientTable,
  maskReplaceSchedule,
  type MaskReplaceOptions,
  type MaskReplaceSchedule,
} from "../processes/schedules.js";
import { keyTable } from "../samplers/discrete.js";
import type { TensorData } from "../runtime/buffer.js";
import type { TextTokenizer } from "../text/tokenizer.js";
import { maskReplaceForward, randomUniform } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { BatchStream } from "./batches.js";
import { splitFrozen } from "./freeze.js";
import type { StepReport, Trainable } from "./loop.js";
import { TrainStep, type LossTerms, type OptimiserOptions, type Values } from "./train-step.js";

/** A data set whose pictures have been tokenised. */
export interface TokenisedDataset {
  /** Gives order, captions and weights of the visits. */
  images: ImageDataset;
  /** Token ids (count, N). */
  tokens: Int32Array;
  /** Values of each attribute, one a picture. */
  attributes: Readonly<Record<string, Int32Array>>;
}

export interface DiscreteTrainerOptions {
  model: TextToTokenConfig;
  process: Omit<MaskReplaceOptions, "codes">;
  loss?: Omit<LossOptions, "timesteps">;
  data: TokenisedDataset;
  tokenizer: TextTokenizer;
  batchSize: number;
  /** Default 0. */
  seed?: number;
  /** Weights to start from, by name; default: drawn by the seed. */
  initial?: Values;
  /** Share of samples trained with the null condition; default 0.1. */
  nullShare?: number;
  /** Share of samples in which an attribute is left unsaid, each for itself; default 0.1. */
  unsaidShare?: number;
  optimiser?: OptimiserOptions;
  /** Parts that stay as they are, by the first words of their names, e.g. ["conditioner"]. Default none. */
  freeze?: readonly string[];
}

const noisePurpose = 1;

/** A text-to-token model in training; give it to trainLoop. */
export class DiscreteTrainer implements Trainable {
  readonly samplesPerStep: number;
  readonly #stream: BatchStream;
  #importance: ImportanceState;

  private constructor(
    readonly model: TextToToken,
    readonly options: DiscreteTrainerOptions,
    readonly schedule: MaskReplaceSchedule,
    readonly trainStep: TrainStep,
  ) {
    this.samplesPerStep = options.batchSize * (options.optimiser?.accumulate ?? 1);
    this.#importance = importanceState(schedule.timesteps);
    this.#stream = new BatchStream(options.data.images, {
      batchSize: options.batchSize,
      seed: options.seed ?? 0,
    });
  }

  static async create(options: DiscreteTrainerOptions): Promise<DiscreteTrainer> {
    const model = textToToken(options.model);
    const { codes, grid: [h, w] } = options.model.transformer; // prettier-ignore
    const N = h * w;
    if (options.data.tokens.length !== options.data.images.length * N) {
      throw new DiffusionError(
        "data",
        `train: expected ${options.data.images.length} x ${N} tokens, got ${options.data.tokens.length}; tokenise with the tokenizer of this model`,
      );
    }
    const schedule = maskReplaceSchedule({ ...options.process, codes });
    const { trained, frozen } = splitFrozen(model, options.freeze ?? []);
    const trainStep = await TrainStep.create(
      {
        inputs: inputSpecs(options, N),
        loss: (_, batch) => textToTokenLoss(model, codes, batch),
        parameters: trained,
        extraState: Object.fromEntries(frozen.map(({ name, shape }) => [name, { shape }])),
        ...(options.optimiser && { optimiser: options.optimiser }),
      },
      options.initial ?? initialValues(model.parameters, options.seed ?? 0),
    );
    return new DiscreteTrainer(model, options, schedule, trainStep);
  }

  get #configuration(): RunConfiguration {
    const { model, process, seed = 0, batchSize, optimiser = {}, freeze = [] } = this.options;
    return { model, process, seed, batchSize, optimiser, ...(freeze.length > 0 && { freeze }) };
  }

  async prefetch(): Promise<Batch[]> {
    const batches: Batch[] = [];
    for (let i = 0; i < (this.options.optimiser?.accumulate ?? 1); ++i)
      batches.push(await this.#stream.next());
    return batches;
  }

  async step(index: number, lr: number, batches: unknown): Promise<StepReport> {
    const used = batches as Batch[];
    const prepared = used.map((batch, i) => this.#prepare(batch, index, i));
    const { loss, gradNorm, outputs } = await this.trainStep.run(
      index,
      lr,
      prepared.map(({ inputs }) => inputs),
    );
    this.#stream.used(used.at(-1)!);
    const kl = outputs["kl"] as Float32Array;
    this.#importance = updateImportance(this.#importance, prepared.at(-1)!.times, kl);
    return { loss, gradNorm, metrics: { nll: Number(outputs["nll"]![0]) } };
  }

  /** Inputs of one batch; every draw is a function of seed, step and place. */
  #prepare(
    batch: Batch,
    step: number,
    part: number,
  ): { inputs: Record<string, TensorData>; times: number[] } {
    const { data, tokenizer, nullShare = 0.1, unsaidShare = 0.1, loss } = this.options;
    const { condition } = this.options.model;
    const seed = this.options.seed ?? 0;
    const B = batch.size;
    const draws = (name: string): Float64Array => uniformStream(seed, `${name}.${step}.${part}`, B);
    const { times, probabilities } = drawTimesteps(this.#importance, [...draws("times")]);
    const N = data.tokens.length / data.images.length;
    const x0 = new Int32Array(B * N);
    batch.indices.forEach((picture, i) =>
      x0.set(data.tokens.subarray(picture * N, (picture + 1) * N), i * N),
    );
    const inputs: Record<string, TensorData> = {
      x0,
      words: tokenizer.encodeBatch(batch.captions, { length: condition.text.length }).ids,
      isNull: Float32Array.from(draws("null"), (u) => (u < nullShare ? 1 : 0)),
      times: Int32Array.from(times),
      coeffs: coefficientTable(
        this.schedule,
        times.map((t) => ({ t, s: t - 1 })),
      ),
      weights: lossWeightTable(times, probabilities, {
        timesteps: this.schedule.timesteps,
        ...loss,
      }),
      key: keyTable(seed, part * B, step, B),
    };
    for (const [name, count] of Object.entries(condition.attributes ?? {})) {
      const unsaid = draws(`unsaid.${name}`);
      const values = data.attributes[name]!;
      inputs[`attribute.${name}`] = Int32Array.from(batch.indices, (picture, i) =>
        unsaid[i]! < unsaidShare ? count : values[picture]!,
      );
    }
    return { inputs, times };
  }

  async save(path: string, done: number): Promise<void> {
    const { history, counts } = this.#importance;
    await saveTrainingState(path, this.trainStep.buffers, this.#configuration, {
      done,
      cursor: this.#stream.cursor,
      lists: { history: [...history], counts: [...counts] },
    });
  }

  async restore(path: string): Promise<number> {
    const T = this.schedule.timesteps;
    const { done, cursor, lists } = await loadTrainingState(path, this.trainStep.buffers, {
      configuration: this.#configuration,
      lists: { history: T, counts: T },
    });
    this.#stream.seek(cursor);
    const list = (name: string): Float64Array => Float64Array.from(lists?.[name] ?? []);
    this.#importance = { history: list("history"), counts: list("counts") };
    return done;
  }

  /** Weights by name; the averaged ones when they are kept. */
  weights(): Map<string, Float32Array> {
    const { buffers } = this.trainStep;
    return new Map(
      this.model.parameters.map(({ name }) => [
        name,
        (buffers.get(`ema.${name}`) ?? buffers.get(name)!).read() as Float32Array,
      ]),
    );
  }

  dispose(): void {
    this.trainStep.dispose();
  }
}

function inputSpecs(
  { model: { condition }, batchSize: B }: DiscreteTrainerOptions,
  N: number,
): TrainStepInputs {
  const attributes = Object.keys(condition.attributes ?? {}).map(
    (name): [string, TrainStepInputs[string]] => [
      `attribute.${name}`,
      { shape: [B], dtype: "i32" },
    ],
  );
  return {
    x0: { shape: [B, N], dtype: "i32" },
    words: { shape: [B, condition.text.length], dtype: "i32" },
    isNull: { shape: [B] },
    times: { shape: [B], dtype: "i32" },
    coeffs: { shape: [B, coefficientNames.length] },
    weights: { shape: [B, lossWeightNames.length] },
    key: { shape: [B, 4], dtype: "i32" },
    ...Object.fromEntries(attributes),
  };
}

type TrainStepInputs = Parameters<typeof TrainStep.create>[0]["inputs"];

/** Condition, corruption, prediction and loss of one batch. */
function textToTokenLoss(
  model: TextToToken,
  codes: number,
  batch: Record<string, Tensor>,
): LossTerms {
  const { x0, words, isNull, times, coeffs, weights, key } = batch as Record<
    "x0" | "words" | "isNull" | "times" | "coeffs" | "weights" | "key",
    Tensor
  >;
  const [B, N] = x0.shape as [number, number];
  const attributes = Object.fromEntries(
    Object.keys(model.conditioner.config.attributes ?? {}).map((name) => [
      name,
      batch[`attribute.${name}`]!,
    ]),
  );
  const condition = model.conditioner.forward({ words, attributes, isNull });
  const uniform = randomUniform(key, { shape: [B, N, 2], purpose: noisePurpose });
  const xt = maskReplaceForward(x0, coeffs, uniform, { codes });
  const logits = model.transformer.forward({
    tokens: xt,
    times,
    condition: condition.tokens,
    conditionMask: condition.mask,
  });
  const { loss, klPerSample } = discreteLoss({ logits, x0, xt, weights, coeffs });
  return { loss, outputs: { kl: klPerSample, nll: klPerSample.mean() } };
}
