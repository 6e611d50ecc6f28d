// Noise schedules of Gaussian chains, all in float64: one-step variances beta_t, or cumulative
// signal powers alphaBar as a function of time in [0, 1], from data to noise.
import { DiffusionError, checkOptions } from "../errors.js";

/** Largest beta of schedules that reach pure noise. */
const kLargestBeta = 0.999;

function checkLength(where: string, timesteps: number): void {
  if (Number.isInteger(timesteps) && timesteps >= 1) return;
  throw new DiffusionError("option", `${where}: expected timesteps >= 1, got ${timesteps}`);
}

/** `count` numbers from `first` to `last`, both included, with the roundings of NumPy. */
export function linspace(first: number, last: number, count: number): number[] {
  const step = count === 1 ? 0 : (last - first) / (count - 1);
  return Array.from({ length: count }, (_, i) =>
    i > 0 && i === count - 1 ? last : i * step + first,
  );
}

/**
 * linspace in float32 as PyTorch computes it: each half counts from its own end. DiffuseVAE's betas
 * carry these roundings.
 */
export function linspace32(first: number, last: number, count: number): number[] {
  const f = Math.fround;
  const step = count === 1 ? 0 : f(f(f(last) - f(first)) / (count - 1));
  return Array.from({ length: count }, (_, i) =>
    i < count / 2 ? f(f(first) + f(step * i)) : f(f(last) - f(step * (count - 1 - i))),
  );
}

export interface BetaRange {
  timesteps: number;
  /** Default 1e-4. */
  first?: number;
  /** Default 0.02. */
  last?: number;
  /** Of the shifted cosine alone, which needs it: a reference side over the side of the pictures. */
  shift?: number;
}

const range = (where: string, options: BetaRange): Required<Omit<BetaRange, "shift">> => {
  checkOptions(where, options, ["timesteps", "first", "last"]);
  checkLength(where, options.timesteps);
  return { first: 1e-4, last: 0.02, ...options };
};

/** Ho et al. 2020, arXiv:2006.11239, section 4. */
export function linearBetas(options: BetaRange): number[] {
  const { first, last, timesteps } = range("linearBetas", options);
  return linspace(first, last, timesteps);
}

/** The linear schedule with float32 roundings (kpandey008/DiffuseVAE). */
export function linearBetas32(options: BetaRange): number[] {
  const { first, last, timesteps } = range("linearBetas32", options);
  return linspace32(first, last, timesteps);
}

/** The linear schedule of 1000 steps stretched or squeezed to any length (openai/guided-diffusion). */
export function rescaledLinearBetas(timesteps: number): number[] {
  checkLength("rescaledLinearBetas", timesteps);
  return linspace(0.1 / timesteps, 20 / timesteps, timesteps);
}

/** Linear in sqrt(beta): Rombach et al. 2022, arXiv:2112.10752 (their code calls it "linear"). */
export function scaledLinearBetas(options: BetaRange): number[] {
  const { first, last, timesteps } = range("scaledLinearBetas", options);
  return linspace(Math.sqrt(first), Math.sqrt(last), timesteps).map((root) => root * root);
}

/** Square roots of a linear schedule ("sqrt" of CompVis/latent-diffusion). */
export function squareRootBetas(options: BetaRange): number[] {
  const { first, last, timesteps } = range("squareRootBetas", options);
  return linspace(first, last, timesteps).map(Math.sqrt);
}

/** Logistic ramp between the ends, from -6 to 6 ("sigmoid" of huggingface/diffusers). */
export function logisticBetas(options: BetaRange): number[] {
  const { first, last, timesteps } = range("logisticBetas", options);
  return linspace(-6, 6, timesteps).map((x) => first + (last - first) / (1 + Math.exp(-x)));
}

/** Cumulative signal power at time u in [0, 1]. */
export type AlphaBar = (u: number) => number;

/** Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17, without its constant factor. */
export const cosineAlphaBar: AlphaBar = (u) => Math.cos((((u + 0.008) / 1.008) * Math.PI) / 2) ** 2;

/**
 * Cosine with the log signal-to-noise ratio moved by 2 ln(shift), shift = reference side / side:
 * Hoogeboom et al. 2023, arXiv:2301.11093, eq. 5.
 */
export const shiftedCosineAlphaBar =
  (shift: number): AlphaBar =>
  (u) => {
    const logSnr =
      -2 * Math.log(Math.tan((Math.PI * Math.min(u, 1 - 1e-9)) / 2)) + 2 * Math.log(shift);
    return 1 / (1 + Math.exp(-logSnr));
  };

/** Jabri et al. 2022, arXiv:2212.11972, algorithm 1 ("sigmoid" with start, end, tau). */
export const sigmoidAlphaBar = ({ start = -3, end = 3, tau = 1 } = {}): AlphaBar => {
  const logistic = (x: number): number => 1 / (1 + Math.exp(-x / tau));
  const first = logistic(start);
  const last = logistic(end);
  return (u) => (last - logistic(start + u * (end - start))) / (last - first);
};

/** exp(-12 u) ("exp" of huggingface/diffusers). */
export const exponentialAlphaBar: AlphaBar = (u) => Math.exp(-12 * u);

/** arXiv:2102.09672, section 3.2: beta_i = 1 - alphaBar((i + 1)/T) / alphaBar(i/T), at most 0.999. */
export function betasOfAlphaBar(
  alphaBar: AlphaBar,
  timesteps: number,
  largest = kLargestBeta,
): number[] {
  checkLength("betasOfAlphaBar", timesteps);
  return Array.from({ length: timesteps }, (_, i) =>
    Math.min(1 - alphaBar((i + 1) / timesteps) / alphaBar(i / timesteps), largest),
  );
}

export const cosineBetas = (timesteps: number): number[] =>
  betasOfAlphaBar(cosineAlphaBar, timesteps);

/**
 * Lin et al. 2023, arXiv:2305.08891, algorithm 1: shifts and scales sqrt(alphaBar) so that the last
 * is 0 and the first stays. Networks of eps cannot start there: predict v or x0.
 */
export function zeroTerminalSnr(betas: readonly number[]): number[] {
  let product = 1;
  const roots = betas.map((beta) => Math.sqrt((product *= 1 - beta)));
  const first = roots[0]!;
  const last = roots.at(-1)!;
  const bars = roots.map((root) => (((root - last) * first) / (first - last)) ** 2);
  return bars.map((bar, i) => 1 - bar / (i === 0 ? 1 : bars[i - 1]!));
}

const withoutRange =
  (where: string, betas: (timesteps: number) => number[]) =>
  (options: BetaRange): number[] => {
    checkOptions(where, options, ["timesteps"]);
    return betas(options.timesteps);
  };

function shiftedCosineBetas(options: BetaRange): number[] {
  checkOptions("shifted-cosine schedule", options, ["timesteps", "shift"]);
  const { timesteps, shift } = options;
  if (shift !== undefined && shift > 0)
    return betasOfAlphaBar(shiftedCosineAlphaBar(shift), timesteps);
  throw new DiffusionError(
    "option",
    `shifted-cosine schedule: expected shift above 0, got ${shift}`,
  );
}

/** Schedules by name, for configurations; those without a first and last beta, or a shift, refuse them. */
export const betaSchedules = {
  linear: linearBetas,
  "linear-float32": linearBetas32,
  "rescaled-linear": withoutRange("rescaled-linear schedule", rescaledLinearBetas),
  "scaled-linear": scaledLinearBetas,
  logistic: logisticBetas,
  cosine: withoutRange("cosine schedule", cosineBetas),
  "shifted-cosine": shiftedCosineBetas,
  sigmoid: withoutRange("sigmoid schedule", (T) => betasOfAlphaBar(sigmoidAlphaBar(), T)),
} as const satisfies Readonly<Record<string, (options: BetaRange) => number[]>>;

export type BetaScheduleName = keyof typeof betaSchedules;
