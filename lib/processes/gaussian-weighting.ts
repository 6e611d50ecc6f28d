// Loss weights. Each is defined once, on the squared error of x0, as a function of the level; the
// parameterisation turns it into the weight of the squared error of the network's output.
import { DiffusionError, checkOptions } from "../errors.js";
import type { Level, Parameterisation } from "./gaussian-levels.js";

/** Signal-to-noise ratio a² / c². */
export const snr = ({ a, c }: Level): number => (a * a) / (c * c);

export const weightingNames = [
  "uniform", "min-snr", "soft-min-snr", "snr", "p2", "edm", "velocity", "likelihood",
] as const; // prettier-ignore

export type WeightingName = (typeof weightingNames)[number];

export interface WeightingOptions {
  /** Default "uniform": 1 on the output, whatever it means. */
  weighting?: WeightingName;
  /** Bound of min-SNR (default 5) or power of P2 (default 1). */
  gamma?: number;
  /** Constant of P2; default 1. */
  k?: number;
  /** Deviation of the data, for EDM; default 0.5. */
  sigmaData?: number;
}

/** a c' - a' c: how fast signal turns into noise. */
function turn({ a, c, rates, time }: Level): number {
  if (rates) return a * rates.c - rates.a * c;
  throw new DiffusionError(
    "option",
    `level at time ${time}: expected rates for a weighting by velocity or likelihood, got none`,
  );
}

type Constants = Required<Omit<WeightingOptions, "weighting">>;

const x0Weights: Readonly<
  Record<Exclude<WeightingName, "uniform">, (level: Level, constants: Constants) => number>
> = {
  // Hang et al. 2023, arXiv:2303.09556, eq. 7
  "min-snr": (level, { gamma }) => Math.min(snr(level), gamma),
  // harmonic form of the same (crowsonkb/k-diffusion)
  "soft-min-snr": (level, { gamma }) => (snr(level) * gamma) / (snr(level) + gamma),
  // the weight of an unweighted loss on eps
  snr: (level) => snr(level),
  // Choi et al. 2022, arXiv:2204.00227, eq. 8: 1 / (k + SNR)^gamma on eps
  p2: (level, { k, gamma }) => snr(level) / (k + snr(level)) ** gamma,
  // Karras et al. 2022, arXiv:2206.00364, table 1: (sigma² + sigmaData²) / (sigma sigmaData)²
  edm: ({ a, c }, { sigmaData }) => ((c / a) ** 2 + sigmaData ** 2) / ((c / a) * sigmaData) ** 2,
  // the weight of an unweighted loss on dx/dt
  velocity: (level) => (turn(level) / level.c) ** 2,
  // Kingma et al. 2021, arXiv:2107.00630, eq. 17: -dSNR/dt / 2
  likelihood: (level) => (level.a * turn(level)) / level.c ** 3,
};

/** Weight of the squared error of the network's output at a level: that of x0 times (dx0/doutput)². */
export function outputWeight(
  level: Level,
  parameterisation: Parameterisation,
  options: WeightingOptions = {},
): number {
  checkOptions("weighting", options, ["weighting", "gamma", "k", "sigmaData"]);
  const { weighting = "uniform", k = 1, sigmaData = 0.5 } = options;
  if (weighting === "uniform") return 1;
  const weight = x0Weights[weighting];
  if (!weight) {
    throw new DiffusionError(
      "option",
      `weighting: expected one of ${weightingNames.join(", ")}, got ${weighting}`,
    );
  }
  const gamma = options.gamma ?? (weighting === "p2" ? 1 : 5);
  const slope = parameterisation(level).x0[2];
  return weight(level, { gamma, k, sigmaData }) * slope * slope;
}
