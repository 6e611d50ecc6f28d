// Loss of a network that is read as a denoiser x0 = skip x + out F(in x, time): squared error of F
// against the target that makes the denoiser exact, times a weight. Source: Karras et al. 2022,
// arXiv:2206.00364, section 5; weights of crowsonkb/k-diffusion layers.py.
import { checkChoice } from "../errors.js";
import type { Tensor } from "../trace/tensor.js";
import { columnsOf } from "./columns.js";
import type { Level, Parameterisation } from "./gaussian-levels.js";

/** Of the squared error, by noise-to-signal ratio and the deviation of the data. */
const weights = {
  /** arXiv:2206.00364, table 1: once the target has unit variance. */
  karras: () => 1,
  /** Crowson et al. 2024, arXiv:2401.11605, section 3.2. */
  "soft-min-snr": (sigma: number, sigmaData: number) =>
    (sigma * sigmaData) ** 2 / (sigma ** 2 + sigmaData ** 2) ** 2,
  snr: (sigma: number, sigmaData: number) => sigmaData ** 2 / (sigma ** 2 + sigmaData ** 2),
} as const;

export type DenoiserWeight = keyof typeof weights;

export const denoiserWeights = Object.keys(weights) as DenoiserWeight[];

/** Columns of the table that the functions below read, one row a sample. */
export const denoiserColumns = ["a", "c", "input", "skip", "output", "weight"] as const;

export interface DenoiserLossOptions {
  parameterisation: Parameterisation;
  /** Default "karras". */
  weight?: DenoiserWeight;
  /** Deviation of the data, for the weight; default 1. */
  sigmaData?: number;
}

/** Coefficients at given levels: (B, columns). Throws "option" for an unknown weight. */
export function denoiserTable(
  { parameterisation, weight = "karras", sigmaData = 1 }: DenoiserLossOptions,
  levels: readonly Level[],
): Float32Array {
  const weigh = weights[checkChoice("denoiserTable", "a weight", weight, denoiserWeights)];
  const rows = levels.map((level) => {
    const { inputScale, x0 } = parameterisation(level);
    const scale = weigh(level.c / level.a, sigmaData);
    return [level.a, level.c, inputScale, x0[0], x0[2], scale];
  });
  return Float32Array.from(rows.flat());
}

export type DenoiserCoefficients = Record<(typeof denoiserColumns)[number], Tensor>;

/** Columns of a table (B, columns), each (B, 1, …) for samples of a rank. */
export const denoiserCoefficients = (table: Tensor, rank: number): DenoiserCoefficients =>
  columnsOf(denoiserColumns, table, rank);

/** Clean sample at a state, given the network as a function of its scaled input. */
export const denoised = (
  x: Tensor,
  network: (scaled: Tensor) => Tensor,
  { input, skip, output }: DenoiserCoefficients,
): Tensor => x.mul(skip).add(network(x.mul(input)).mul(output));

/** Mean over all but the batch of weight * (F - (x0 - skip x) / out)^2 at x = a x0 + c noise: (B). */
export function denoiserLoss(
  { x0, noise }: { x0: Tensor; noise: Tensor },
  network: (scaled: Tensor) => Tensor,
  { a, c, input, skip, output, weight }: DenoiserCoefficients,
): Tensor {
  const x = x0.mul(a).add(noise.mul(c));
  const target = x0.sub(x.mul(skip)).div(output);
  const [B] = x0.shape as [number];
  const error = network(x.mul(input)).sub(target).square().mul(weight);
  return error.reshape([B, x0.size / B]).mean(1);
}
