// Mask-and-replace diffusion on tensors of log-probabilities (B, N, K + 1), last class = mask:
// forward marginals, posterior, truncation, guidance. The numerics are those of
// microsoft/VQ-Diffusion diffusion_transformer.py, so that released models behave alike; the fused
// operations of the library compute the same without these arrays. Source: Gu et al. 2021,
// arXiv:2111.14822; Tang et al. 2022, arXiv:2205.16007.
import {
  argMax,
  concat,
  equal,
  iota,
  logSoftmax,
  logSumExp,
  stopGradient,
  topK,
  where,
} from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { cumulativeAt, pairCoefficients } from "./schedules.js";
import type { MaskReplaceSchedule } from "./schedules.js";

/** Log of a probability that counts as zero. */
const kLogFloor = -70;
const kProbabilityFloor = 1e-30;
const kLogZero = Math.log(kProbabilityFloor);
/** Stands for log 0, since -Infinity is no good operand. */
const kMinusInfinity = -1e30;

/**
 * Columns of the log coefficient table: one step (t given s), cumulative at t, cumulative at s;
 * keep, replace, mask, not masked.
 */
const kColumns = 12;

/** Log coefficients of the pair (t, s) in float64, 12 columns. */
function logCoefficientRow(schedule: MaskReplaceSchedule, t: number, s: number): number[] {
  const [, , , , , , a, b, c] = pairCoefficients(schedule, t, s);
  const group = (keep: number, replace: number, mask: number): number[] => [
    Math.log(keep),
    Math.log(replace),
    Math.log(mask),
    Math.log(1 - Math.exp(Math.log(mask)) + 1e-40),
  ];
  const now = cumulativeAt(schedule, t);
  const to = cumulativeAt(schedule, s);
  return [
    ...group(a, b, c),
    ...group(now.abar, now.bbar, now.cbar),
    ...group(to.abar, to.bbar, to.cbar),
  ].map((x) => Math.max(x, kMinusInfinity));
}

/** Table (B, 12) for posterior and forward marginals in log space. */
export const logCoefficientTable = (
  schedule: MaskReplaceSchedule,
  levels: readonly { t: number; s: number }[],
): Float32Array =>
  Float32Array.from(levels.flatMap(({ t, s }) => logCoefficientRow(schedule, t, s)));

/** Logs of keeping, replacing by one given token, masking and not masking; each (B, 1, 1). */
interface LogRates {
  keep: Tensor;
  replace: Tensor;
  mask: Tensor;
  unmasked: Tensor;
}

export interface LogCoefficients {
  /** From s to t. */
  step: LogRates;
  /** From clean data to t. */
  now: LogRates;
  /** From clean data to s. */
  to: LogRates;
}

/** Splits a log coefficient table (B, 12) into its parts. */
export function logCoefficients(table: Tensor): LogCoefficients {
  const B = table.shape[0]!;
  const column = (i: number): Tensor => table.slice([0, i], [B, 1]).reshape([B, 1, 1]);
  const rates = (first: number): LogRates => ({
    keep: column(first),
    replace: column(first + 1),
    mask: column(first + 2),
    unmasked: column(first + 3),
  });
  return { step: rates(0), now: rates(kColumns / 3), to: rates((2 * kColumns) / 3) };
}

/** log(exp x + exp y). */
export function logAddExp(x: Tensor, y: Tensor): Tensor {
  const largest = stopGradient(x.maximum(y));
  return x.sub(largest).exp().add(y.sub(largest).exp()).log().add(largest);
}

/** Token ids (B, N) -> log one-hot rows (B, N, classes); zero probability counts as 1e-30. */
export function logOneHot(tokens: Tensor, classes: number): Tensor {
  const [B, N] = tokens.shape as [number, number];
  const isClass = equal(tokens.reshape([B, N, 1]), iota(tokens.trace, [1, 1, classes], 2));
  return where(isClass, 0, kLogZero);
}

/** Real classes and the mask class of log-probabilities. */
function splitMask(logP: Tensor): { real: Tensor; mask: Tensor } {
  const [B, N, classes] = logP.shape as [number, number, number];
  return {
    real: logP.slice([0, 0, 0], [B, N, classes - 1]),
    mask: logP.slice([0, 0, classes - 1], [B, N, 1]),
  };
}

/** The mask class behind the real ones. */
export const appendMask = (real: Tensor, value: number): Tensor => {
  const [B, N] = real.shape as [number, number, number];
  return concat([real, real.trace.constant(value).broadcastTo([B, N, 1])], 2);
};

/**
 * Gu et al. 2021, eq. 8: log of the distribution after rates (keep, replace, mask) act on
 * log-probabilities.
 */
export function transition(logP: Tensor, rates: LogRates): Tensor {
  const { real, mask } = splitMask(logP);
  return concat(
    [
      logAddExp(real.add(rates.keep), rates.replace),
      logAddExp(mask.add(rates.unmasked), rates.mask),
    ],
    2,
  );
}

/** Logits (B, N, K) -> log p(x0 | x_t) with the mask class appended at -70, clamped to [-70, 0]. */
export const predictStart = (logits: Tensor): Tensor =>
  appendMask(logSoftmax(logits), kLogFloor).clamp(kLogFloor, 0);

/**
 * Gu et al. 2021, eq. 5 and 11: log p(x_s | x_t) = log sum_{x0} q(x_s | x_t, x0) p(x0 | x_t), for
 * log p(x0) (B, N, K+1) and tokens x_t (B, N). The steps are those of q_posterior in
 * microsoft/VQ-Diffusion; with the coefficients of any pair s < t it is the strided posterior as
 * well. huggingface/diffusers stops here.
 */
export function unclampedPosterior(
  logX0: Tensor,
  xt: Tensor,
  { step, now, to }: LogCoefficients,
): Tensor {
  const [B, N, classes] = logX0.shape as [number, number, number];
  const logXt = logOneHot(xt, classes);
  const isMasked = equal(xt, classes - 1).reshape([B, N, 1]);
  // log q(x_t | x0 = k) for real k, and log q(x_t | x_s = k) for every k
  const likelihood = where(isMasked, now.mask, splitMask(transition(logXt, now)).real);
  const oneStep = splitMask(transition(logXt, step)).real;
  const stepLikelihood = concat(
    [where(isMasked, step.mask, oneStep), where(isMasked, 0, kLogZero)],
    2,
  );
  const ratio = appendMask(splitMask(logX0).real.sub(likelihood), kLogZero);
  const total = logSumExp(ratio, -1, true);
  return transition(ratio.sub(total), to).add(stepLikelihood).add(total);
}

/** The posterior clamped to [-70, 0], as in microsoft/VQ-Diffusion. */
export const posterior = (logX0: Tensor, xt: Tensor, levels: LogCoefficients): Tensor =>
  unclampedPosterior(logX0, xt, levels).clamp(kLogFloor, 0);

/**
 * Keeps, in each row, the most probable classes while the mass before them is below `rate`; the
 * others become -70.
 */
export function truncate(logP: Tensor, rate: number): Tensor {
  if (rate >= 1) return logP;
  const [B, N, classes] = logP.shape as [number, number, number];
  const t = logP.trace;
  const { values } = topK(logP, { k: classes, descending: true });
  const mass = values.exp();
  const before = concat(
    [
      t.constant(0).broadcastTo([B, N, 1]),
      mass.cumulativeSum().slice([0, 0, 0], [B, N, classes - 1]),
    ],
    2,
  );
  const isKept = before.less(rate);
  const smallest = where(isKept, values, 1).min([2], true);
  return where(logP.less(smallest), kLogFloor, logP);
}

/** Keeps the `count` most probable classes of each row; the others become -70. */
export function keepBest(logP: Tensor, count: number): Tensor {
  const [B, N] = logP.shape as [number, number, number];
  const { values } = topK(logP, { k: count, descending: true });
  const smallest = values.slice([0, 0, count - 1], [B, N, 1]);
  return where(logP.less(smallest), kLogFloor, logP);
}

/**
 * Classifier-free guidance, Tang et al. 2022, eq. 9 with the code's scale (1 = off): log p = log
 * p_u + s (log p_c - log p_u), normalised over the real classes, clamped, the mask class back at
 * -70.
 */
export function guide(conditional: Tensor, unconditional: Tensor, scale: number): Tensor {
  const c = splitMask(conditional).real;
  const u = splitMask(unconditional).real;
  const mixed = u.add(c.sub(u).mul(scale));
  return appendMask(mixed.sub(logSumExp(mixed, -1, true)).clamp(kLogFloor, 0), kLogFloor);
}

/** Gumbel noise from uniform draws, with the guards of the reference. */
export const gumbelOf = (uniform: Tensor): Tensor =>
  uniform.add(kProbabilityFloor).log().neg().add(kProbabilityFloor).log().neg();

/** Draw of each row by the Gumbel-max trick from given uniforms (B, N, classes). */
export const drawTokens = (logP: Tensor, uniform: Tensor): Tensor =>
  argMax(logP.add(gumbelOf(uniform)));

/** KL(p || q) of rows of log-probabilities, summed over the last axis. */
export const klDivergence = (logP: Tensor, logQ: Tensor): Tensor =>
  logP
    .exp()
    .mul(logP.sub(logQ))
    .sum([logP.rank - 1]);
