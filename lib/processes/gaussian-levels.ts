// Levels of an affine-Gaussian process and how a network's output is read there. Every member of the
// family (DDPM, DiffuseVAE, residual shifting, EDM, flows) is x_t = a x0 + b y + c n, and every
// parameterisation is linear in (x_t, y, output), so both are plain numbers.
import { DiffusionError } from "../errors.js";

/** Time derivatives of the coefficients, for velocities. */
export interface Rates {
  a: number;
  b: number;
  c: number;
  /** The time that they refer to; default the level's own. */
  time?: number;
}

/** x = a x0 + b y + c n with y a paired image (b = 0: none). */
export interface Level {
  /** What the network is told: a timestep, a noise level or a time, in the network's convention. */
  readonly time: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  /**
   * Product of the chain's one-step signal multipliers up to here; default `a`. Decides the noise
   * of stochastic steps.
   */
  readonly carry?: number;
  /** Derivatives in the time that the network's velocity refers to; only velocities need them. */
  readonly rates?: Rates;
}

/** All levels of a process, for solvers that evaluate between those of a list. */
export interface LevelLine {
  /** The level with noise-to-signal ratio c / a. */
  ofRatio(ratio: number): Level;
  /** The level whose network is told this. */
  ofTime(time: number): Level;
}

/** Factors of (x, y, output) in a quantity. */
export type Mix = readonly [x: number, pair: number, output: number];

/** How the network is fed at a level, and what its output means there. */
export interface Reading {
  /** The network sees x times this. */
  inputScale: number;
  x0: Mix;
  eps: Mix;
}

export type Parameterisation = (level: Level) => Reading;

export type PredictionName = "eps" | "x0" | "v" | "score" | "velocity";

/** x - b y - a x0 over c: the noise that goes with a clean sample. */
const epsOf = ({ a, b, c }: Level, [x, pair, output]: Mix): Mix =>
  c === 0 ? [0, 0, 0] : [(1 - a * x) / c, (-b - a * pair) / c, (-a * output) / c];

/** x - b y - c eps over a: the clean sample that goes with a noise. */
const x0Of = ({ a, b, c, time }: Level, [x, pair, output]: Mix): Mix => {
  if (a === 0) {
    throw new DiffusionError(
      "option",
      `level at time ${time}: expected some signal, got a = 0; eps says nothing about x0 there: predict v or x0, or start at a lower level`,
    );
  }
  return [(1 - c * x) / a, (-b - c * pair) / a, (-c * output) / a];
};

const fromEps = (level: Level, eps: Mix): Reading => ({
  inputScale: 1,
  x0: x0Of(level, eps),
  eps,
});

const fromX0 = (level: Level, x0: Mix): Reading => ({ inputScale: 1, x0, eps: epsOf(level, x0) });

function fromVelocity(level: Level): Reading {
  const { a, b, c, rates, time } = level;
  if (!rates) {
    throw new DiffusionError(
      "option",
      `level at time ${time}: expected rates for a network that predicts velocities, got none`,
    );
  }
  const det = a * rates.c - rates.a * c;
  // x - b y = a x0 + c eps and velocity - b' y = a' x0 + c' eps
  return {
    inputScale: 1,
    x0: [rates.c / det, (c * rates.b - rates.c * b) / det, -c / det],
    eps: [-rates.a / det, (rates.a * b - a * rates.b) / det, a / det],
  };
}

/**
 * What a network's output means. v = a eps - c x0: Salimans & Ho 2022, arXiv:2202.00512, appendix D,
 * here for any a, c; score = -eps / c: Song et al. 2021, arXiv:2011.13456; velocity = dx/dt: Lipman
 * et al. 2023, arXiv:2210.02747.
 */
export const predictions: Readonly<Record<PredictionName, Parameterisation>> = {
  eps: (level) => fromEps(level, [0, 0, 1]),
  x0: (level) => fromX0(level, [0, 0, 1]),
  v: (level) => {
    const { a, b, c } = level;
    const square = a * a + c * c;
    return {
      inputScale: 1,
      x0: [a / square, (-a * b) / square, -c / square],
      eps: [c / square, (-c * b) / square, a / square],
    };
  },
  score: (level) => fromEps(level, [0, 0, -level.c]),
  velocity: fromVelocity,
};

/**
 * Preconditioning of Karras et al. 2022, arXiv:2206.00364, table 1, for sigma = c / a: x0 = c_skip
 * x/a + c_out F(c_in x/a). `sigmaData` is the deviation of the data, default 0.5.
 */
export const edmPreconditioning =
  ({ sigmaData = 0.5 } = {}): Parameterisation =>
  (level) => {
    const { a, b, c } = level;
    const sigma = c / a;
    const total = sigma * sigma + sigmaData * sigmaData;
    const skip = (sigmaData * sigmaData) / total;
    const out = (sigma * sigmaData) / Math.sqrt(total);
    return {
      ...fromX0(level, [skip / a, (-skip * b) / a, out]),
      inputScale: 1 / (a * Math.sqrt(total)),
    };
  };

/** The same reading with the network fed x times a factor. */
export const scaledInput =
  (reading: Parameterisation, scale: (level: Level) => number): Parameterisation =>
  (level) => ({ ...reading(level), inputScale: scale(level) });

/** Factor that brings x to unit variance for unit-variance data: 1 / sqrt(a² + c²). */
export const unitVariance = ({ a, c }: Level): number => 1 / Math.hypot(a, c);

/** Whether a² + c² = 1 up to the rounding of schedules. */
const keepsVariance = ({ a, c }: Level): boolean => Math.abs(a * a + c * c - 1) < 1e-6;

/** Deviation of the first state around b y: 1 where variance is preserved, else c. */
export const startDeviation = (level: Level): number => (keepsVariance(level) ? 1 : level.c);

/**
 * Deviation of x_s given x_t and x0 of the chain: c_s sqrt(1 - (A c_s / c_t)²), A = carry_t /
 * carry_s. For DDPM it is sqrt of Ho et al. 2020, arXiv:2006.11239, eq. 7.
 */
export function posteriorDeviation(from: Level, to: Level): number {
  if (to.c === 0 || from.c === 0) return 0;
  const carried = ((from.carry ?? from.a) / (to.carry ?? to.a)) * (to.c / from.c);
  return to.c * Math.sqrt(Math.max(0, 1 - carried * carried));
}
