// The probability flow by Dormand-Prince steps whose size follows an error estimate, with results at
// given levels by the method's continuous extension. Source: Dormand and Prince 1980; step control and
// first step of Hairer, Norsett, Wanner 1993, sections II.4 and II.6, with the constants of
// rtqichen/torchdiffeq, which willisma/SiT uses.
import { checkOptions, DiffusionError } from "../errors.js";
import type { Level, LevelLine, Parameterisation } from "../processes/gaussian-levels.js";
import { dormandPrince, dormandPrinceDense } from "./butcher.js";
import { coefficientRow } from "./continuous.js";
import type { ContinuousPlan, Floats, NamedInputs, RunEvaluation } from "./continuous.js";
import { timeStep, velocityOf } from "./flow.js";
import { throwIfAborted } from "./sampler.js";

export interface AdaptiveOptions {
  /** Absolute tolerance; default 1e-6. */
  atol?: number;
  /** Tolerance relative to the state; default 1e-3. */
  rtol?: number;
  /** Norm of the error: over the whole batch (default), or the worst of its samples. */
  norm?: "batch" | "sample";
  /** Samples in the batch, for the norm of each; default 1. */
  batch?: number;
  /** Refuses to take more evaluations than this; default 10000. */
  maxEvaluations?: number;
  signal?: AbortSignal;
}

/** dx/dt at a level. */
export type Velocity = (x: Floats, level: Level) => Promise<Floats>;

/** The state at one of the levels asked for. */
export interface AdaptivePoint {
  index: number;
  level: Level;
  x: Floats;
  /** Network evaluations so far. */
  evaluations: number;
}

const kSafety = 0.9;
const kShrinkMost = 0.2;
const kGrowMost = 10;

/** A plan of one evaluation for the step graph: slot 0 becomes the velocity at a level. */
export const velocityPlan = (level: Level): ContinuousPlan => ({
  slots: 1,
  first: level,
  steps: [
    {
      t: level.time,
      s: level.time,
      evaluations: [{ level, after: [velocityOf("adaptiveFlow", level)] }],
    },
  ],
});

/** Velocity by a compiled graph of `velocityPlan`; `inputs` are those of the denoiser. */
export const networkVelocity =
  (
    run: RunEvaluation,
    given: { parameterisation: Parameterisation; batch: number; inputs?: NamedInputs },
  ): Velocity =>
  async (x, level) => {
    const { parameterisation, batch, inputs } = given;
    const evaluation = velocityPlan(level).steps[0]!.evaluations[0]!;
    const row = coefficientRow(evaluation, parameterisation, { slots: 1, before: false });
    const like = (values: readonly number[]): Floats =>
      x instanceof Float64Array ? Float64Array.from(values) : Float32Array.from(values);
    const rows = Array.from({ length: batch }, () => row).flat();
    const times = Array.from({ length: batch }, () => level.time);
    const step = { "slot.0": x, coefficients: like(rows), times: like(times), ...inputs };
    return (await run(step, { evaluation }))["slot.0"] as Floats;
  };

/** x + dt sum of weights times slopes. */
function moved(
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
function errorNorm(
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

/** A step size for which an Euler step is sure to be fine: Hairer et al. 1993, section II.4. */
async function firstStep(
  velocity: Velocity,
  x: Floats,
  slope: Floats,
  direction: number,
  at: (offset: number) => Level,
  options: Required<Pick<AdaptiveOptions, "atol" | "rtol">> & AdaptiveOptions,
): Promise<number> {
  const { atol, rtol } = options;
  const tolerance = (i: number): number => atol + rtol * Math.abs(x[i]!);
  const d0 = errorNorm(x, tolerance, options);
  const d1 = errorNorm(slope, tolerance, options);
  const h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : (0.01 * d0) / d1;
  const later = await velocity(moved(x, direction * h0, [1], [slope]), at(direction * h0));
  const change = moved(later, -1, [1], [slope]);
  const d2 = errorNorm(change, tolerance, options) / h0;
  const largest = Math.max(d1, d2);
  const h1 =
    largest <= 1e-15 ? Math.max(1e-6, h0 * 1e-3) : (0.01 / largest) ** (1 / dormandPrince.order);
  return Math.min(100 * h0, h1);
}

/** The state within a step at share `s`: the continuous extension of order 4. */
function interpolated(
  from: Floats,
  to: Floats,
  dt: number,
  slopes: readonly Floats[],
  s: number,
): Floats {
  const [first, last] = [slopes[0]!, slopes.at(-1)!];
  const bend = moved(from.slice().fill(0), dt, dormandPrinceDense, slopes);
  const out = from.slice();
  for (let i = 0; i < out.length; ++i) {
    const rise = to[i]! - from[i]!;
    const early = dt * first[i]! - rise;
    const late = rise - dt * last[i]! - early;
    out[i] = from[i]! + s * (rise + (1 - s) * (early + s * (late + (1 - s) * bend[i]!)));
  }
  return out;
}

/**
 * Yields the state at each of the levels, the first as given. `line` gives the levels in between.
 * Throws "numeric" when a step becomes too small or the evaluations run out.
 */
export async function* adaptiveFlow(
  velocity: Velocity,
  start: Floats,
  { levels, line }: { levels: readonly Level[]; line: LevelLine },
  options: AdaptiveOptions = {},
): AsyncGenerator<AdaptivePoint> {
  checkOptions("adaptiveFlow", options, ["atol", "rtol", "norm", "batch", "maxEvaluations", "signal"]); // prettier-ignore
  const { atol = 1e-6, rtol = 1e-3, maxEvaluations = 10000, signal } = options;
  const [origin, end] = [levels[0]!, levels.at(-1)!];
  const span = timeStep("adaptiveFlow", origin, end);
  const direction = Math.sign(span);
  const perTime = (end.time - origin.time) / span;
  let evaluations = 0;
  const evaluate: Velocity = async (x, level) => {
    throwIfAborted(signal, "adaptiveFlow");
    if (++evaluations <= maxEvaluations) return velocity(x, level);
    throw new DiffusionError(
      "numeric",
      `adaptiveFlow: expected to end within ${maxEvaluations} evaluations, got to time ${level.time}; raise atol or rtol`,
    );
  };
  const levelAt = (time: number): Level => line.ofTime(origin.time + perTime * time);
  const offsets = levels.map((level) => timeStep("adaptiveFlow", origin, level));
  yield { index: 0, level: origin, x: start, evaluations };
  let x = start;
  let time = 0;
  let slope = await evaluate(x, origin);
  let size = await firstStep(evaluate, x, slope, direction, (offset) => levelAt(offset), { ...options, atol, rtol }); // prettier-ignore
  let index = 1;
  while (index < levels.length) {
    if (!(size > Math.abs(span) * 1e-12)) {
      throw new DiffusionError(
        "numeric",
        `adaptiveFlow: expected steps of a usable size, got ${size} at time ${levelAt(time).time}`,
      );
    }
    // beyond the end the network may be undefined: the last step is cut there
    const rest = Math.abs(span - time);
    const isLast = size >= rest;
    const dt = direction * (isLast ? rest : size);
    const slopes = [slope];
    for (const [k, weights] of dormandPrince.stages.entries()) {
      const place = dormandPrince.places[k + 1]!;
      const level = place === 1 && isLast ? end : levelAt(time + place * dt);
      slopes.push(await evaluate(moved(x, dt, weights, slopes), level));
    }
    const next = moved(x, dt, dormandPrince.weights, slopes);
    slopes.push(await evaluate(next, isLast ? end : levelAt(time + dt)));
    const error = moved(x.slice().fill(0), dt, dormandPrince.error, slopes);
    const from = x;
    const tolerance = (i: number): number =>
      atol + rtol * Math.max(Math.abs(from[i]!), Math.abs(next[i]!));
    const share = errorNorm(error, tolerance, options);
    if (share <= 1) {
      const reached = isLast ? span : time + dt;
      while (index < levels.length && direction * (offsets[index]! - reached) <= 0) {
        const s = (offsets[index]! - time) / dt;
        yield {
          index,
          level: levels[index]!,
          x: s === 1 ? next : interpolated(x, next, dt, slopes, s),
          evaluations,
        };
        ++index;
      }
      x = next;
      time = reached;
      slope = slopes.at(-1)!;
    }
    const factor = share === 0 ? kGrowMost : kSafety * share ** (-1 / dormandPrince.order);
    size = Math.abs(dt) * Math.min(kGrowMost, Math.max(share <= 1 ? 1 : kShrinkMost, factor));
  }
}
