// Training of a denoiser, of pictures or latents, on a Gaussian chain or an interpolant: conditions that are dropped for guidance,
// and paired images that it reads beside the noisy one. Sources: Ho et al. 2020, arXiv:2006.11239; Ma et al. 2024,
// arXiv:2401.08740; pairs: Pandey et al. 2022, arXiv:2201.00308.
import type { Batch } from "../data/loader.js";
import { checkOptions, DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import type { DenoiserInput } from "../models/denoiser.js";
import type { InterpolantProcess } from "../models/diffusion-process.js";
import type { TensorData } from "../runtime/buffer.js";
import { randomNormal } from "../trace/functions.js";
import type { InputSpec, Tensor } from "../trace/tensor.js";
import type { DenoiserProcess, ProcessTensors } from "./denoiser-process.js";
import type { DerivedInputs } from "./frozen-stage.js";
import {
  gaussianProcess,
  type GaussianTrainingOptions,
  type TrainedGaussian,
} from "./gaussian-process.js";
import { interpolantProcess, type InterpolantLossOptions } from "./interpolant-process.js";
import type { BatchPlace, TrainingTask } from "./task-trainer.js";
import type { LossTerms } from "./train-step.js";

/** A network as the trainer sees it; a Denoiser of lib/models is one. */
export interface DenoiserNetwork {
  parameters: readonly ParamSpec[];
  /** Plain data that decides the network; a run with another one is not resumed. */
  config: object;
  /** (B, H, W, C), or 2C with learned variances. */
  forward(input: DenoiserInput): Tensor;
}

/** What a network is told of each sample. */
export interface DenoiserConditions {
  /** Inputs of the step by name, those of the network unless `encode` turns them into these. */
  inputs: (batchSize: number) => Record<string, InputSpec>;
  values: (batch: Batch, place: BatchPlace) => Record<string, TensorData>;
  /** Of networks that learn with the denoiser. */
  parameters?: readonly ParamSpec[];
  encode?: (inputs: Record<string, Tensor>) => Omit<DenoiserInput, "x" | "times">;
}

/** A process, and how a network is trained on it; both plain data. */
export type ProcessTraining =
  | { process: TrainedGaussian; loss?: GaussianTrainingOptions }
  | { process: InterpolantProcess; loss?: InterpolantLossOptions };

export type DenoiserTaskOptions = ProcessTraining & {
  network: DenoiserNetwork;
  conditions?: DenoiserConditions;
  /**
   * What is made of pictures ahead of a step, by frozen networks: "x0", samples in their place, or inputs of the network,
   * above all the "pair" that shifts the chain with formulation 2. The task disposes of it.
   */
  derived?: DerivedInputs;
  /** Share of samples whose pair (and latent) is zero, for guidance; default 0. */
  pairDropShare?: number;
};

const optionNames: readonly (keyof DenoiserTaskOptions)[] = [
  "network", "process", "loss", "conditions", "derived", "pairDropShare",
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
  return interpolantProcess(process, loss);
}

/** Throws "option" where the inputs lack what the process needs. */
function checkPair(
  { process, pairDropShare = 0 }: DenoiserTaskOptions,
  inputs: Record<string, InputSpec>,
): void {
  if (process.kind === "gaussian" && process.formulation === 2 && !inputs["pair"])
    throw new DiffusionError("option", "denoiser: expected pair with formulation 2, got none");
  if (!(pairDropShare >= 0 && pairDropShare <= 1))
    throw new DiffusionError(
      "option",
      `denoiser: expected pairDropShare from 0 to 1, got ${pairDropShare}`,
    );
}

const droppedNames = ["pair", "latent"];

/** The same with some pairs, and what goes with them, replaced by zeros. */
function dropPairs(
  made: Record<string, Float32Array>,
  share: number,
  place: BatchPlace,
): Record<string, Float32Array> {
  if (share === 0) return made;
  const draws = place.uniform("pair");
  const entries = Object.entries(made).map(([name, values]) => {
    if (!droppedNames.includes(name)) return [name, values] as const;
    const size = values.length / draws.length;
    return [name, values.map((value, i) => (draws[Math.floor(i / size)]! < share ? 0 : value))] as const; // prettier-ignore
  });
  return Object.fromEntries(entries);
}

/** Inputs of the step that are the process's own. */
type OwnInputs = Record<"x0" | "times" | "table" | "weights" | "key", Tensor>;

/** Corruption, prediction and loss of one batch. */
function denoiserLoss(
  { network, conditions }: DenoiserTaskOptions,
  process: DenoiserProcess,
  batch: Record<string, Tensor>,
): LossTerms {
  const { x0, times, table, weights, key, ...told } = batch as OwnInputs & Record<string, Tensor>;
  const { pair } = told;
  const noise = randomNormal(key, { shape: x0.shape, purpose: noisePurpose });
  const tensors: ProcessTensors = { x0, noise, table, ...(pair && { pair }) };
  const xt = process.corrupt(tensors);
  const read = conditions?.encode?.(told) ?? told;
  const output = network.forward({ x: xt, times, dropoutKey: key, ...read });
  const { perSample, metrics } = process.loss({ ...tensors, xt, output });
  return { loss: perSample.mul(weights).mean(), outputs: { perSample, ...metrics } };
}

/** A denoiser for TaskTrainer. Throws "option" for options that do not fit together. */
export function denoiserTask(options: DenoiserTaskOptions): TrainingTask {
  checkOptions("denoiserTask", options, optionNames);
  const { network, conditions, derived, pairDropShare = 0 } = options;
  const process = denoiserProcess(options);
  return {
    configuration: {
      model: network.config,
      process: options.process,
      loss: options.loss ?? {},
      ...(derived?.configuration && { derived: derived.configuration }),
      ...(pairDropShare > 0 && { pairDropShare }),
    },
    parameters: [...network.parameters, ...(conditions?.parameters ?? [])],
    metrics: ["error", "bound"],
    ...(process.memory && { memory: process.memory }),
    inputs(pictures) {
      const B = pictures[0]!;
      const inputs: Record<string, InputSpec> = {
        x0: { shape: pictures },
        times: { shape: [B] },
        table: { shape: [B, process.columns] },
        weights: { shape: [B] },
        key: { shape: [B, 4], dtype: "i32" },
        ...derived?.inputs(pictures),
        ...conditions?.inputs(B),
      };
      checkPair(options, inputs);
      return inputs;
    },
    loss: (batch) => denoiserLoss(options, process, batch),
    async prefetch(batch, place) {
      const made = dropPairs((await derived?.read(batch, place)) ?? {}, pairDropShare, place);
      return { x0: batch.images, ...made };
    },
    values(batch, place) {
      const { observe, ...drawn } = process.draw(place);
      return {
        inputs: { ...drawn, key: place.key, ...conditions?.values(batch, place) },
        ...(observe && { observe: ({ perSample }) => observe(perSample as Float32Array) }),
      };
    },
    dispose: () => derived?.dispose?.(),
  };
}
