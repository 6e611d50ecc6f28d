// The probability flow by Runge-Kutta steps whose size follows an error estimate, with results at given
// levels by a quartic through each step. Source: Dormand and Prince 1980 and others (butcher.ts); step
// control and first step of Hairer, Norsett, Wanner 1993, sections II.4 and II.6, with the constants of
// rtqichen/torchdiffeq, which willisma/SiT uses.
import { checkChoice, checkOptions, DiffusionError } from "../errors.js";
import type { Level, LevelLine } from "../processes/gaussian-levels.js";
import { adaptiveOptionNames, counted, errorNorm, moved } from "./adaptive.js";
import type { AdaptiveOptions, Slope } from "./adaptive.js";
import { adaptiveMethods } from "./butcher.js";
import type { AdaptiveMethod, EmbeddedTable } from "./butcher.js";
import type { Floats } from "./continuous.js";
import { timeStep } from "./flow.js";

/** `atol` is 1e-6 and `rtol` 1e-3 by default. */
export interface AdaptiveFlowOptions extends AdaptiveOptions {
  /** Default "dopri5". */
  method?: AdaptiveMethod;
}

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

/** The flow in signed time from the first level. */
interface Flow {
  velocity: Slope;
  levelAt: (time: number) => Level;
  end: { time: number; level: Level };
  table: EmbeddedTable;
  options: AdaptiveOptions & { atol: number; rtol: number };
}

/** A step size for which an Euler step is sure to be fine: Hairer et al. 1993, section II.4. */
async function firstStep(x: Floats, slope: Floats, flow: Flow): Promise<number> {
  const { velocity, levelAt, end, table, options } = flow;
  const { atol, rtol } = options;
  const direction = Math.sign(end.time);
  const tolerance = (i: number): number => atol + rtol * Math.abs(x[i]!);
  const d0 = errorNorm(x, tolerance, options);
  const d1 = errorNorm(slope, tolerance, options);
  const h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : (0.01 * d0) / d1;
  const later = await velocity(moved(x, direction * h0, [1], [slope]), levelAt(direction * h0));
  const change = moved(later, -1, [1], [slope]);
  const d2 = errorNorm(change, tolerance, options) / h0;
  const largest = Math.max(d1, d2);
  const h1 = largest <= 1e-15 ? Math.max(1e-6, h0 * 1e-3) : (0.01 / largest) ** (1 / table.order);
  return Math.min(100 * h0, h1);
}

interface TakenStep {
  from: Floats;
  to: Floats;
  time: number;
  dt: number;
  slopes: readonly Floats[];
  /** Error over the tolerance. */
  share: number;
}

/** One step; beyond the end the network may be undefined, so the last step is cut there. */
async function takeStep(
  from: Floats,
  slope: Floats,
  { time, size }: { time: number; size: number },
  { velocity, levelAt, end, table, options }: Flow,
): Promise<TakenStep> {
  const rest = end.time - time;
  const isLast = size >= Math.abs(rest);
  const dt = isLast ? rest : Math.sign(end.time) * size;
  const at = (place: number): Level =>
    place === 1 && isLast ? end.level : levelAt(time + place * dt);
  const slopes = [slope];
  for (const [k, weights] of table.stages.entries())
    slopes.push(await velocity(moved(from, dt, weights, slopes), at(table.places[k + 1]!)));
  const to = moved(from, dt, table.weights, slopes);
  if (table.error.length > slopes.length) slopes.push(await velocity(to, at(1)));
  const error = moved(from.slice().fill(0), dt, table.error, slopes);
  const { atol, rtol } = options;
  const tolerance = (i: number): number =>
    atol + rtol * Math.max(Math.abs(from[i]!), Math.abs(to[i]!));
  return { from, to, time, dt, slopes, share: errorNorm(error, tolerance, options) };
}

/** The state at a share of a step: the quartic through both ends, their slopes and the middle. */
function interpolated(
  { from, to, dt, slopes }: TakenStep,
  share: number,
  middle: readonly number[],
) {
  if (share === 1) return to;
  const [first, last] = [slopes[0]!, slopes.at(-1)!];
  const out = moved(from, dt, middle, slopes);
  for (let i = 0; i < out.length; ++i) {
    const rise = to[i]! - from[i]!;
    const early = dt * first[i]! - rise;
    const late = rise - dt * last[i]! - early;
    const bend = 16 * (out[i]! - from[i]! - rise / 2) - 4 * early - 2 * late;
    out[i] =
      from[i]! + share * (rise + (1 - share) * (early + share * (late + (1 - share) * bend)));
  }
  return out;
}

/** Size of the next step: 0.9 of what the error allows, never smaller after a step that was taken. */
function nextSize({ dt, share }: TakenStep, order: number): number {
  const factor = share === 0 ? kGrowMost : kSafety * share ** (-1 / order);
  return Math.abs(dt) * Math.min(kGrowMost, Math.max(share <= 1 ? 1 : kShrinkMost, factor));
}

/**
 * Yields the state at each of the levels, the first as given. `line` gives the levels in between.
 * Throws "numeric" when a step becomes too small or the evaluations run out.
 */
export async function* adaptiveFlow(
  velocity: Slope,
  start: Floats,
  { levels, line }: { levels: readonly Level[]; line: LevelLine },
  options: AdaptiveFlowOptions = {},
): AsyncGenerator<AdaptivePoint> {
  const where = "adaptiveFlow";
  checkOptions(where, options, [...adaptiveOptionNames, "method"]);
  const { method = "dopri5", atol = 1e-6, rtol = 1e-3 } = options;
  const names = Object.keys(adaptiveMethods) as AdaptiveMethod[];
  const table: EmbeddedTable = adaptiveMethods[checkChoice(where, "a method", method, names)];
  const [origin, level] = [levels[0]!, levels.at(-1)!];
  const end = { time: timeStep(where, origin, level), level };
  const perTime = (level.time - origin.time) / end.time;
  const levelAt = (time: number): Level => line.ofTime(origin.time + perTime * time);
  const { evaluate, count } = counted(where, velocity, options);
  const flow: Flow = {
    velocity: evaluate,
    levelAt,
    end,
    table,
    options: { ...options, atol, rtol },
  };
  const offsets = levels.map((other) => timeStep(where, origin, other));
  yield { index: 0, level: origin, x: start, evaluations: count() };
  let [x, time] = [start, 0];
  let slope = await evaluate(x, origin);
  let size = await firstStep(x, slope, flow);
  let index = 1;
  while (index < levels.length) {
    if (!(size > Math.abs(end.time) * 1e-12)) {
      throw new DiffusionError(
        "numeric",
        `${where}: expected steps of a usable size, got ${size} at time ${levelAt(time).time}`,
      );
    }
    const step = await takeStep(x, slope, { time, size }, flow);
    size = nextSize(step, table.order);
    if (step.share > 1) continue;
    const reached = step.dt === end.time - time ? end.time : time + step.dt;
    for (; index < levels.length; ++index) {
      if (Math.sign(end.time) * (offsets[index]! - reached) > 0) break;
      const share = (offsets[index]! - time) / step.dt;
      const state = interpolated(step, share, table.middle);
      yield { index, level: levels[index]!, x: state, evaluations: count() };
    }
    [x, time, slope] = [step.to, reached, step.slopes.at(-1)!];
  }
}
