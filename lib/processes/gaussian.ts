// A discrete Gaussian chain and every array derived from its betas, in float64, with the levels that
// samplers walk on. Sources: Ho et al. 2020, arXiv:2006.11239; Pandey et al. 2022, arXiv:2201.00308.
import { DiffusionError, checkOptions } from "../errors.js";
import type { Level } from "./gaussian-levels.js";
import { betaSchedules, zeroTerminalSnr } from "./gaussian-schedules.js";
import type { BetaScheduleName } from "./gaussian-schedules.js";

/** Entry i belongs to timestep i; i = 0 is the least noisy. */
export interface GaussianChain {
  readonly timesteps: number;
  /** What the network is told at each index. */
  readonly times: readonly number[];
  readonly betas: Float64Array;
  readonly alphaBars: Float64Array;
  /** alphaBar of the level before; 1 first. */
  readonly alphaBarsPrev: Float64Array;
  /** alphaBar of the level after; 0 last. */
  readonly alphaBarsNext: Float64Array;
  readonly sqrtAlphaBars: Float64Array;
  readonly sqrtOneMinusAlphaBars: Float64Array;
  readonly logOneMinusAlphaBars: Float64Array;
  /** sqrt(1 / alphaBar), sqrt(1 / alphaBar - 1). */
  readonly sqrtRecipAlphaBars: Float64Array;
  readonly sqrtRecipMinusOne: Float64Array;
  /** Of q(x_{t-1} | x_t, x0): arXiv:2006.11239, eq. 6 and 7. */
  readonly posteriorVariance: Float64Array;
  /** Its log, with entry 0, which would be -Infinity, replaced by entry 1. */
  readonly posteriorLogVariance: Float64Array;
  readonly posteriorMeanX0: Float64Array;
  readonly posteriorMeanXt: Float64Array;
}

function checkBetas(betas: readonly number[]): void {
  const at = betas.findIndex((beta) => !(beta > 0 && beta <= 1));
  if (betas.length > 0 && at < 0) return;
  throw new DiffusionError(
    "option",
    `gaussianChain: expected betas in (0, 1], got ${at < 0 ? "none" : `${betas[at]} at ${at}`}`,
  );
}

/** Chain of one-step variances; `times` is what the network is told, default the index. */
export function gaussianChain(
  betas: readonly number[] | Float64Array,
  times?: readonly number[],
): GaussianChain {
  const plain = Float64Array.from(betas);
  checkBetas([...plain]);
  const T = plain.length;
  let product = 1;
  const alphaBars = plain.map((beta) => (product *= 1 - beta));
  const before = (i: number): number => (i === 0 ? 1 : alphaBars[i - 1]!);
  const posteriorVariance = plain.map((beta, i) =>
    i === 0 ? 0 : (beta * (1 - before(i))) / (1 - alphaBars[i]!),
  );
  return {
    timesteps: T,
    times: times ?? Array.from({ length: T }, (_, i) => i),
    betas: plain,
    alphaBars,
    alphaBarsPrev: alphaBars.map((_, i) => before(i)),
    alphaBarsNext: alphaBars.map((_, i) => alphaBars[i + 1] ?? 0),
    sqrtAlphaBars: alphaBars.map(Math.sqrt),
    sqrtOneMinusAlphaBars: alphaBars.map((bar) => Math.sqrt(1 - bar)),
    logOneMinusAlphaBars: alphaBars.map((bar) => Math.log(1 - bar)),
    sqrtRecipAlphaBars: alphaBars.map((bar) => Math.sqrt(1 / bar)),
    sqrtRecipMinusOne: alphaBars.map((bar) => Math.sqrt(1 / bar - 1)),
    posteriorVariance,
    posteriorLogVariance: posteriorVariance.map((variance, i) =>
      Math.log(i === 0 ? (posteriorVariance[1] ?? plain[0]!) : variance),
    ),
    posteriorMeanX0: plain.map((beta, i) => (beta * Math.sqrt(before(i))) / (1 - alphaBars[i]!)),
    posteriorMeanXt: plain.map(
      (beta, i) => (Math.sqrt(1 - beta) * (1 - before(i))) / (1 - alphaBars[i]!),
    ),
  };
}

/**
 * Chain over some of the timesteps with the same alphaBars: Nichol & Dhariwal 2021,
 * arXiv:2102.09672, section 4. The network is told the original times.
 */
export function respacedChain(chain: GaussianChain, kept: readonly number[]): GaussianChain {
  const indices = [...new Set(kept)].sort((x, y) => x - y);
  const wrong = indices.find((i) => !Number.isInteger(i) || i < 0 || i >= chain.timesteps);
  if (indices.length === 0 || wrong !== undefined) {
    throw new DiffusionError(
      "option",
      `respacedChain: expected timesteps from 0 to ${chain.timesteps - 1}, got ${wrong ?? "none"}`,
    );
  }
  let last = 1;
  const betas = indices.map((i) => {
    const beta = 1 - chain.alphaBars[i]! / last;
    last = chain.alphaBars[i]!;
    return beta;
  });
  return gaussianChain(
    betas,
    indices.map((i) => chain.times[i]!),
  );
}

/** The same chain whose network is told times of a chain of 1000 steps ("rescale timesteps"). */
export const rescaledTimes = (
  chain: GaussianChain,
  timesteps = chain.timesteps,
): GaussianChain => ({
  ...chain,
  times: chain.times.map((time) => (time * 1000) / timesteps),
});

/** A chain as configurations hold it. */
export interface ChainOptions {
  timesteps: number;
  /** Default "linear". */
  schedule?: BetaScheduleName;
  /** First and last beta, for schedules that have them; defaults 1e-4 and 0.02. */
  first?: number;
  last?: number;
  /** Of "shifted-cosine", which needs it: a reference side over the side of the pictures. */
  shift?: number;
  /** Moves the schedule so that it ends in pure noise (arXiv:2305.08891); default false. */
  zeroTerminal?: boolean;
  /** Tells the network times of a chain of 1000 steps; default false. */
  rescaleTimes?: boolean;
}

/** Builds the chain of a configuration. Throws "option". */
export function chainOf(options: ChainOptions): GaussianChain {
  checkOptions("chain", options, [
    "timesteps", "schedule", "first", "last", "shift", "zeroTerminal", "rescaleTimes",
  ]); // prettier-ignore
  const { schedule = "linear", zeroTerminal = false, rescaleTimes = false, ...range } = options;
  const betasOf = betaSchedules[schedule];
  if (!betasOf) {
    const known = Object.keys(betaSchedules).join(", ");
    throw new DiffusionError("option", `chain: expected schedule of ${known}, got ${schedule}`);
  }
  const betas = betasOf(range);
  const chain = gaussianChain(zeroTerminal ? zeroTerminalSnr(betas) : betas);
  return rescaleTimes ? rescaledTimes(chain) : chain;
}

/**
 * How a paired image y acts. 1: on the network only, b = 0. 2: it shifts the whole chain, b = 1 at
 * every noisy level: arXiv:2201.00308, section 3.3 and appendix A.
 */
export type Formulation = 1 | 2;

/** Clean data, the end of every chain. */
export const cleanLevel: Level = { time: -1, a: 1, b: 0, c: 0 };

/** Level `index` of a chain; -1 is clean data, `timesteps` pure noise. */
export function chainLevel(
  chain: GaussianChain,
  index: number,
  formulation: Formulation = 1,
): Level {
  if (index === -1) return cleanLevel;
  const b = formulation - 1;
  if (index === chain.timesteps) return { time: chain.times[index - 1]!, a: 0, b, c: 1 };
  const a = chain.sqrtAlphaBars[index]!;
  const c = chain.sqrtOneMinusAlphaBars[index]!;
  // between timesteps ln(alphaBar) is linear: its slope is ln(1 - beta) a timestep
  const slope = 0.5 * Math.log(1 - chain.betas[index]!);
  const rates = a > 0 ? { rates: { a: a * slope, b: 0, c: (-a * a * slope) / c } } : {};
  return { time: chain.times[index]!, a, b, c, ...rates };
}

export interface ChainLevelsOptions {
  formulation?: Formulation;
  /** Number of levels from the low end, for truncated chains; default all. */
  count?: number;
}

/** All levels of a chain, noisiest first, and clean data. */
export function chainLevels(chain: GaussianChain, options: ChainLevelsOptions = {}): Level[] {
  const { formulation = 1, count = chain.timesteps } = options;
  if (!Number.isInteger(count) || count < 1 || count > chain.timesteps) {
    throw new DiffusionError(
      "option",
      `chainLevels: expected a count from 1 to ${chain.timesteps}, got ${count}`,
    );
  }
  const noisy = Array.from({ length: count }, (_, i) =>
    chainLevel(chain, i, formulation),
  ).reverse();
  return [...noisy, cleanLevel];
}
