// Training on a Gaussian chain: eps, x0, v or the previous mean, fixed or learned variances, any weighting, paired images
// in both formulations. Sources: Ho et al. 2020, arXiv:2006.11239; Nichol & Dhariwal 2021, arXiv:2102.09672; Pandey et al.
// 2022, arXiv:2201.00308.
import { DiffusionError } from "../errors.js";
import { checkFields, oneOf, optional, real, type Rule } from "../models/check-config.js";
import { checkDiffusionProcess, type GaussianProcess } from "../models/diffusion-process.js";
import { chainOf } from "../processes/gaussian.js";
import {
  corrupt,
  gaussianColumns,
  gaussianLoss,
  gaussianTable,
  isLearned,
  type ChainPrediction,
  type GaussianLossOptions,
  type GaussianTableOptions,
} from "../processes/gaussian-loss.js";
import {
  drawGaussianTimes,
  lossHistory,
  lossProbabilities,
  rememberLosses,
  type TimestepSampling,
} from "../processes/gaussian-timesteps.js";
import { weightingNames } from "../processes/gaussian-weighting.js";
import type { DenoiserProcess } from "./denoiser-process.js";
import { given } from "./given.js";
import type { BatchPlace } from "./task-trainer.js";
import type { RunMemory } from "./training-run.js";

/** As pipelines keep it; networks of the previous mean are trained, too. */
export type TrainedGaussian = Omit<GaussianProcess, "prediction"> & {
  /** Default "eps". */
  prediction?: ChainPrediction;
};

export interface GaussianTrainingOptions
  extends
    Pick<GaussianTableOptions, "weighting" | "gamma" | "k" | "sigmaData">,
    Pick<GaussianLossOptions, "boundFactor"> {
  /** Default "l2". */
  kind?: NonNullable<GaussianLossOptions["loss"]>;
  /** Default "uniform". */
  timesteps?: TimestepSampling;
}

const positive = optional(real(Number.MIN_VALUE, 1e9));

const lossRules: Readonly<Record<keyof GaussianTrainingOptions, Rule>> = {
  kind: optional(oneOf("l2", "l1", "bound")),
  timesteps: optional(oneOf("uniform", "loss-second-moment")),
  weighting: optional(oneOf(...weightingNames)),
  gamma: positive,
  k: positive,
  sigmaData: positive,
  boundFactor: optional(real(0, 1e9)),
};

function checkTraining(process: TrainedGaussian, options: GaussianTrainingOptions): void {
  const known = process.prediction === "previous" ? "eps" : process.prediction;
  checkDiffusionProcess("process", { ...process, prediction: known });
  checkFields("loss", options, lossRules);
  if (options.kind === "l1" && isLearned(process.variance ?? "fixedLarge"))
    throw new DiffusionError(
      "option",
      `loss: expected kind l2 or bound with learned variances, got l1`,
    );
}

/** Times of samples, drawn evenly or by the losses that they had. */
function timeDraws(T: number, isByLoss: boolean) {
  const uniform = new Float64Array(T).fill(1 / T);
  let history = lossHistory(T);
  const memory: RunMemory = {
    read: () => ({ losses: [...history.losses], counts: [...history.counts] }),
    write({ losses = [], counts = [] }) {
      history = { losses: Float64Array.from(losses), counts: Float64Array.from(counts) };
    },
  };
  const draw = (place: BatchPlace) => {
    const probabilities = isByLoss ? lossProbabilities(history) : uniform;
    const drawn = drawGaussianTimes(probabilities, place.uniform("times"));
    const observe = (losses: ArrayLike<number>): void =>
      void (history = rememberLosses(history, drawn.times, losses));
    return { ...drawn, ...(isByLoss && { observe }) };
  };
  return { draw, ...(isByLoss && { memory }) };
}

/** Throws "option" for settings that no step could use. */
export function gaussianProcess(
  process: TrainedGaussian,
  options: GaussianTrainingOptions = {},
): DenoiserProcess {
  checkTraining(process, options);
  const { kind: loss, timesteps } = options;
  const tableOptions: GaussianTableOptions = {
    ...given(options, "weighting", "gamma", "k", "sigmaData"),
    ...given(process, "prediction", "variance", "formulation"),
  };
  const chain = chainOf(process.chain);
  const T = chain.timesteps;
  gaussianTable(chain, [0, T - 1], tableOptions);
  const lossOptions: GaussianLossOptions = {
    ...given(process, "prediction", "variance"),
    ...given(options, "boundFactor"),
    ...(loss && { loss }),
  };
  const { draw, ...kept } = timeDraws(T, timesteps === "loss-second-moment");
  return {
    columns: gaussianColumns.length,
    ...kept,
    draw(place) {
      const { times, ...drawn } = draw(place);
      return {
        ...drawn,
        times: Float32Array.from(times, (t) => chain.times[t]!),
        table: gaussianTable(chain, times, tableOptions),
      };
    },
    corrupt: ({ x0, noise, table, pair }) => corrupt(x0, noise, table, pair),
    loss({ noise, ...tensors }) {
      const { perSample, error, bound } = gaussianLoss({ ...tensors, eps: noise }, lossOptions);
      return {
        perSample,
        metrics: { ...(error && { error: error.mean() }), ...(bound && { bound: bound.mean() }) },
      };
    },
  };
}
