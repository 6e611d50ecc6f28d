// Training of a network on a Gaussian chain: corruption, targets, the variational bound with learned
// variances, and the hybrid loss, traced on tensors. The numbers of each sample's timestep come as
// rows of a table. Sources: Ho et al. 2020, arXiv:2006.11239; Nichol & Dhariwal 2021,
// arXiv:2102.09672.
import { DiffusionError, checkOptions } from "../errors.js";
import { concat, stopGradient, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { chainLevel } from "./gaussian.js";
import type { Formulation, GaussianChain } from "./gaussian.js";
import { predictions } from "./gaussian-levels.js";
import type { Mix, PredictionName } from "./gaussian-levels.js";
import { outputWeight } from "./gaussian-weighting.js";
import type { WeightingOptions } from "./gaussian-weighting.js";

/** What the network's output means; "previous" is the mean of x_{t-1}. */
export type ChainPrediction = Extract<PredictionName, "eps" | "x0" | "v"> | "previous";

/** How the reverse variance is found; the learned ones take twice the channels. */
export type VarianceName = "fixedSmall" | "fixedLarge" | "learned" | "learnedRange";

/** Columns of the table of a batch, one row a sample. */
export const gaussianColumns = [
  "a", "b", "c",
  "x0.x", "x0.pair", "x0.output",
  "mean.x0", "mean.xt", "mean.pair",
  "variance", "logVariance", "logSmall", "logLarge",
  "isFirst", "weight",
] as const; // prettier-ignore

export type GaussianColumn = (typeof gaussianColumns)[number];

export interface GaussianTableOptions extends WeightingOptions {
  /** Default "eps". */
  prediction?: ChainPrediction;
  /** Default "fixedLarge". */
  variance?: VarianceName;
  /** Default 1: the pair acts on the network only. */
  formulation?: Formulation;
}

/** Mean of q(x_{t-1} | x_t, x0, y) at index t: factors of x0, x_t and y. */
export function posteriorMean(
  chain: GaussianChain,
  t: number,
  formulation: Formulation = 1,
): { x0: number; xt: number; pair: number } {
  const xt = chain.posteriorMeanXt[t]!;
  return { x0: chain.posteriorMeanX0[t]!, xt, pair: formulation === 2 ? 1 - xt : 0 };
}

/** Fixed variance and its log: arXiv:2006.11239, section 3.2; entry 0 of the log is that of entry 1. */
export function fixedVariance(
  chain: GaussianChain,
  t: number,
  name: VarianceName,
): { variance: number; logVariance: number } {
  const small = {
    variance: chain.posteriorVariance[t]!,
    logVariance: chain.posteriorLogVariance[t]!,
  };
  if (name !== "fixedLarge") return small;
  const variance = t === 0 ? (chain.posteriorVariance[1] ?? chain.betas[0]!) : chain.betas[t]!;
  return { variance, logVariance: Math.log(variance) };
}

/** How x0 follows from (x_t, y, output). */
function x0Mix(
  chain: GaussianChain,
  t: number,
  prediction: ChainPrediction,
  formulation: Formulation,
): Mix {
  if (prediction !== "previous")
    return predictions[prediction](chainLevel(chain, t, formulation)).x0;
  const mean = posteriorMean(chain, t, formulation);
  return [-mean.xt / mean.x0, -mean.pair / mean.x0, 1 / mean.x0];
}

function tableRow(chain: GaussianChain, t: number, options: GaussianTableOptions): number[] {
  const { prediction = "eps", variance = "fixedLarge", formulation = 1 } = options;
  const level = chainLevel(chain, t, formulation);
  const mean = posteriorMean(chain, t, formulation);
  const fixed = fixedVariance(chain, t, variance);
  const { weighting, gamma, k, sigmaData } = options;
  const x0 = x0Mix(chain, t, prediction, formulation);
  const weight = outputWeight(level, () => ({ inputScale: 1, x0, eps: [0, 0, 0] }), {
    ...(weighting && { weighting }),
    ...(gamma !== undefined && { gamma }),
    ...(k !== undefined && { k }),
    ...(sigmaData !== undefined && { sigmaData }),
  });
  return [
    ...[level.a, level.b, level.c],
    ...x0,
    ...[mean.x0, mean.xt, mean.pair],
    ...[fixed.variance, fixed.logVariance],
    ...[chain.posteriorLogVariance[t]!, Math.log(chain.betas[t]!)],
    ...[Number(t === 0), weight],
  ];
}

/** Rows of `gaussianColumns` for the timesteps of a batch: (B, columns). */
export function gaussianTable(
  chain: GaussianChain,
  timesteps: readonly number[],
  options: GaussianTableOptions = {},
): Float32Array {
  checkOptions("gaussianTable", options, [
    "prediction", "variance", "formulation", "weighting", "gamma", "k", "sigmaData",
  ]); // prettier-ignore
  const wrong = timesteps.find((t) => !Number.isInteger(t) || t < 0 || t >= chain.timesteps);
  if (wrong !== undefined) {
    throw new DiffusionError(
      "option",
      `gaussianTable: expected timesteps from 0 to ${chain.timesteps - 1}, got ${wrong}`,
    );
  }
  return Float32Array.from(timesteps.flatMap((t) => tableRow(chain, t, options)));
}

/** A column of the table as a tensor that broadcasts over samples of the rank of `like`. */
export function tableColumn(table: Tensor, name: GaussianColumn, like: Tensor): Tensor {
  const B = table.shape[0]!;
  return table
    .slice([0, gaussianColumns.indexOf(name)], [B, 1])
    .reshape([B, ...like.shape.slice(1).map(() => 1)]);
}

/** arXiv:2006.11239, eq. 4, with a pair: x_t = a x0 + b y + c eps. */
export function corrupt(x0: Tensor, eps: Tensor, table: Tensor, pair?: Tensor): Tensor {
  const of = (name: GaussianColumn): Tensor => tableColumn(table, name, x0);
  const xt = x0.mul(of("a")).add(eps.mul(of("c")));
  return pair ? xt.add(pair.mul(of("b"))) : xt;
}

/** Mean over everything but the batch. */
export const meanPerSample = (x: Tensor): Tensor => {
  const B = x.shape[0]!;
  return x.reshape([B, x.size / B]).mean([1]);
};

export interface PosteriorInputs {
  /** Output of the network, (B, ..., C), or 2C with learned variances. */
  output: Tensor;
  xt: Tensor;
  table: Tensor;
  pair?: Tensor;
}

export interface PosteriorOptions {
  prediction?: ChainPrediction;
  variance?: VarianceName;
  /** Clamps x0; default: as it is. */
  clamp?: readonly [low: number, high: number];
}

export const isLearned = (variance: VarianceName): boolean =>
  variance === "learned" || variance === "learnedRange";

/** First half of the channels, and the second when variances are learned. */
export function splitVariance(
  output: Tensor,
  variance: VarianceName,
): { value: Tensor; spread?: Tensor } {
  if (!isLearned(variance)) return { value: output };
  const channels = output.shape.at(-1)! / 2;
  const sizes = [...output.shape.slice(0, -1), channels];
  const starts = sizes.map(() => 0);
  return {
    value: output.slice(starts, sizes),
    spread: output.slice([...starts.slice(0, -1), channels], sizes),
  };
}

/**
 * p(x_{t-1} | x_t): mean from the (clamped) x0, or the output itself when it predicts that mean; log
 * variance as the name says, arXiv:2102.09672, eq. 15.
 */
export function predictedPosterior(
  { output, xt, table, pair }: PosteriorInputs,
  { prediction = "eps", variance = "fixedLarge", clamp }: PosteriorOptions,
): { mean: Tensor; variance: Tensor; logVariance: Tensor; x0: Tensor } {
  const of = (name: GaussianColumn): Tensor => tableColumn(table, name, xt);
  const { value, spread } = splitVariance(output, variance);
  const shared = xt.mul(of("x0.x")).add(value.mul(of("x0.output")));
  const free = pair ? shared.add(pair.mul(of("x0.pair"))) : shared;
  const x0 = clamp ? free.clamp(...clamp) : free;
  const mean =
    prediction === "previous" ? value : truePosteriorMean(x0, { xt, table, ...(pair && { pair }) });
  if (!spread) return { mean, variance: of("variance"), logVariance: of("logVariance"), x0 };
  const share = spread.add(1).mul(0.5);
  const logVariance =
    variance === "learned"
      ? spread
      : share.mul(of("logLarge")).add(share.neg().add(1).mul(of("logSmall")));
  return { mean, variance: logVariance.exp(), logVariance, x0 };
}

/** Of two normal distributions, element by element, in nats. */
export function normalKl(
  p: { mean: Tensor; logVariance: Tensor },
  q: { mean: Tensor; logVariance: Tensor },
): Tensor {
  const gap = p.logVariance.sub(q.logVariance);
  const distance = p.mean.sub(q.mean).square().mul(q.logVariance.neg().exp());
  return gap.exp().add(distance).sub(1).sub(gap).mul(0.5);
}

const kTanhScale = Math.sqrt(2 / Math.PI);
const kSmallestProbability = 1e-12;

/** Approximate standard normal distribution function: Page 1977. */
const normalCdf = (z: Tensor): Tensor =>
  z.add(z.square().mul(z).mul(0.044715)).mul(kTanhScale).tanh().add(1).mul(0.5);

/**
 * Log likelihood of pixels in [-1, 1] with 256 values under a normal distribution: mass of a bin of
 * half width 1/255, open beyond ±0.999; arXiv:2006.11239, eq. 13. In nats, element by element.
 */
export function discretisedLogLikelihood(x0: Tensor, mean: Tensor, logScale: Tensor): Tensor {
  const centred = x0.sub(mean);
  const inverse = logScale.neg().exp();
  const upper = normalCdf(inverse.mul(centred.add(1 / 255)));
  const lower = normalCdf(inverse.mul(centred.sub(1 / 255)));
  const safeLog = (p: Tensor): Tensor => p.maximum(kSmallestProbability).log();
  const below = safeLog(upper);
  const above = safeLog(lower.neg().add(1));
  const inside = safeLog(upper.sub(lower));
  return where(x0.less(-0.999), below, where(x0.greater(0.999), above, inside));
}

/**
 * Term of the variational bound, bits per dimension, (B): KL to the true posterior, and at timestep 0
 * the negative log likelihood of the pixels; arXiv:2006.11239, eq. 5.
 */
export function variationalTerm(
  x0: Tensor,
  inputs: PosteriorInputs,
  options: PosteriorOptions,
): Tensor {
  const { xt, table } = inputs;
  const of = (name: GaussianColumn): Tensor => tableColumn(table, name, xt);
  const predicted = predictedPosterior(inputs, options);
  const mean = truePosteriorMean(x0, inputs);
  const kl = meanPerSample(normalKl({ mean, logVariance: of("logSmall") }, predicted));
  const likelihood = discretisedLogLikelihood(x0, predicted.mean, predicted.logVariance.mul(0.5));
  const nll = meanPerSample(likelihood.neg());
  const B = x0.shape[0]!;
  const isFirst = of("isFirst").reshape([B]).greater(0.5);
  return where(isFirst, nll, kl).div(Math.LN2);
}

/** KL(q(x_T | x0) || N(0, 1)) in bits per dimension, (B); `last` is the last level. */
export function priorTerm(x0: Tensor, last: { a: number; c: number }): Tensor {
  const constant = (value: number): Tensor => x0.trace.constant(value);
  return meanPerSample(
    normalKl(
      { mean: x0.mul(last.a), logVariance: constant(2 * Math.log(last.c)) },
      { mean: constant(0), logVariance: constant(0) },
    ),
  ).div(Math.LN2);
}

export interface GaussianLossOptions extends PosteriorOptions {
  /**
   * "l2" or "l1" on the output, with the bound added when variances are learned (it moves them only);
   * "bound": the variational term alone. Default "l2".
   */
  loss?: "l2" | "l1" | "bound";
  /** Factor of the variational term; default 1. Published: T / 1000 beside l2, or T alone. */
  boundFactor?: number;
}

export interface GaussianLossInputs extends PosteriorInputs {
  x0: Tensor;
  eps: Tensor;
}

export interface GaussianLoss {
  /** (B). */
  perSample: Tensor;
  /** Weighted error of the output, (B); absent for "bound". */
  error?: Tensor;
  /** Variational term times its factor, (B), where it is part of the loss. */
  bound?: Tensor;
}

/** Mean of q(x_{t-1} | x_t, x0, y): arXiv:2006.11239, eq. 7; with the pair arXiv:2201.00308. */
export function truePosteriorMean(
  x0: Tensor,
  { xt, table, pair }: Omit<PosteriorInputs, "output">,
) {
  const of = (name: GaussianColumn): Tensor => tableColumn(table, name, xt);
  const mean = x0.mul(of("mean.x0")).add(xt.mul(of("mean.xt")));
  return pair ? mean.add(pair.mul(of("mean.pair"))) : mean;
}

/** What the output (its first half) should be. */
export function lossTarget(inputs: GaussianLossInputs, prediction: ChainPrediction): Tensor {
  const { x0, eps, xt, table } = inputs;
  if (prediction === "eps") return eps;
  if (prediction === "x0") return x0;
  if (prediction === "previous") return truePosteriorMean(x0, inputs);
  return eps.mul(tableColumn(table, "a", xt)).sub(x0.mul(tableColumn(table, "c", xt)));
}

/** Losses of openai/guided-diffusion: MSE, rescaled MSE, KL and rescaled KL, by options. */
export function gaussianLoss(
  inputs: GaussianLossInputs,
  options: GaussianLossOptions = {},
): GaussianLoss {
  const { loss = "l2", boundFactor = 1, variance = "fixedLarge", prediction = "eps" } = options;
  const posterior = { variance, prediction }; // training never clamps
  if (loss === "bound") {
    const bound = variationalTerm(inputs.x0, inputs, posterior).mul(boundFactor);
    return { perSample: bound, bound };
  }
  const { value, spread } = splitVariance(inputs.output, variance);
  const [B] = value.shape as [number];
  const weight = tableColumn(inputs.table, "weight", value).reshape([B]);
  const gap = lossTarget(inputs, prediction).sub(value);
  const error = meanPerSample(loss === "l1" ? gap.abs() : gap.square()).mul(weight);
  if (!spread) return { perSample: error, error };
  const frozen = concat([stopGradient(value), spread], value.rank - 1);
  const bound = variationalTerm(inputs.x0, { ...inputs, output: frozen }, posterior).mul(
    boundFactor,
  );
  return { perSample: error.add(bound), error, bound };
}
