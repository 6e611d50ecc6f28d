// Interpolants x_t = alpha(t) x0 + sigma(t) noise between data (t = 0) and noise (t = 1): the paths,
// and what follows from them for velocity, score, noise, drift and diffusion, as float64 numbers.
// Source: Albergo et al. 2023, arXiv:2303.08797; Ma et al. 2024 (SiT), arXiv:2401.08740.
// Differs: willisma/SiT runs t from noise (0) to data (1); `fromSitTime` converts at the edge.
import { checkChoice } from "../errors.js";

/** A path at one time. */
export interface PathPoint {
  /** From data (0) to noise (1). */
  t: number;
  alpha: number;
  sigma: number;
  /** d alpha / dt, at most 0. */
  dAlpha: number;
  /** d sigma / dt, at least 0. */
  dSigma: number;
}

/** Noise rate of the VP path at t = 0 and t = 1, as in arXiv:2011.13456. */
const kBetaMin = 0.1;
const kBetaMax = 20;

/** alpha = 1 - t, sigma = t: Liu et al. 2022, arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747. */
const linear = (t: number): PathPoint => ({ t, alpha: 1 - t, sigma: t, dAlpha: -1, dSigma: 1 });

/** Generalised variance preserving: a quarter circle, arXiv:2303.08797, section 4.2. */
function gvp(t: number): PathPoint {
  const angle = (Math.PI / 2) * t;
  const [alpha, sigma] = [Math.cos(angle), Math.sin(angle)];
  return { t, alpha, sigma, dAlpha: (-Math.PI / 2) * sigma, dSigma: (Math.PI / 2) * alpha };
}

/** Variance preserving with linear noise rate: Song et al. 2021, arXiv:2011.13456, eq. 33. */
function vp(t: number): PathPoint {
  const logAlpha = (-(kBetaMax - kBetaMin) / 4) * t * t - (kBetaMin / 2) * t;
  const dLogAlpha = (-(kBetaMax - kBetaMin) / 2) * t - kBetaMin / 2;
  const alpha = Math.exp(logAlpha);
  const sigma = Math.sqrt(-Math.expm1(2 * logAlpha));
  return {
    t,
    alpha,
    sigma,
    dAlpha: alpha * dLogAlpha,
    dSigma: (-alpha * alpha * dLogAlpha) / sigma,
  };
}

const paths = { linear, gvp, vp } as const;

export type PathName = keyof typeof paths;

export const pathNames = Object.keys(paths) as PathName[];

/** The point of a path at time t in [0, 1]. Throws "option" for an unknown path. */
export const pathPoint = (path: PathName, t: number): PathPoint =>
  paths[checkChoice("interpolant", "a path", path, pathNames)](t);

/** Same point, told in the time of willisma/SiT: 0 is noise, 1 is data. */
export const fromSitTime = (path: PathName, sitTime: number): PathPoint =>
  pathPoint(path, 1 - sitTime);

/** Weights of the state and of a prediction: `x` xt + `prediction` pred. */
export interface Affine {
  x: number;
  prediction: number;
}

/** alpha sigma' - alpha' sigma: the rate at which the path turns from data to noise; positive. */
export const turning = ({ alpha, sigma, dAlpha, dSigma }: PathPoint): number =>
  alpha * dSigma - dAlpha * sigma;

/** f of the forward equation dx = f x dt + sqrt(2 g) dW, alpha' / alpha. */
export const forwardDrift = ({ alpha, dAlpha }: PathPoint): number => dAlpha / alpha;

/**
 * g of the forward equation: half the variance added per unit of time; arXiv:2401.08740, eq. 7 in
 * our time. g = sigma sigma' - sigma^2 alpha' / alpha.
 */
export const forwardVariance = (p: PathPoint): number => (p.sigma * turning(p)) / p.alpha;

/** What a network of an interpolant may predict. */
export type PathPrediction = "velocity" | "score" | "noise" | "x0";

type Conversions = Readonly<Record<PathPrediction, (p: PathPoint) => Affine>>;

/**
 * dx/dt from each prediction: velocity = alpha' x0 + sigma' noise; arXiv:2401.08740, eq. 4 and
 * appendix A.
 */
export const toVelocity: Conversions = {
  velocity: () => ({ x: 0, prediction: 1 }),
  score: (p) => ({ x: forwardDrift(p), prediction: -forwardVariance(p) }),
  noise: (p) => ({ x: forwardDrift(p), prediction: turning(p) / p.alpha }),
  x0: (p) => ({ x: p.dSigma / p.sigma, prediction: -turning(p) / p.sigma }),
};

/** E[noise | xt] from each prediction; regular at alpha = 0 for a velocity. */
export const toNoise: Conversions = {
  velocity: (p) => ({ x: -p.dAlpha / turning(p), prediction: p.alpha / turning(p) }),
  score: (p) => ({ x: 0, prediction: -p.sigma }),
  noise: () => ({ x: 0, prediction: 1 }),
  x0: (p) => ({ x: 1 / p.sigma, prediction: -p.alpha / p.sigma }),
};

/** grad log p(xt) = -E[noise | xt] / sigma. */
export function toScore(prediction: PathPrediction, p: PathPoint): Affine {
  if (prediction === "score") return { x: 0, prediction: 1 };
  const noise = toNoise[prediction](p);
  return { x: -noise.x / p.sigma, prediction: -noise.prediction / p.sigma };
}

/** E[x0 | xt] from each prediction; regular at sigma = 0. */
export const toX0: Conversions = {
  velocity: (p) => ({ x: p.dSigma / turning(p), prediction: -p.sigma / turning(p) }),
  score: (p) => ({ x: 1 / p.alpha, prediction: (p.sigma * p.sigma) / p.alpha }),
  noise: (p) => ({ x: 1 / p.alpha, prediction: -p.sigma / p.alpha }),
  x0: () => ({ x: 0, prediction: 1 }),
};

/**
 * Diffusion D(t) >= 0 of the reverse equation dx = (velocity - D score) dt + sqrt(2 D) dW (backwards
 * in t): every choice has the same marginals. arXiv:2401.08740, section 3.4 (there w = 2 D); names
 * and constants of willisma/SiT transport/path.py.
 */
const diffusionForms = {
  constant: (_: PathPoint, norm: number) => norm,
  sbdm: (p: PathPoint, norm: number) => norm * forwardVariance(p),
  sigma: (p: PathPoint, norm: number) => norm * p.sigma,
  linear: (p: PathPoint, norm: number) => norm * p.t,
  decreasing: (p: PathPoint, norm: number) => 0.25 * (1 - norm * Math.cos(Math.PI * p.t)) ** 2,
  "increasing-decreasing": (p: PathPoint, norm: number) => norm * Math.sin(Math.PI * p.t) ** 2,
} as const;

export type DiffusionForm = keyof typeof diffusionForms;

export const diffusionFormNames = Object.keys(diffusionForms) as DiffusionForm[];

/** D of a form at a point; `norm` scales it, default 1. Throws "option" for an unknown form. */
export const diffusionAt = (form: DiffusionForm, point: PathPoint, norm = 1): number =>
  diffusionForms[checkChoice("interpolant", "a diffusion form", form, diffusionFormNames)](
    point,
    norm,
  );
