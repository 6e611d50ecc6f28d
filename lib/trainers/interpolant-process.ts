// Training on an interpolant between data and noise: linear, generalised or variance-preserving paths; velocity, score or
// noise; uniform or logit-normal times. Sources: Ma et al. 2024 (SiT), arXiv:2401.08740; times: Esser et al. 2024,
// arXiv:2403.03206, section 3.1, and Wang et al. 2024 (FiTv2), arXiv:2410.13925.
import { checkFields, oneOf, optional, real, type Rule } from "../models/check-config.js";
import { checkDiffusionProcess, type InterpolantProcess } from "../models/diffusion-process.js";
import { pathLevel } from "../processes/interpolant.js";
import {
  interpolate,
  transportCoefficients,
  transportColumns,
  transportLoss,
  transportTable,
  type TransportWeight,
} from "../processes/interpolant-loss.js";
import { defaultEpsilons, timeRange } from "../processes/path-range.js";
import type { DenoiserProcess } from "./denoiser-process.js";
import type { BatchPlace } from "./task-trainer.js";

export interface InterpolantLossOptions {
  /** Of the squared error of scores and noises; default "none". */
  weight?: TransportWeight;
  /** How times are drawn: uniform (SiT, default), or more often in the middle (FiTv2). */
  timesteps?: "uniform" | "logit-normal";
  /** Of log(t / (1 - t)), t running to noise, for logit-normal times; default 0: a positive one draws more noise. */
  mean?: number;
  /** Default 1. */
  deviation?: number;
  /** How far times stay away from singular ends; default as SiT's. */
  epsilon?: number;
}

const lossRules: Readonly<Record<keyof InterpolantLossOptions, Rule>> = {
  weight: optional(oneOf("none", "velocity", "likelihood")),
  timesteps: optional(oneOf("uniform", "logit-normal")),
  mean: optional(real(-100, 100)),
  deviation: optional(real(1e-6, 100)),
  epsilon: optional(real(0, 0.5)),
};

/** Times in (0, 1) of a batch. */
function drawTimes(place: BatchPlace, options: InterpolantLossOptions): Float64Array {
  const { timesteps = "uniform", mean = 0, deviation = 1 } = options;
  if (timesteps === "uniform") return place.uniform("times");
  return place.normal("times").map((n) => 1 / (1 + Math.exp(-(mean + deviation * n))));
}

/** Throws "option" for settings that no step could use. */
export function interpolantProcess(
  process: InterpolantProcess,
  options: InterpolantLossOptions = {},
): DenoiserProcess {
  checkDiffusionProcess("process", process);
  checkFields("loss", options, lossRules);
  const { path, prediction = "velocity", towards = "data" } = process;
  const { weight = "none", epsilon = defaultEpsilons(path, prediction).train } = options;
  const { low, high } = timeRange(path, prediction, epsilon);
  return {
    columns: transportColumns.length,
    draw(place) {
      const times = drawTimes(place, options);
      const levels = Array.from(times, (t) => pathLevel(path, low + (high - low) * t, towards));
      return {
        times: Float32Array.from(levels, ({ time }) => time),
        table: transportTable({ prediction, weight }, levels),
        weights: new Float32Array(times.length).fill(1),
      };
    },
    corrupt: ({ x0, noise, table }) =>
      interpolate(x0, noise, transportCoefficients(table, x0.rank)),
    loss({ x0, noise, table, output: predicted }) {
      const coefficients = transportCoefficients(table, x0.rank);
      return transportLoss(prediction, { predicted, x0, noise, coefficients });
    },
  };
}
