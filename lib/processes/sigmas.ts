// Noise levels of the variance-exploding form x = x0 + sigma noise, and the wrappers that turn a
// trained network into a denoiser of that form, as float64 numbers. Source: Karras et al. 2022 (EDM),
// arXiv:2206.00364, sections 3-5; names and constants of crowsonkb/k-diffusion.
import { DiffusionError } from "../errors.js";

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

/** Denoised estimate skip x + output net(input x, time). */
export interface Preconditioning {
  input: number;
  skip: number;
  output: number;
  /** What the network is told. */
  time: number;
}

/**
 * Network that was trained by the EDM recipe, arXiv:2206.00364, table 1. It is told sigma itself, as
 * crowsonkb/k-diffusion does (its networks take log(sigma) / 4 inside). sigmaData defaults to 1.
 */
export function karrasPreconditioning(sigma: number, sigmaData = 1): Preconditioning {
  const total = sigma ** 2 + sigmaData ** 2;
  return {
    input: 1 / Math.sqrt(total),
    skip: sigmaData ** 2 / total,
    output: (sigma * sigmaData) / Math.sqrt(total),
    time: sigma,
  };
}

/** Weights of the squared error of the normalised target, by crowsonkb/k-diffusion layers.py. */
export const denoiserWeights = {
  /** arXiv:2206.00364, table 1, once the target is normalised. */
  karras: () => 1,
  /** 4 snr / (snr + 1)^2 up to the factor 4: Crowson et al. 2024, arXiv:2401.11605, section 3. */
  "soft-min-snr": (sigma: number, sigmaData: number) =>
    (sigma * sigmaData) ** 2 / (sigma ** 2 + sigmaData ** 2) ** 2,
  snr: (sigma: number, sigmaData: number) => sigmaData ** 2 / (sigma ** 2 + sigmaData ** 2),
} as const;

export type DenoiserWeight = keyof typeof denoiserWeights;

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

  /** Every level, falling, then 0. */
  all(): number[] {
    return [...this.sigmas.toReversed(), 0];
  }

  /** Network that predicts the noise of the variance-preserving state. */
  epsPreconditioning(sigma: number, isQuantised = false): Preconditioning {
    return {
      input: 1 / Math.sqrt(sigma ** 2 + 1),
      skip: 1,
      output: -sigma,
      time: isQuantised ? this.nearestTime(sigma) : this.timeOf(sigma),
    };
  }

  /** Network that predicts v: Salimans and Ho 2022, arXiv:2202.00512, appendix D. */
  vPreconditioning(sigma: number, isQuantised = false): Preconditioning {
    const total = sigma ** 2 + 1;
    return {
      input: 1 / Math.sqrt(total),
      skip: 1 / total,
      output: -sigma / Math.sqrt(total),
      time: isQuantised ? this.nearestTime(sigma) : this.timeOf(sigma),
    };
  }
}
