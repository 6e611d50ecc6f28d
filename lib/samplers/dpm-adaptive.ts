// DPM-Solver with steps in log c / a whose size follows the difference of two orders. Source: Lu et al.
// 2022 (DPM-Solver), arXiv:2206.00927, section 3.4 and appendix C; the controller (proportional, integral,
// derivative) and the share of fresh noise as sample_dpm_adaptive of crowsonkb/k-diffusion.
import { checkOptions, DiffusionError } from "../errors.js";
import type { Level, LevelLine } from "../processes/gaussian-levels.js";
import { ancestralStep } from "../processes/sigmas.js";
import { adaptiveOptionNames, counted, errorNorm, moved } from "./adaptive.js";
import type { AdaptiveOptions, Slope } from "./adaptive.js";
import type { Floats } from "./continuous.js";
import { dpmStages } from "./dpm-solver-3s.js";
import type { DpmStage } from "./dpm-solver-3s.js";
import { checkWeights, ratioOf } from "./solver.js";

/** Tolerances are of x / a: `atol` 0.0078, for pixels in [-1, 1], and `rtol` 0.05 by default. */
export interface AdaptiveDpmOptions extends AdaptiveOptions {
  /** Of the steps; the error is the difference to one less. Default 3. */
  order?: 2 | 3;
  /** First step in log c / a; default 0.05. */
  firstStep?: number;
  /** Takes a step when the next one need not be smaller than this share of it; default 0.81. */
  safety?: number;
  /** Of the controller; default { proportional: 0, integral: 1, derivative: 0 }. */
  gains?: { proportional?: number; integral?: number; derivative?: number };
  /** Share of fresh noise; default 0. */
  eta?: number;
  /** Deviation of the fresh noise; default 1. */
  noiseScale?: number;
  /** Normal draws for the taken step of this number; needed with eta. */
  draw?: (taken: number) => Floats;
}

/** What an attempt at a step came to. */
export interface AdaptiveAttempt {
  /** From 0. */
  index: number;
  isTaken: boolean;
  /** Of the state after it: the same as before when it was not taken. */
  level: Level;
  x: Floats;
  /** Clean samples that the network saw at its start. */
  x0: Floats;
  /** Error over the tolerance. */
  error: number;
  /** Network evaluations so far. */
  evaluations: number;
}

/** Log c / a this near to the end counts as there. */
const kEnd = 1e-5;

/** Factor of the next step from the last three errors; growth and shrinking are gentle. */
function controller(order: number, { proportional = 0, integral = 1, derivative = 0 }) {
  const powers = [
    proportional + integral + derivative,
    -(proportional + 2 * derivative),
    derivative,
  ];
  let inverses: number[] | undefined;
  return (error: number, safety: number): { factor: number; isTaken: boolean } => {
    const inverse = 1 / (error + 1e-8);
    const [, before, earlier] = inverses ?? [inverse, inverse, inverse];
    const all = [inverse, before!, earlier!];
    const wanted = all.reduce((product, value, i) => product * value ** (powers[i]! / order), 1);
    const factor = 1 + Math.atan(wanted - 1);
    const isTaken = factor >= safety;
    inverses = isTaken ? [inverse, inverse, before!] : all;
    return { factor, isTaken };
  };
}

/** The state as z = x / a, and what the step before it came to by the lower order. */
interface State {
  level: Level;
  z: Floats;
  earlier: Floats;
}

/** Where an attempt goes: the deterministic part to c / a of `down`, then noise up to `next`. */
interface Target {
  next: Level;
  down: number;
  up: number;
}

type Settings = Required<Pick<AdaptiveDpmOptions, "order" | "atol" | "rtol" | "firstStep" | "safety" | "eta" | "noiseScale">>; // prettier-ignore

const scaledBy = (x: Floats, factor: number): Floats => moved(x, factor - 1, [1], [x]);

/** Both results of a step, of the higher and the lower order, and the first noise. */
async function bothOrders(
  noise: Slope,
  { level, z }: State,
  { down }: Target,
  { order, line }: { order: 2 | 3; line: LevelLine },
): Promise<{ first: Floats; high: Floats; low: Floats }> {
  const from = ratioOf(level);
  const stages = dpmStages(from, down, order);
  const lower = dpmStages(from, down, order === 3 ? 2 : 1, 1 / 3).at(-1)!;
  const first = await noise(scaledBy(z, level.a), level);
  const after = ({ first: weight, change }: DpmStage, newest: Floats): Floats =>
    moved(z, 1, [weight - change, change], [first, newest]);
  const slopes = [first];
  for (const [i, stage] of stages.slice(0, -1).entries()) {
    const middle = line.ofRatio(stage.ratio);
    slopes.push(await noise(scaledBy(after(stage, slopes[i]!), middle.a), middle));
  }
  return {
    first,
    high: after(stages.at(-1)!, slopes.at(-1)!),
    low: after(lower, slopes[order - 2]!),
  };
}

/** The next level, at most `to`, and how the way there is split. */
function targetOf(
  level: Level,
  to: Level,
  line: LevelLine,
  { size, eta }: { size: number; eta: number },
): Target {
  const [ratio, end] = [ratioOf(level), ratioOf(to)];
  const isFalling = end < ratio;
  const wanted = ratio * Math.exp(isFalling ? -size : size);
  const next = (isFalling ? wanted <= end : wanted >= end) ? to : line.ofRatio(wanted);
  const target = ratioOf(next);
  const down = eta > 0 ? Math.max(end, ancestralStep(ratio, target, eta).down) : target;
  return { next, down, up: Math.sqrt(Math.max(0, target ** 2 - down ** 2)) };
}

function checked(from: Level, to: Level, options: AdaptiveDpmOptions): Settings {
  const where = "adaptiveDpmSolver";
  checkOptions(where, options, [...adaptiveOptionNames, "order", "firstStep", "safety", "gains", "eta", "noiseScale", "draw"]); // prettier-ignore
  checkOptions(`${where}: gains`, options.gains ?? {}, ["proportional", "integral", "derivative"]);
  const { order = 3, atol = 0.0078, rtol = 0.05, firstStep = 0.05, safety = 0.81 } = options;
  const { eta = 0, noiseScale = 1, draw } = options;
  checkWeights(where, { atol, rtol, firstStep, safety, eta, noiseScale });
  const refuse = (what: string, got: unknown): never => {
    throw new DiffusionError("option", `${where}: expected ${what}, got ${String(got)}`);
  };
  if (![2, 3].includes(order)) refuse("order 2 or 3", order);
  if (!(firstStep > 0)) refuse("a first step above 0", firstStep);
  for (const { a, b, c, time } of [from, to])
    if (!(a > 0 && c > 0 && b === 0))
      refuse("levels with noise and signal and no pair", `a ${a}, b ${b}, c ${c} at time ${time}`);
  if (eta > 0 && !draw) refuse("draw, as eta adds noise", draw);
  if (eta > 0 && ratioOf(to) > ratioOf(from)) refuse("eta 0 towards noise", eta);
  return { order, atol, rtol, firstStep, safety, eta, noiseScale };
}

/**
 * Yields after each attempt at a step on the way between two levels with noise and signal and no pair;
 * the last one ends at `to`. `noise` gives the noise that the network sees (`networkNoise`). Throws
 * "numeric" when the evaluations run out.
 */
export async function* adaptiveDpmSolver(
  noise: Slope,
  start: Floats,
  { from, to, line }: { from: Level; to: Level; line: LevelLine },
  options: AdaptiveDpmOptions = {},
): AsyncGenerator<AdaptiveAttempt> {
  const { order, atol, rtol, firstStep, safety, eta, noiseScale } = checked(from, to, options);
  const { evaluate, count } = counted("adaptiveDpmSolver", noise, options);
  const control = controller(eta > 0 ? 1.5 : order, options.gains ?? {});
  const z = scaledBy(start, 1 / from.a);
  let state: State = { level: from, z, earlier: z };
  let [size, taken] = [firstStep, 0];
  for (let index = 0; Math.abs(Math.log(ratioOf(state.level) / ratioOf(to))) > kEnd; ++index) {
    const target = targetOf(state.level, to, line, { size, eta });
    const { first, high, low } = await bothOrders(evaluate, state, target, { order, line });
    const { earlier } = state;
    const tolerance = (i: number): number =>
      Math.max(atol, rtol * Math.max(Math.abs(low[i]!), Math.abs(earlier[i]!)));
    const error = errorNorm(moved(high, -1, [1], [low]), tolerance, options);
    const x0 = moved(state.z, -ratioOf(state.level), [1], [first]);
    const { factor, isTaken } = control(error, safety);
    size *= factor;
    if (isTaken) {
      const noisy =
        eta > 0 ? moved(high, target.up * noiseScale, [1], [options.draw!(taken)]) : high;
      state = { level: target.next, z: noisy, earlier: low };
      ++taken;
    }
    const { level } = state;
    yield { index, isTaken, level, x: scaledBy(state.z, level.a), x0, error, evaluations: count() };
  }
}
