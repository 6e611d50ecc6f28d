// Noise levels of the variance-exploding form x = x0 + sigma n: grids, ancestral steps, and the levels
// of networks that were trained on discrete timesteps, in float64. Source: Karras et al. 2022 (EDM),
// arXiv:2206.00364, sections 3-5; names and constants of crowsonkb/k-diffusion.
import { DiffusionError } from "../errors.js";
import type { Level, LevelLine } from "./gaussian-levels.js";

/** Lowest and highest level of a grid. */
export interface SigmaRange {
  min: number;
  max: number;
}

function checkGrid(where: string, steps: number, { min, max }: SigmaRange): void {
  if (!Number.isInteger(steps) || steps < 1)
    throw new DiffusionError("option", `${where}: expected steps to be at least 1, got ${steps}`);
  if (!(min > 0 && max >= min))
    throw new DiffusionError("option", `${where}: expected 0 < min <= max, got ${min} and ${max}`);
}

/** `steps` numbers from 0 to 1. */
const ramp = (steps: number): number[] =>
  Array.from({ length: steps }, (_, i) => (steps === 1 ? 0 : i / (steps - 1)));

/** Evenly spread in sigma^(1/rho), then 0: arXiv:2206.00364, eq. 5. rho defaults to 7. */
export function karrasSigmas(steps: number, range: SigmaRange, rho = 7): number[] {
  checkGrid("karrasSigmas", steps, range);
  const [low, high] = [range.min ** (1 / rho), range.max ** (1 / rho)];
  return [...ramp(steps).map((u) => (high + u * (low - high)) ** rho), 0];
}

/** Evenly spread in log sigma, then 0. */
export const exponentialSigmas = (steps: number, range: SigmaRange): number[] =>
  polyexponentialSigmas(steps, range);

/** log sigma follows (1 - u)^rho, then 0. rho defaults to 1: exponential. */
export function polyexponentialSigmas(steps: number, range: SigmaRange, rho = 1): number[] {
  checkGrid("polyexponentialSigmas", steps, range);
  const [low, high] = [Math.log(range.min), Math.log(range.max)];
  return [...ramp(steps).map((u) => Math.exp((1 - u) ** rho * (high - low) + low)), 0];
}

/**
 * Levels of the continuous VP process with linear noise rate, t from 1 to `end`, then 0: Song et al.
 * 2021, arXiv:2011.13456, eq. 33. Defaults 19.9, 0.1, 1e-3.
 */
export function vpSigmas(
  steps: number,
  {
    betaD = 19.9,
    betaMin = 0.1,
    end = 1e-3,
  }: { betaD?: number; betaMin?: number; end?: number } = {},
): number[] {
  checkGrid("vpSigmas", steps, { min: end, max: 1 });
  const sigmaAt = (t: number): number => Math.sqrt(Math.expm1((betaD * t * t) / 2 + betaMin * t));
  return [...ramp(steps).map((u) => sigmaAt(1 + u * (end - 1))), 0];
}

/** A deterministic step to `down` and fresh noise of scale `up`, together as noisy as the target. */
export interface AncestralStep {
  down: number;
  up: number;
}

/** down^2 + up^2 = to^2; eta 0 is deterministic, 1 (default) the reverse diffusion. */
export function ancestralStep(from: number, to: number, eta = 1): AncestralStep {
  if (from <= 0) return { down: to, up: 0 };
  const full = Math.sqrt(Math.max(0, to ** 2 * (1 - (to / from) ** 2)));
  const up = Math.min(to, eta * full);
  return { down: Math.sqrt(to ** 2 - up ** 2), up };
}

/** The variance-exploding level x = x0 + sigma n of a network that is told sigma. */
export const sigmaLevel = (sigma: number): Level => ({ time: sigma, a: 1, b: 0, c: sigma });

/** Every level of the variance-exploding form. */
export const sigmaLine: LevelLine = { ofRatio: sigmaLevel, ofTime: sigmaLevel };

/** Levels of a network trained on T discrete timesteps, as sigma = sqrt((1 - abar) / abar). */
export class DiscreteSigmas {
  /** Rising with the timestep. */
  readonly sigmas: readonly number[];
  readonly #logs: readonly number[];

  constructor(alphaBars: ArrayLike<number>) {
    this.sigmas = Array.from(alphaBars, (abar) => Math.sqrt((1 - abar) / abar));
    this.#logs = this.sigmas.map(Math.log);
    if (this.sigmas.length < 2)
      throw new DiffusionError(
        "option",
        `DiscreteSigmas: expected at least 2 timesteps, got ${this.sigmas.length}`,
      );
  }

  /** Timestep whose log level is nearest. */
  nearestTime(sigma: number): number {
    const distances = this.#logs.map((log) => Math.abs(Math.log(sigma) - log));
    return distances.indexOf(Math.min(...distances));
  }

  /** Timestep by linear interpolation in log sigma, within 0 … T - 1. */
  timeOf(sigma: number): number {
    const log = Math.log(sigma);
    const last = this.#logs.findLastIndex((level) => level <= log);
    const low = Math.min(Math.max(last, 0), this.#logs.length - 2);
    const [from, to] = [this.#logs[low]!, this.#logs[low + 1]!];
    return low + Math.min(1, Math.max(0, (log - from) / (to - from)));
  }

  /** Level of a timestep that need not be whole. */
  sigmaOf(time: number): number {
    const low = Math.floor(time);
    const share = time - low;
    const [from, to] = [this.#logs[low]!, this.#logs[Math.ceil(time)]!];
    return Math.exp((1 - share) * from + share * to);
  }

  /** Levels at `steps` evenly spread timesteps from T - 1 to 0, then 0. */
  spread(steps: number): number[] {
    checkGrid("DiscreteSigmas", steps, { min: 1, max: 1 });
    const last = this.sigmas.length - 1;
    return [...ramp(steps).map((u) => this.sigmaOf(last * (1 - u))), 0];
  }

  /**
   * The variance-preserving level with c / a = sigma: what the network saw in training. A state of the
   * exploding form is divided by sqrt(1 + sigma²) to be read there.
   */
  level(sigma: number, isQuantised = false): Level {
    const a = 1 / Math.hypot(1, sigma);
    const time = sigma === 0 ? 0 : isQuantised ? this.nearestTime(sigma) : this.timeOf(sigma);
    return { time, a, b: 0, c: sigma === Infinity ? 1 : sigma * a };
  }
}
