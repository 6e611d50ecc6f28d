// Classifier-free guidance around any denoiser: all branches in one batch, and their outputs mixed.
// Sources: Ho & Salimans 2022, arXiv:2207.12598; two conditions: Brooks et al. 2023,
// arXiv:2211.09800; interval: Kynkäänniemi et al. 2024, arXiv:2404.07724; rescaling: Lin et al.
// 2023, arXiv:2305.08891.
import { DiffusionError, checkOptions } from "../errors.js";
import type { Level } from "../processes/gaussian-levels.js";
import { concat, gatherLast, logSoftmax } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import type { Evaluation, NamedInputs } from "./continuous.js";
import type { ContinuousDenoiser, ContinuousInput } from "./continuous-step.js";

export interface ClassifierFreeOptions {
  /**
   * Conditions from the fullest to the emptiest: 2 (default: conditional, unconditional) or more,
   * each one a weaker version of the one before.
   */
  branches?: number;
  /** Leading channels that are guided; the others are those of the first branch. Default: all. */
  channels?: number;
  /**
   * Share of the guided output that is brought to the deviation of the first branch's, to stop
   * overexposure; default 0, published 0.7.
   */
  rescale?: number;
  /** Scales (B, branches - 1); default: the graph's input `guidance`. */
  scales?: (trace: Trace) => Tensor;
}

const repeated = (x: Tensor, times: number): Tensor =>
  concat(
    Array.from({ length: times }, () => x),
    0,
  );

const perSample = (x: Tensor, like: Tensor): Tensor =>
  x.reshape([like.shape[0]!, ...like.shape.slice(1).map(() => 1)]);

/** Deviation over everything but the batch, (B). */
function deviation(x: Tensor): Tensor {
  const B = x.shape[0]!;
  const flat = x.reshape([B, x.size / B]);
  return flat
    .sub(flat.mean([1], true))
    .square()
    .mean([1])
    .sqrt();
}

/** arXiv:2305.08891, eq. 15 and 16. */
function rescaled(guided: Tensor, first: Tensor, share: number): Tensor {
  const factor = perSample(deviation(first).div(deviation(guided)), guided);
  return guided.mul(factor.mul(share).add(1 - share));
}

/**
 * Output of the emptiest branch plus scale k times (branch k - branch k + 1): arXiv:2207.12598, eq.
 * 6, with scale 1 = the conditional output; for three branches arXiv:2211.09800, eq. 3.
 */
export function mixBranches(
  branches: readonly Tensor[],
  scales: Tensor,
  { channels, rescale = 0 }: Pick<ClassifierFreeOptions, "channels" | "rescale"> = {},
): Tensor {
  const [first] = branches as [Tensor, ...Tensor[]];
  const B = first.shape[0]!;
  const width = first.shape.at(-1)!;
  const leading = (x: Tensor, from: number, size: number): Tensor =>
    x.slice([...x.shape.slice(0, -1).map(() => 0), from], [...x.shape.slice(0, -1), size]);
  const guidedWidth = channels ?? width;
  const parts = branches.map((x) => (guidedWidth === width ? x : leading(x, 0, guidedWidth)));
  let mixed = parts.at(-1)!;
  for (let k = parts.length - 2; k >= 0; --k) {
    const scale = perSample(scales.slice([0, k], [B, 1]), mixed);
    mixed = mixed.add(parts[k]!.sub(parts[k + 1]!).mul(scale));
  }
  if (rescale > 0) mixed = rescaled(mixed, parts[0]!, rescale);
  if (guidedWidth === width) return mixed;
  return concat([mixed, leading(first, guidedWidth, width - guidedWidth)], first.rank - 1);
}

/**
 * A denoiser that calls `denoise` once with rows for every branch, the fullest condition first:
 * (branches B, ...). `denoise` arranges its conditions in that order.
 */
export function classifierFree(
  denoise: ContinuousDenoiser,
  options: ClassifierFreeOptions = {},
): ContinuousDenoiser {
  checkOptions("classifierFree", options, ["branches", "channels", "rescale", "scales"]);
  const { branches = 2, scales, ...mixing } = options;
  if (!Number.isInteger(branches) || branches < 2) {
    throw new DiffusionError(
      "option",
      `classifierFree: expected branches >= 2, got ${String(branches)}`,
    );
  }
  return (t, { x, times, pair }) => {
    const B = x.shape[0]!;
    const rows: ContinuousInput = {
      x: repeated(x, branches),
      times: repeated(times, branches),
      ...(pair && { pair: repeated(pair, branches) }),
    };
    const output = denoise(t, rows);
    if (output.shape[0] !== branches * B) {
      throw new DiffusionError(
        "shape",
        `classifierFree: expected ${branches * B} rows for ${branches} branches, got ${output.shape[0]}`,
      );
    }
    const sizes = [B, ...output.shape.slice(1)];
    const parts = Array.from({ length: branches }, (_, i) =>
      output.slice([i * B, ...sizes.slice(1).map(() => 0)], sizes),
    );
    const given = scales?.(t) ?? t.input("guidance", { shape: [B, branches - 1] });
    return mixBranches(parts, given, mixing);
  };
}

/**
 * Both branches of guidance on paired images, for classifierFree: (x, y) and, with y = 0, the state
 * of the chain without it. `subtract` takes y from that state where y shifts the chain (b = 1,
 * formulation 2 of arXiv:2201.00308). Published code leaves it in; default true.
 */
export const withAndWithoutPair =
  (denoise: ContinuousDenoiser, { subtract = true } = {}): ContinuousDenoiser =>
  (t, { x, times, pair }) => {
    if (!pair)
      throw new DiffusionError("shape", "withAndWithoutPair: expected paired images, got none");
    const starts = x.shape.map(() => 0);
    const half = [x.shape[0]! / 2, ...x.shape.slice(1)];
    const first = pair.slice(starts, half);
    const empty = first.mul(0);
    const shift = concat([empty, first], 0);
    return denoise(t, { x: subtract ? x.sub(shift) : x, times, pair: concat([first, empty], 0) });
  };

/** A scale, fixed or by level. */
export type GuidanceScale = number | ((level: Level) => number);

/** The scale between two network times, both included, and 1 (no guidance) outside. */
export const guidanceInterval =
  (scale: GuidanceScale, { from, to }: { from: number; to: number }): GuidanceScale =>
  (level) => {
    const isInside = level.time >= Math.min(from, to) && level.time <= Math.max(from, to);
    return isInside ? scaleAt(scale, level) : 1;
  };

export const scaleAt = (scale: GuidanceScale, level: Level): number =>
  typeof scale === "number" ? scale : scale(level);

/** The input `guidance` of an evaluation, for the option `inputs` of sampleContinuous. */
export const guidanceInputs =
  (scales: readonly GuidanceScale[], batch: number) =>
  ({ level }: Evaluation): NamedInputs => {
    const row = scales.map((scale) => scaleAt(scale, level));
    return { guidance: Float32Array.from(Array.from({ length: batch }, () => row).flat()) };
  };

/** Whether guidance changes anything at an evaluation; where not, the plain program is cheaper. */
export const isGuided = (scales: readonly GuidanceScale[], { level }: Evaluation): boolean =>
  scales.some((scale) => scaleAt(scale, level) !== 1);

/** log p(label | x) (B) from a classifier's logits (B, K), for guidance by its gradient. */
export const labelLogProbability = (logits: Tensor, labels: Tensor): Tensor =>
  gatherLast(logSoftmax(logits), labels);
