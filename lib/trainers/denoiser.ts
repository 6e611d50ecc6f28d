// Training of a denoiser, of pictures or latents, on a Gaussian chain or an interpolant: conditions that are dropped for guidance,
// and paired images that it reads beside the noisy one. Sources: Ho et al. 2020, arXiv:2006.11239; Ma et al. 2024,
// arXiv:2401.08740; pairs: Pandey et al. 2022, arXiv:2201.00308.
import type { Batch } from "../data/loader.js";
import { checkOptions, DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import type { Shape } from "../ir/shape.js";
import { shown } from "../models/check-config.js";
import type { TensorData } from "../runtime/buffer.js";
import { randomNormal } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { InputSpec } from "../trace/trace.js";
import type { DenoiserProcess, ProcessTensors } from "./denoiser-process.js";
import {
  gaussianProcess,
  type GaussianTrainingOptions,
  type TrainedGaussian,
} from "./gaussian-process.js";
import {
  interpolantProcess,
  type InterpolantLossOptions,
  type TrainedInterpolant,
} from "./interpolant-process.js";
import type { BatchPlace, TrainingTask } from "./task-trainer.js";
import type { LossTerms } from "./train-step.js";

/** What a network reads in training. */
export interface DenoiserInput {
  /** Noisy samples (B, H, W, C). */
  x: Tensor;
  /** Times as the process tells them, floats (B). */
  times: Tensor;
  /** Paired images (B, h, w, C'). */
  pair?: Tensor;
  /** Key i32 (B, 4) of dropout. */
  dropoutKey: Tensor;
  /** Its conditions, by name. */
  conditions: Readonly<Record<string, Tensor>>;
}

/** A network as the trainer sees it: parameters and a function. */
export interface DenoiserNetwork {
  parameters: readonly ParamSpec[];
  /** Plain data that decides the network; a run with another one is not resumed. */
  config: unknown;
  /** (B, H, W, C), or 2C with learned variances. */
  forward(input: DenoiserInput): Tensor;
}

/** Conditions of a batch: what the network's inputs are, and their values. */
export interface DenoiserConditions {
  inputs: (batchSize: number) => Record<string, InputSpec>;
  values: (batch: Batch, place: BatchPlace) => Record<string, TensorData>;
}

/** Something that is made of pictures before a step reads it, e.g. by a frozen network (frozen-stage.ts). */
export interface DerivedSamples {
  /** Of one sample (h, w, C), from that of a picture (H, W, C). */
  shape(picture: Shape): Shape;
  /** (B, h, w, C). */
  read(batch: Batch, place: BatchPlace): Float32Array | Promise<Float32Array>;
  dispose?(): void;
}

/** A process, and how a network is trained on it; both plain data. */
export type ProcessTraining =
  | { process: TrainedGaussian; loss?: GaussianTrainingOptions }
  | { process: TrainedInterpolant; loss?: InterpolantLossOptions };

export type DenoiserTaskOptions = ProcessTraining & {
  network: DenoiserNetwork;
  conditions?: DenoiserConditions;
  /** What is denoised in place of the pictures, e.g. their latents. The task disposes of it. */
  samples?: DerivedSamples;
  /** Paired images; with formulation 2 they shift the chain. The task disposes of it. */
  pair?: DerivedSamples;
  /** Share of samples whose pair is zero, for guidance; default 0. */
  pairDropShare?: number;
};

const optionNames: readonly (keyof DenoiserTaskOptions)[] = [
  "network", "process", "loss", "conditions", "samples", "pair", "pairDropShare",
]; // prettier-ignore

const noisePurpose = 1;

const isGaussian = (
  training: ProcessTraining,
): training is Extract<ProcessTraining, { process: TrainedGaussian }> =>
  training.process.kind === "gaussian";

/** Throws "option" for settings that no step could use. */
export function denoiserProcess(training: ProcessTraining): DenoiserProcess {
  if (isGaussian(training)) return gaussianProcess(training.process, training.loss);
  const { process, loss } = training as Exclude<ProcessTraining, { process: TrainedGaussian }>;
  if (process.kind === "interpolant") return interpolantProcess(process, loss);
  throw new DiffusionError(
    "option",
    `process: expected kind to be one of gaussian, interpolant, got ${shown((process as { kind?: unknown }).kind)}`,
  );
}

function checkPair({ process, pair, pairDropShare = 0 }: DenoiserTaskOptions): void {
  if (process.kind === "gaussian" && process.formulation === 2 && !pair)
    throw new DiffusionError("option", "denoiser: expected pair with formulation 2, got none");
  if (!(pairDropShare >= 0 && pairDropShare <= 1))
    throw new DiffusionError(
      "option",
      `denoiser: expected pairDropShare from 0 to 1, got ${pairDropShare}`,
    );
}

/** The pairs, some of them replaced by zeros. */
function dropPairs(pair: Float32Array, share: number, place: BatchPlace): Float32Array {
  if (share === 0) return pair;
  const draws = place.uniform("pair");
  const size = pair.length / draws.length;
  return pair.map((value, i) => (draws[Math.floor(i / size)]! < share ? 0 : value));
}

/** Corruption, prediction and loss of one batch. */
function denoiserLoss(
  { network }: DenoiserTaskOptions,
  process: DenoiserProcess,
  batch: Record<string, Tensor>,
  conditions: Record<string, Tensor>,
): LossTerms {
  const { x0, times, table, weights, key } = batch as Record<
    "x0" | "times" | "table" | "weights" | "key",
    Tensor
  >;
  const pair = batch["pair"] && { pair: batch["pair"] };
  const noise = randomNormal(key, { shape: x0.shape, purpose: noisePurpose });
  const tensors: ProcessTensors = { x0, noise, table, ...pair };
  const xt = process.corrupt(tensors);
  const output = network.forward({ x: xt, times, ...pair, dropoutKey: key, conditions });
  const { perSample, metrics } = process.loss({ ...tensors, xt, output });
  return { loss: perSample.mul(weights).mean(), outputs: { perSample, ...metrics } };
}

/** A denoiser for TaskTrainer. Throws "option" for options that do not fit together. */
export function denoiserTask(options: DenoiserTaskOptions): TrainingTask {
  checkOptions("denoiserTask", options, optionNames);
  const { network, conditions, samples, pair, pairDropShare = 0 } = options;
  const process = denoiserProcess(options);
  checkPair(options);
  let conditionNames: readonly string[] = [];
  return {
    configuration: {
      model: network.config,
      process: options.process,
      loss: options.loss ?? {},
      ...(pair && { pairDropShare }),
    },
    parameters: network.parameters,
    metrics: ["error", "bound"],
    ...(process.memory && { memory: process.memory }),
    inputs([B, ...picture]) {
      const shape = (source?: DerivedSamples): InputSpec => ({
        shape: [B!, ...(source?.shape(picture) ?? picture)],
      });
      const conditionInputs = conditions?.inputs(B!) ?? {};
      conditionNames = Object.keys(conditionInputs);
      return {
        x0: shape(samples),
        times: { shape: [B!] },
        table: { shape: [B!, process.columns] },
        weights: { shape: [B!] },
        key: { shape: [B!, 4], dtype: "i32" },
        ...(pair && { pair: shape(pair) }),
        ...conditionInputs,
      };
    },
    loss(batch) {
      const found = conditionNames.map((name) => [name, batch[name]!] as const);
      return denoiserLoss(options, process, batch, Object.fromEntries(found));
    },
    async prefetch(batch, place) {
      const x0 = (await samples?.read(batch, place)) ?? batch.images;
      if (!pair) return { x0 };
      return { x0, pair: dropPairs(await pair.read(batch, place), pairDropShare, place) };
    },
    values(batch, place) {
      const { observe, ...drawn } = process.draw(place);
      return {
        inputs: { ...drawn, key: place.key, ...conditions?.values(batch, place) },
        ...(observe && { observe: ({ perSample }) => observe(perSample as Float32Array) }),
      };
    },
    dispose() {
      samples?.dispose?.();
      pair?.dispose?.();
    },
  };
}
