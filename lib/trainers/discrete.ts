// Training of a mask-and-replace model on token grids, told captions, classes or nothing: variational bound and auxiliary
// term with importance-sampled timesteps, and a learned null condition. Source: Gu et al. 2021, arXiv:2111.14822.
import {
  loadTrainingState,
  saveTrainingState,
  type RunConfiguration,
} from "../checkpoint/training-state.js";
import type { ImageDataset } from "../data/dataset.js";
import type { Batch } from "../data/loader.js";
import type { AttributeValues } from "../data/training-data.js";
import { DiffusionError } from "../errors.js";
import type { TokenModel } from "../models/token-model.js";
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
import {
  classAttribute,
  conditionRows,
  type ConditionReader,
  type SampleCondition,
} from "./condition-rows.js";
import { splitFrozen } from "./freeze.js";
import type { StepReport, Trainable } from "./loop.js";
import {
  TrainStep,
  type LossTerms,
  type OptimiserOptions,
  type TrainStepOptions,
  type Values,
} from "./train-step.js";

/** A data set whose pictures have been tokenised. */
export interface TokenisedDataset {
  /** Gives order, captions and weights of the visits. */
  images: ImageDataset;
  /** Token ids (count, N). */
  tokens: Int32Array;
  /** What is known of each picture beside its captions; the classes of a class model under "class". */
  attributes: Readonly<Record<string, AttributeValues>>;
}

export interface DiscreteTrainerOptions {
  model: TokenModel;
  process: Omit<MaskReplaceOptions, "codes">;
  loss?: Omit<LossOptions, "timesteps">;
  data: TokenisedDataset;
  /** Of a text model. */
  tokenizer?: TextTokenizer;
  batchSize: number;
  /** Default 0. */
  seed?: number;
  /** Weights to start from, by name; default: drawn by the seed. */
  initial?: Values;
  /** Share of samples trained with the null condition; default 0.1. */
  nullShare?: number;
  /** Share of samples in which an attribute of a text model is left unsaid, each for itself; default 0.1. */
  unsaidShare?: number;
  optimiser?: OptimiserOptions;
  /** Parts that stay as they are, by the first words of their names, e.g. ["conditioner"]. Default none. */
  freeze?: readonly string[];
  /** Less memory for more time, same results; default false. */
  rematerialise?: boolean;
  /** Instruction set, or "ref"; default the best that the machine has. */
  isa?: string;
}

const noisePurpose = 1;

/** A model of token grids in training; give it to trainLoop. */
export class DiscreteTrainer implements Trainable {
  readonly samplesPerStep: number;
  readonly #stream: BatchStream;
  #importance: ImportanceState;

  private constructor(
    readonly options: DiscreteTrainerOptions,
    readonly reader: ConditionReader,
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
    const { model, data } = options;
    const { codes, grid: [h, w] } = model.transformer.config; // prettier-ignore
    const N = h * w;
    if (data.tokens.length !== data.images.length * N) {
      throw new DiffusionError(
        "data",
        `train: expected ${data.images.length} x ${N} tokens, got ${data.tokens.length}; tokenise with the tokenizer of this model`,
      );
    }
    const schedule = maskReplaceSchedule({ ...options.process, codes });
    const { trained, frozen } = splitFrozen(model, options.freeze ?? []);
    const trainStep = await TrainStep.create(
      {
        ...discreteStepOptions(model, options.batchSize),
        parameters: trained,
        extraState: Object.fromEntries(frozen.map(({ name, shape }) => [name, { shape }])),
        ...(options.optimiser && { optimiser: options.optimiser }),
        ...(options.rematerialise !== undefined && { rematerialise: options.rematerialise }),
        ...(options.isa !== undefined && { isa: options.isa }),
      },
      options.initial ?? initialValues(model.parameters, options.seed ?? 0),
    );
    const reader = { model, tokenizer: options.tokenizer, counts: countsOf(model, data) };
    return new DiscreteTrainer(options, reader, schedule, trainStep);
  }

  get #configuration(): RunConfiguration {
    const { process, seed = 0, batchSize, optimiser = {}, freeze = [] } = this.options;
    const model = this.options.model.config;
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
    const { data, loss } = this.options;
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
      ...conditionRows(this.reader, this.#conditions(batch, draws)),
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
    return { inputs, times };
  }

  /** What each sample of a batch is told. */
  #conditions(batch: Batch, draws: (name: string) => Float64Array): SampleCondition[] {
    const { data, model, nullShare = 0.1, unsaidShare = 0.1 } = this.options;
    const isUnsaid = model.condition.kind === "text" ? unsaidShare : 0;
    const nulls = draws("null");
    const columns = Object.entries(this.reader.counts).map(([name, count]) => {
      const unsaid = draws(`unsaid.${name}`);
      const { values } = data.attributes[name]!;
      return [
        name,
        Array.from(batch.indices, (picture, i) =>
          unsaid[i]! < isUnsaid ? count : values[picture]!,
        ),
      ] as const;
    });
    return batch.captions.map((caption, i) => ({
      caption,
      attributes: Object.fromEntries(columns.map(([name, values]) => [name, values[i]!])),
      isNull: nulls[i]! < nullShare,
    }));
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
      this.options.model.parameters.map(({ name }) => [
        name,
        (buffers.get(`ema.${name}`) ?? buffers.get(name)!).read() as Float32Array,
      ]),
    );
  }

  dispose(): void {
    this.trainStep.dispose();
  }
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
