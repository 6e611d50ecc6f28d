// What solvers with a step size of their own share: options, the network at a level, the norm of an
// error, and the count of evaluations.
import { DiffusionError, throwIfAborted } from "../errors.js";
import type { Level, Parameterisation } from "../processes/gaussian-levels.js";
import { coefficientRow } from "./continuous.js";
import type { Combination, ContinuousPlan, Floats, NamedInputs, RunEvaluation } from "./continuous.js"; // prettier-ignore
import { velocityOf } from "./flow.js";
import { slopeOf } from "./solver.js";

export interface AdaptiveOptions {
  /** Absolute tolerance. */
  atol?: number;
  /** Tolerance relative to the state. */
  rtol?: number;
  /** Norm of the error: over the whole batch (default), or the worst of its samples. */
  norm?: "batch" | "sample";
  /** Samples in the batch, for the norm of each; default 1. */
  batch?: number;
  /** Refuses to take more evaluations than this; default 10000. */
  maxEvaluations?: number;
  signal?: AbortSignal;
}

export const adaptiveOptionNames = ["atol", "rtol", "norm", "batch", "maxEvaluations", "signal"];

/** A slope at a level: dx/dt, or the noise that the network sees. */
export type Slope = (x: Floats, level: Level) => Promise<Floats>;

/** A plan of one evaluation for the step graph: slot 0 becomes what `after` says. */
const singlePlan = (level: Level, after: Combination): ContinuousPlan => ({
  slots: 1,
  first: level,
  steps: [{ t: level.time, s: level.time, evaluations: [{ level, after: [after] }] }],
});

/** Slot 0 becomes the velocity at a level, for `adaptiveFlow`. */
export const velocityPlan = (level: Level): ContinuousPlan =>
  singlePlan(level, velocityOf("adaptiveFlow", level));

/** Slot 0 becomes the noise at a level, for `adaptiveDpmSolver`. */
export const noisePlan = (level: Level): ContinuousPlan => singlePlan(level, slopeOf(level));

const networkSlope =
  (planOf: (level: Level) => ContinuousPlan) =>
  (
    run: RunEvaluation,
    given: { parameterisation: Parameterisation; batch: number; inputs?: NamedInputs },
  ): Slope =>
  async (x, level) => {
    const { parameterisation, batch, inputs } = given;
    const evaluation = planOf(level).steps[0]!.evaluations[0]!;
    const row = coefficientRow(evaluation, parameterisation, { slots: 1, before: false });
    const like = (values: readonly number[]): Floats =>
      x instanceof Float64Array ? Float64Array.from(values) : Float32Array.from(values);
    const rows = Array.from({ length: batch }, () => row).flat();
    const times = Array.from({ length: batch }, () => level.time);
    const step = { "slot.0": x, coefficients: like(rows), times: like(times), ...inputs };
    return (await run(step, { evaluation }))["slot.0"] as Floats;
  };

/** Velocity by a compiled graph of `velocityPlan`; `inputs` are those of the denoiser. */
export const networkVelocity = networkSlope(velocityPlan);

/** Noise by a compiled graph of `noisePlan`; `inputs` are those of the denoiser. */
export const networkNoise = networkSlope(noisePlan);

/** Counts evaluations; throws "aborted" by the signal and "numeric" when there are too many. */
export function counted(
  where: string,
  slope: Slope,
  { maxEvaluations = 10000, signal }: AdaptiveOptions,
): { evaluate: Slope; count: () => number } {
  let count = 0;
  const evaluate: Slope = (x, level) => {
    throwIfAborted(signal, where);
    if (++count <= maxEvaluations) return slope(x, level);
    throw new DiffusionError(
      "numeric",
      `${where}: expected to end within ${maxEvaluations} evaluations, got to time ${level.time}; raise atol or rtol`,
    );
  };
  return { evaluate, count: () => count };
}

/** x + dt times the sum of weights times slopes. */
export function moved(
  x: Floats,
  dt: number,
  weights: readonly number[],
  slopes: readonly Floats[],
): Floats {
  const out = x.slice();
  for (const [k, weight] of weights.entries()) {
    if (weight === 0) continue;
    const slope = slopes[k]!;
    for (let i = 0; i < out.length; ++i) out[i]! += dt * weight * slope[i]!;
  }
  return out;
}

/** Root mean square of values over their tolerance: of all, or the largest over the samples. */
export function errorNorm(
  values: Floats,
  tolerance: (i: number) => number,
  { norm = "batch", batch = 1 }: AdaptiveOptions,
): number {
  const parts = norm === "sample" ? batch : 1;
  const size = values.length / parts;
  let worst = 0;
  for (let part = 0; part < parts; ++part) {
    let total = 0;
    for (let i = part * size; i < (part + 1) * size; ++i) total += (values[i]! / tolerance(i)) ** 2;
    worst = Math.max(worst, Math.sqrt(total / size));
  }
  return worst;
}
