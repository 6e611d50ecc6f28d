// Interpolants x_t = a(t) x0 + c(t) n between data (t = 0) and noise (t = 1): the paths as levels with
// rates, and the drift and diffusion that follow from them, in float64. Source: Albergo et al. 2023,
// arXiv:2303.08797; Ma et al. 2024 (SiT), arXiv:2401.08740. Velocity, score, noise and x0 of a level
// are `predictions` of gaussian-levels.ts.
import { checkChoice } from "../errors.js";
import type { Level, LevelLine, Rates } from "./gaussian-levels.js";

/** A path at one time, with the derivatives in the time of the network. */
export interface PathLevel extends Level {
  /** From data (0) to noise (1), whatever the network is told. */
  readonly t: number;
  readonly rates: Rates & { readonly time: number };
}

/** Coefficients and their derivatives in t. */
type Path = (t: number) => { a: number; c: number; aRate: number; cRate: number };

/** Noise rate of the VP path at t = 0 and t = 1, as in arXiv:2011.13456. */
const kBetaMin = 0.1;
const kBetaMax = 20;

/** Straight lines: Liu et al. 2022, arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747. */
const linear: Path = (t) => ({ a: 1 - t, c: t, aRate: -1, cRate: 1 });

/** Generalised variance preserving: a quarter of a circle, arXiv:2303.08797, section 4.2. */
const gvp: Path = (t) => {
  const turn = Math.PI / 2;
  // a sine, to be 0 at t = 1
  const [a, c] = [Math.sin(turn * (1 - t)), Math.sin(turn * t)];
  return { a, c, aRate: -turn * c, cRate: turn * a };
};

/** Keeps the rate of c finite at data, where that of the VP path is infinite. */
const kSmallest = 1e-6;

/** Variance preserving with a linear noise rate: Song et al. 2021, arXiv:2011.13456, eq. 33. */
const vp: Path = (t) => {
  const logA = (-(kBetaMax - kBetaMin) / 4) * t * t - (kBetaMin / 2) * t;
  const logRate = (-(kBetaMax - kBetaMin) / 2) * t - kBetaMin / 2;
  const a = Math.exp(logA);
  const c = Math.sqrt(-Math.expm1(2 * logA));
  return { a, c, aRate: a * logRate, cRate: (-a * a * logRate) / Math.max(c, kSmallest) };
};

const paths = { linear, gvp, vp } as const;

export type PathName = keyof typeof paths;

export const pathNames = Object.keys(paths) as PathName[];

/**
 * In which direction the time of the network runs: "noise" as in arXiv:2209.03003 and here (t), or
 * "data" as in willisma/SiT (1 - t).
 */
export type TimeTowards = "noise" | "data";

/**
 * The level of a path at t in [0, 1], 0 data; the network is told t, or 1 - t when its time runs
 * "towards" data. Throws "option" for an unknown path.
 */
export function pathLevel(path: PathName, t: number, towards: TimeTowards = "noise"): PathLevel {
  const at = paths[checkChoice("interpolant", "a path", path, pathNames)];
  const { a, c, aRate, cRate } = at(t);
  const time = towards === "noise" ? t : 1 - t;
  const sign = towards === "noise" ? 1 : -1;
  return { t, time, a, b: 0, c, rates: { time, a: sign * aRate, b: 0, c: sign * cRate } };
}

/** t of each path where c / a has a given value; infinite at pure noise. */
const timeOfRatio: Readonly<Record<PathName, (ratio: number) => number>> = {
  linear: (ratio) => (ratio === Infinity ? 1 : ratio / (1 + ratio)),
  gvp: (ratio) => Math.atan(ratio) / (Math.PI / 2),
  vp: (ratio) => {
    const slope = kBetaMax - kBetaMin;
    return (Math.sqrt(kBetaMin ** 2 + 2 * slope * Math.log1p(ratio * ratio)) - kBetaMin) / slope;
  },
};

/** Every level of a path. */
export const pathLine = (path: PathName, towards?: TimeTowards): LevelLine => ({
  ofRatio: (ratio) => pathLevel(path, timeOfRatio[path](ratio), towards),
  ofTime: (time) => pathLevel(path, towards === "data" ? 1 - time : time, towards),
});

/** Levels at `points` times evenly spread from `from` to `to`. */
export const pathLevels = (
  path: PathName,
  { points, from = 1, to = 0, towards }: PathGrid,
): PathLevel[] =>
  Array.from({ length: points }, (_, i) =>
    // the last is exact: almost clean data would not count as clean
    pathLevel(path, i === points - 1 ? to : from + ((to - from) * i) / (points - 1), towards),
  );

export interface PathGrid {
  /** One more than the steps. */
  points: number;
  /** First t; default 1, noise. */
  from?: number;
  /** Last t; default 0, data. */
  to?: number;
  towards?: TimeTowards;
}

/** a c' - a' c: how fast the path turns; the sign is that of the time's direction. */
const turning = ({ a, c, rates }: PathLevel): number => a * rates.c - rates.a * c;

/** f of the equation dx = f x dt + sqrt(2 g) dW that turns data into noise: a' / a, t running to noise. */
export const forwardDrift = ({ a, rates }: PathLevel): number => -Math.abs(rates.a / a);

/**
 * g of that equation, half the variance added per unit of time: c c' - c² a' / a;
 * arXiv:2401.08740, eq. 7.
 */
export const forwardVariance = (level: PathLevel): number =>
  (level.c * Math.abs(turning(level))) / level.a;

/**
 * Diffusion D(t) >= 0 of the equation that turns noise into data, velocity + D score: every choice
 * has the same marginals. arXiv:2401.08740, section 3.4 (there w = 2 D); constants of willisma/SiT
 * transport/path.py.
 */
const diffusions = {
  constant: (_: PathLevel, norm: number) => norm,
  sbdm: (level: PathLevel, norm: number) => norm * forwardVariance(level),
  sigma: ({ c }: PathLevel, norm: number) => norm * c,
  linear: ({ t }: PathLevel, norm: number) => norm * t,
  decreasing: ({ t }: PathLevel, norm: number) => 0.25 * (1 - norm * Math.cos(Math.PI * t)) ** 2,
  "increasing-decreasing": ({ t }: PathLevel, norm: number) => norm * Math.sin(Math.PI * t) ** 2,
} as const;

export type DiffusionForm = keyof typeof diffusions;

export const diffusionForms = Object.keys(diffusions) as DiffusionForm[];

/** D of a form; `norm` scales it, default 1. Throws "option" for an unknown form. */
export const diffusionAt = (form: DiffusionForm, level: PathLevel, norm = 1): number =>
  diffusions[checkChoice("interpolant", "a diffusion form", form, diffusionForms)](level, norm);
