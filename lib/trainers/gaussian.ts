// Training of a network on a Gaussian chain: eps, x0, v or the previous mean, fixed or learned variances, any weighting,
// conditions that are dropped for guidance, and paired images. Sources: Ho et al. 2020, arXiv:2006.11239; Nichol & Dhariwal
// 2021, arXiv:2102.09672; Pandey et al. 2022, arXiv:2201.00308.
import {
  loadTrainingState,
  saveTrainingState,
  type RunConfiguration,
} from "../checkpoint/training-state.js";
import type { ImageDataset } from "../data/dataset.js";
import type { Batch, LoaderOptions } from "../data/loader.js";
import { checkOptions, DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import type { InputSpec } from "../trace/trace.js";
import { initialValues } from "../nn/init.js";
import { uniformStream } from "../nn/random.js";
import { chainOf, type ChainOptions, type GaussianChain } from "../processes/gaussian.js";
import {
  corrupt,
  gaussianColumns,
  gaussianLoss,
  gaussianTable,
  isLearned,
  type GaussianLossOptions,
  type GaussianTableOptions,
} from "../processes/gaussian-loss.js";
import {
  drawGaussianTimes,
  lossHistory,
  lossProbabilities,
  rememberLosses,
  type LossHistory,
  type TimestepSampling,
} from "../processes/gaussian-timesteps.js";
import type { TensorData } from "../runtime/buffer.js";
import { keyTable } from "../samplers/discrete.js";
import { randomNormal } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { BatchStream } from "./batches.js";
import { splitFrozen } from "./freeze.js";
import type { StepReport, Trainable } from "./loop.js";
import {
  TrainStep,
  type LossTerms,
  type OptimiserOptions,
  type TrainStepOptions,
  type Values,
} from "./train-step.js";

/** What a network reads in training. */
export interface NetworkInput {
  /** x_t (B, H, W, C). */
  x: Tensor;
  /** Times as the chain tells them, floats (B). */
  times: Tensor;
  /** Paired images (B, H, W, C). */
  pair?: Tensor;
  /** Key i32 (B, 4) of dropout. */
  dropoutKey: Tensor;
  /** Its conditions, by name. */
  conditions: Readonly<Record<string, Tensor>>;
}

/** A network as the trainer sees it: parameters and a function. */
export interface GaussianNetwork {
  parameters: readonly ParamSpec[];
  /** Plain data that decides the network; a run with another one is not resumed. */
  config: unknown;
  /** (B, H, W, C), or 2C with learned variances. */
  forward(input: NetworkInput): Tensor;
}

/** Uniform draws in [0, 1), one a sample, that depend on seed, step and name only. */
export type SampleDraws = (name: string) => Float64Array;

/** Conditions of a batch: what the network's inputs are, and their values. */
export interface GaussianConditions {
  inputs: (batchSize: number) => Record<string, InputSpec>;
  values: (batch: Batch, draws: SampleDraws) => Record<string, TensorData>;
}

export interface GaussianTrainerOptions
  extends
    Pick<GaussianTableOptions, "prediction" | "variance" | "formulation" | "weighting">,
    Pick<GaussianTableOptions, "gamma" | "k" | "sigmaData">,
    Pick<GaussianLossOptions, "loss" | "boundFactor"> {
  network: GaussianNetwork;
  chain: ChainOptions;
  dataset: ImageDataset;
  batchSize: number;
  conditions?: GaussianConditions;
  /** Paired image of each sample of a batch, (B, H, W, C); with formulation 2 it shifts the chain. */
  pair?: (batch: Batch) => Float32Array | Promise<Float32Array>;
  /** Share of samples whose pair is zero, for guidance; default 0. */
  pairDropShare?: number;
  /** Default "uniform". */
  timesteps?: TimestepSampling;
  /** Default 0. */
  seed?: number;
  /** Weights to start from, by name; default: drawn by the seed. */
  initial?: Values;
  augment?: LoaderOptions["augment"];
  optimiser?: OptimiserOptions;
  /** Parts that stay as they are, by the first words of their names. Default none. */
  freeze?: readonly string[];
  /** Less memory for more time, same results; default false. */
  rematerialise?: boolean;
}

const optionNames = [
  "network", "chain", "dataset", "batchSize", "conditions", "pair", "pairDropShare", "timesteps", "seed", "initial",
  "augment", "optimiser", "freeze", "rematerialise", "prediction", "variance", "formulation", "weighting", "gamma", "k",
  "sigmaData", "loss", "boundFactor",
] as const satisfies readonly (keyof GaussianTrainerOptions)[]; // prettier-ignore

const noisePurpose = 1;

/** The options that are there. */
function pick<Options extends object, Name extends keyof Options>(
  options: Options,
  names: readonly Name[],
): Pick<Options, Name> {
  const present = names.filter((name) => options[name] !== undefined);
  return Object.fromEntries(present.map((name) => [name, options[name]])) as Pick<Options, Name>;
}

const tableOptions = (options: GaussianTrainerOptions): GaussianTableOptions =>
  pick(options, ["prediction", "variance", "formulation", "weighting", "gamma", "k", "sigmaData"]);

const lossOptions = (options: GaussianTrainerOptions): GaussianLossOptions =>
  pick(options, ["prediction", "variance", "loss", "boundFactor"]);

/** A batch, and the paired images that go with it. */
interface PairedBatch {
  batch: Batch;
  pair: Float32Array | undefined;
}

/** A Gaussian denoiser in training; give it to trainLoop. */
export class GaussianTrainer implements Trainable {
  readonly samplesPerStep: number;
  readonly #stream: BatchStream;
  #history: LossHistory;

  private constructor(
    readonly options: GaussianTrainerOptions,
    readonly chain: GaussianChain,
    readonly trainStep: TrainStep,
  ) {
    const { batchSize, optimiser, dataset, seed = 0, augment } = options;
    this.samplesPerStep = batchSize * (optimiser?.accumulate ?? 1);
    this.#history = lossHistory(chain.timesteps);
    this.#stream = new BatchStream(dataset, { batchSize, seed, ...(augment && { augment }) });
  }

  /** Compiles the step. Throws "option" for options that do not fit together. */
  static async create(options: GaussianTrainerOptions): Promise<GaussianTrainer> {
    checkOptions("GaussianTrainer", options, optionNames);
    const { network, optimiser, rematerialise } = options;
    const chain = chainOf(options.chain);
    checkProcess(chain, options);
    const { trained, frozen } = splitFrozen(network, options.freeze ?? []);
    const trainStep = await TrainStep.create(
      {
        ...gaussianStepOptions(options),
        parameters: trained,
        extraState: Object.fromEntries(frozen.map(({ name, shape }) => [name, { shape }])),
        ...(optimiser && { optimiser }),
        ...(rematerialise && { rematerialise }),
      },
      options.initial ?? initialValues(network.parameters, options.seed ?? 0),
    );
    return new GaussianTrainer(options, chain, trainStep);
  }

  get #configuration(): RunConfiguration {
    const { network, chain, seed = 0, batchSize, optimiser = {}, freeze = [] } = this.options;
    const loss = { ...tableOptions(this.options), ...lossOptions(this.options) };
    const drawn = pick(this.options, ["timesteps", "pairDropShare", "augment"]);
    return {
      ...{ model: network.config, chain, loss, seed, batchSize, optimiser, ...drawn },
      ...(freeze.length > 0 && { freeze }),
    };
  }

  async prefetch(): Promise<PairedBatch[]> {
    const batches: PairedBatch[] = [];
    for (let i = 0; i < (this.options.optimiser?.accumulate ?? 1); ++i) {
      const batch = await this.#stream.next();
      batches.push({ batch, pair: await this.options.pair?.(batch) });
    }
    return batches;
  }

  async step(index: number, lr: number, batches: unknown): Promise<StepReport> {
    const used = batches as PairedBatch[];
    const prepared = used.map((batch, i) => this.#prepare(batch, index, i));
    const { loss, gradNorm, outputs } = await this.trainStep.run(
      index,
      lr,
      prepared.map(({ inputs }) => inputs),
    );
    this.#stream.used(used.at(-1)!.batch);
    if (this.options.timesteps === "loss-second-moment")
      this.#history = rememberLosses(this.#history, prepared.at(-1)!.times, outputs["perSample"]!);
    const metrics = ["error", "bound"].filter((name) => outputs[name] !== undefined);
    return {
      loss,
      gradNorm,
      metrics: Object.fromEntries(metrics.map((name) => [name, Number(outputs[name]![0])])),
    };
  }

  /** Inputs of one batch; every draw is a function of seed, step and place. */
  #prepare(
    { batch, pair }: PairedBatch,
    step: number,
    part: number,
  ): { inputs: Record<string, TensorData>; times: number[] } {
    const { seed = 0, conditions, timesteps } = this.options;
    const B = batch.size;
    const draws: SampleDraws = (name) => uniformStream(seed, `${name}.${step}.${part}`, B);
    const T = this.chain.timesteps;
    const probabilities =
      timesteps === "loss-second-moment"
        ? lossProbabilities(this.#history)
        : new Float64Array(T).fill(1 / T);
    const { times, weights } = drawGaussianTimes(probabilities, draws("times"));
    const inputs = {
      x0: batch.images,
      times: Float32Array.from(times, (t) => this.chain.times[t]!),
      table: gaussianTable(this.chain, times, tableOptions(this.options)),
      weights,
      key: keyTable(seed, part * B, step, B),
      ...(pair && { pair: this.#dropPairs(pair, draws) }),
      ...conditions?.values(batch, draws),
    };
    return { inputs, times };
  }

  #dropPairs(pair: Float32Array, draws: SampleDraws): Float32Array {
    const { pairDropShare = 0, batchSize } = this.options;
    if (pairDropShare === 0) return pair;
    const size = pair.length / batchSize;
    const isDropped = draws("pair").map((u) => Number(u < pairDropShare));
    return pair.map((value, i) => (isDropped[Math.floor(i / size)] ? 0 : value));
  }

  async save(path: string, done: number): Promise<void> {
    const { losses, counts } = this.#history;
    const isKept = this.options.timesteps === "loss-second-moment";
    await saveTrainingState(path, this.trainStep.buffers, this.#configuration, {
      done,
      cursor: this.#stream.cursor,
      ...(isKept && { lists: { losses: [...losses], counts: [...counts] } }),
    });
  }

  async restore(path: string): Promise<number> {
    const { losses, counts } = this.#history;
    const isKept = this.options.timesteps === "loss-second-moment";
    const { done, cursor, lists } = await loadTrainingState(path, this.trainStep.buffers, {
      configuration: this.#configuration,
      ...(isKept && { lists: { losses: losses.length, counts: counts.length } }),
    });
    this.#stream.seek(cursor);
    if (lists && isKept) {
      const list = (name: string): Float64Array => Float64Array.from(lists[name] ?? []);
      this.#history = { losses: list("losses"), counts: list("counts") };
    }
    return done;
  }

  /** Weights by name; the averaged ones when they are kept. */
  weights(): Map<string, Float32Array> {
    const { buffers } = this.trainStep;
    return new Map(
      this.options.network.parameters.map(({ name }) => [
        name,
        (buffers.get(`ema.${name}`) ?? buffers.get(name)!).read() as Float32Array,
      ]),
    );
  }

  dispose(): void {
    this.trainStep.dispose();
  }
}

/** Throws "option" for numbers that no step could use. */
function checkProcess(chain: GaussianChain, options: GaussianTrainerOptions): void {
  const { formulation, pair, pairDropShare = 0, loss, variance = "fixedLarge" } = options;
  gaussianTable(chain, [0, chain.timesteps - 1], tableOptions(options));
  if (formulation === 2 && !pair)
    throw new DiffusionError(
      "option",
      "GaussianTrainer: expected pair with formulation 2, got none",
    );
  if (!(pairDropShare >= 0 && pairDropShare <= 1))
    throw new DiffusionError(
      "option",
      `GaussianTrainer: expected pairDropShare from 0 to 1, got ${pairDropShare}`,
    );
  if (loss === "l1" && isLearned(variance))
    throw new DiffusionError(
      "option",
      `GaussianTrainer: expected loss l2 or bound with learned variances, got l1`,
    );
}

/** Inputs and loss of a step. */
export function gaussianStepOptions(
  options: GaussianTrainerOptions,
): Pick<TrainStepOptions, "inputs" | "loss"> {
  const { batchSize: B, dataset, pair, conditions, network } = options;
  const { height, width, channels } = dataset;
  const images = { shape: [B, height, width, channels] };
  const conditionInputs = conditions?.inputs(B) ?? {};
  return {
    inputs: {
      x0: images,
      times: { shape: [B] },
      table: { shape: [B, gaussianColumns.length] },
      weights: { shape: [B] },
      key: { shape: [B, 4], dtype: "i32" },
      ...(pair && { pair: images }),
      ...conditionInputs,
    },
    loss: (_, batch) => {
      const names = Object.keys(conditionInputs);
      const found = Object.fromEntries(names.map((name) => [name, batch[name]!]));
      return chainLoss(network, options, batch, found);
    },
  };
}

/** Corruption, prediction and loss of one batch. */
function chainLoss(
  network: GaussianNetwork,
  options: GaussianTrainerOptions,
  batch: Record<string, Tensor>,
  conditions: Record<string, Tensor>,
): LossTerms {
  const { x0, times, table, weights, key } = batch as Record<
    "x0" | "times" | "table" | "weights" | "key",
    Tensor
  >;
  const pair = batch["pair"] && { pair: batch["pair"] };
  const eps = randomNormal(key, { shape: x0.shape, purpose: noisePurpose });
  const xt = corrupt(x0, eps, table, pair?.pair);
  const output = network.forward({ x: xt, times, ...pair, dropoutKey: key, conditions });
  const found = gaussianLoss({ x0, eps, xt, output, table, ...pair }, lossOptions(options));
  return {
    loss: found.perSample.mul(weights).mean(),
    outputs: {
      perSample: found.perSample,
      ...(found.error && { error: found.error.mean() }),
      ...(found.bound && { bound: found.bound.mean() }),
    },
  };
}
