// One evaluation of a continuous sampler as a graph: network, conversion to (x0, eps), clamping, and
// the update of every slot. All numbers of the step come in as a row of coefficients per sample, so
// one compiled graph serves every step of every plan with the same slots.
import { gradients } from "../autodiff/differentiate.js";
import { DiffusionError } from "../errors.js";
import type { Graph } from "../ir/graph.js";
import type { Shape } from "../ir/shape.js";
import { randomNormal, topK } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { trace } from "../trace/trace.js";
import type { InputSpec, Trace } from "../trace/trace.js";
import { columnNames, hasBefore, isStochastic } from "./continuous.js";
import type { ContinuousPlan, GradientMode, RowLayout } from "./continuous.js";

/** What a network reads. */
export interface ContinuousInput {
  /** The state times the input scale, (B, ...shape). */
  x: Tensor;
  /** Times of the levels, floats (B). */
  times: Tensor;
  /** Paired images y, (B, ...shape). */
  pair?: Tensor;
}

/**
 * Traced network: its output (B, ...shape), with twice the channels when it learns variances. It
 * declares its own condition inputs on the trace. Guidance wraps a denoiser and gives a denoiser.
 */
export type ContinuousDenoiser = (trace: Trace, input: ContinuousInput) => Tensor;

/** A classifier whose gradient guides the samples. */
export interface Classifier {
  /**
   * Log probability (B) of what is wanted, from the state x itself (not scaled) and the times; it
   * declares its own inputs, such as labels, on the trace.
   */
  logProbability: (trace: Trace, input: { x: Tensor; times: Tensor }) => Tensor;
  mode: GradientMode;
}

/**
 * Bounds of x0: fixed ones, or, with a share such as 0.995, those of this share of |x0| in each sample
 * when they exceed 1, after which x0 is divided by them (Saharia et al. 2022, arXiv:2205.11487,
 * section 2.3). Only for pixels in [-1, 1], never for latents.
 */
export type Clamp = readonly [low: number, high: number] | { quantile: number };

export interface ContinuousStepOptions {
  denoise: ContinuousDenoiser;
  batch: number;
  /** Of a sample, channels last. */
  shape: Shape;
  /** Decides slots, noise and early updates. */
  plan: ContinuousPlan;
  /** Declares the input `pair`; default false. */
  hasPair?: boolean;
  /** "drawn" by counter (default) or "given" as inputs `noise` and `noiseBefore`. */
  noise?: "drawn" | "given";
  /** Default: x0 as it is. */
  clamp?: Clamp;
  /**
   * eps after clamping: "kept" as predicted (DiffuseVAE, latent diffusion; default) or "rederived"
   * from the clamped x0 (ADM).
   */
  epsilon?: "kept" | "rederived";
  /** What the second half of the output says about the variance; default: no second half. */
  variance?: "learned" | "learnedRange";
  guide?: Classifier;
}

/** Numbers of the random streams of the draws after and before the network. */
const kNoisePurpose = 1;
const kEarlyNoisePurpose = 2;

/** Columns of the coefficient table as tensors that broadcast over a sample. */
type Columns = (name: string) => Tensor;

const layoutOf = ({ plan, guide }: ContinuousStepOptions): RowLayout => ({
  slots: plan.slots,
  before: hasBefore(plan),
  gradient: guide?.mode,
});

function columnsOf(table: Tensor, options: ContinuousStepOptions): Columns {
  const { batch, shape } = options;
  const place = new Map(columnNames(layoutOf(options)).map((name, i) => [name, i]));
  return (name) =>
    table.slice([0, place.get(name)!], [batch, 1]).reshape([batch, ...shape.map(() => 1)]);
}

/** Sum of column times tensor; absent tensors are left out. */
function combine(columns: Columns, prefix: string, terms: Record<string, Tensor | undefined>) {
  let total: Tensor | undefined;
  for (const [name, value] of Object.entries(terms)) {
    if (!value) continue;
    const term = value.mul(columns(`${prefix}.${name}`));
    total = total ? total.add(term) : term;
  }
  return total!;
}

const updateSlots = (
  columns: Columns,
  prefix: string,
  slots: readonly Tensor[],
  terms: Record<string, Tensor | undefined>,
): Tensor[] => {
  const sources = Object.fromEntries(slots.map((slot, i) => [`slot.${i}`, slot]));
  return slots.map((_, i) => combine(columns, `${prefix}.${i}`, { ...sources, ...terms }));
};

/** First and, for learned variances, second half of the channels. */
function splitOutput(
  output: Tensor,
  { batch, shape, variance }: ContinuousStepOptions,
): { value: Tensor; spread?: Tensor } {
  const channels = shape.at(-1)!;
  const expected = [batch, ...shape.slice(0, -1), variance ? 2 * channels : channels];
  if (output.shape.join() !== expected.join()) {
    throw new DiffusionError(
      "shape",
      `sampler: expected an output of (${expected.join(", ")}), got (${output.shape.join(", ")})${variance ? "" : "; a network that learns variances needs the option variance"}`,
    );
  }
  if (!variance) return { value: output };
  const starts = expected.map(() => 0);
  const sizes = [batch, ...shape];
  return {
    value: output.slice(starts, sizes),
    spread: output.slice([...starts.slice(0, -1), channels], sizes),
  };
}

/**
 * Learned deviation: exp of half the log variance, which is the output itself or, Nichol & Dhariwal
 * 2021, arXiv:2102.09672, eq. 15, moves between two bounds for outputs in [-1, 1].
 */
function learnedDeviation(spread: Tensor, columns: Columns, isRange: boolean): Tensor {
  if (!isRange) return spread.mul(0.5).exp();
  const low = columns("logVariance.low");
  const high = columns("logVariance.high");
  const share = spread.add(1).mul(0.5);
  return share.mul(high).add(share.neg().add(1).mul(low)).mul(0.5).exp();
}

/** The share's value of |x| in each sample, between neighbours by their distance, (B, 1, ...). */
function quantileOf(x: Tensor, share: number): Tensor {
  const [B, ...shape] = x.shape as [number, ...number[]];
  const size = x.size / B;
  if (!(share >= 0 && share <= 1))
    throw new DiffusionError("option", `clamp: expected a quantile from 0 to 1, got ${share}`);
  const place = share * (size - 1);
  const fromTop = size - 1 - Math.floor(place);
  const { values } = topK(x.abs().reshape([B, size]), { k: fromTop + 1, descending: true });
  const at = (i: number): Tensor => values.slice([0, i], [B, 1]);
  const low = at(fromTop);
  const between = low.add(
    at(Math.max(0, fromTop - 1))
      .sub(low)
      .mul(place - Math.floor(place)),
  );
  return between.reshape([B, ...shape.map(() => 1)]);
}

function clampX0(x0: Tensor, clamp: Clamp): Tensor {
  if (!("quantile" in clamp)) return x0.clamp(...clamp);
  const bound = quantileOf(x0, clamp.quantile).maximum(1);
  return x0.minimum(bound).maximum(bound.neg()).div(bound);
}

/** The network's view of a level: x0 (clamped), eps, and the output they come from. */
function readOutput(
  columns: Columns,
  { x, pair, output }: { x: Tensor; pair?: Tensor; output: Tensor },
  { clamp, epsilon = "kept" }: ContinuousStepOptions,
): { x0: Tensor; eps: Tensor } {
  const sources = { x, pair, output };
  const x0 = combine(columns, "x0", sources);
  const eps = combine(columns, "eps", sources);
  if (!clamp) return { x0, eps };
  const clamped = clampX0(x0, clamp);
  if (epsilon === "kept") return { x0: clamped, eps };
  const rest = x.sub(clamped.mul(columns("a")));
  const noise = pair ? rest.sub(pair.mul(columns("b"))) : rest;
  return { x0: clamped, eps: noise.div(columns("c")) };
}

/** Inputs of an evaluation, besides those that the denoiser declares. */
export function continuousInputs(options: ContinuousStepOptions): Record<string, InputSpec> {
  const { batch, shape, plan, hasPair = false, noise = "drawn" } = options;
  const sample: InputSpec = { shape: [batch, ...shape] };
  const slots = Array.from({ length: plan.slots }, (_, i) => [`slot.${i}`, sample]);
  const isGiven = isStochastic(plan) && noise === "given";
  return {
    ...(Object.fromEntries(slots) as Record<string, InputSpec>),
    times: { shape: [batch] },
    coefficients: { shape: [batch, columnNames(layoutOf(options)).length] },
    ...(hasPair && { pair: sample }),
    ...(isStochastic(plan) && !isGiven && { key: { shape: [batch, 4], dtype: "i32" } }),
    ...(isGiven && { noise: sample }),
    ...(isGiven && hasBefore(plan) && { noiseBefore: sample }),
  };
}

/** Gradient of the summed log probability with respect to x, (B, ...shape). */
function classifierGradient(t: Trace, x: Tensor, times: Tensor, guide: Classifier): Tensor {
  const logProbability = guide.logProbability(t, { x, times });
  return gradients(logProbability.sum(), [x])[0]!;
}

/** One evaluation on tensors: `slot.i` after it, and the clean samples `x0` that the network saw. */
export function continuousStep(
  t: Trace,
  inputs: Readonly<Record<string, Tensor>>,
  options: ContinuousStepOptions,
): Record<string, Tensor> {
  const { plan, variance, guide } = options;
  const columns = columnsOf(inputs["coefficients"]!, options);
  const { times, key } = inputs as Record<"times", Tensor> & { key?: Tensor };
  const pair = inputs["pair"] && { pair: inputs["pair"] };
  const state = Array.from({ length: plan.slots }, (_, i) => inputs[`slot.${i}`]!);
  const draw = (name: string, purpose: number): Tensor | undefined =>
    key ? randomNormal(key, { shape: state[0]!.shape, purpose }) : inputs[name];
  const slots = hasBefore(plan)
    ? updateSlots(columns, "before", state, {
        ...pair,
        noise: draw("noiseBefore", kEarlyNoisePurpose),
      })
    : state;
  const x = slots[0]!;
  const output = options.denoise(t, { x: x.mul(columns("inputScale")), times, ...pair });
  const { value, spread } = splitOutput(output, options);
  const { x0, eps } = readOutput(columns, { x, ...pair, output: value }, options);
  const noise = draw("noise", kNoisePurpose);
  const deviation = spread && learnedDeviation(spread, columns, variance === "learnedRange");
  const next = updateSlots(columns, "after", slots, {
    x0,
    eps,
    ...pair,
    noise,
    spread: deviation && noise ? deviation.mul(noise) : undefined,
    output: value,
  });
  const named = (values: readonly Tensor[]): Record<string, Tensor> =>
    Object.fromEntries(values.map((value, i) => [`slot.${i}`, value]));
  if (!guide) return { ...named(next), x0 };
  const gradient = classifierGradient(t, x, times, guide);
  const terms = {
    gradient,
    gradientSpread: deviation ? deviation.square().mul(gradient) : undefined,
  };
  return {
    ...named(next.map((slot, i) => slot.add(combine(columns, `guide.${i}`, terms)))),
    x0: x0.add(gradient.mul(columns("x0.gradient"))),
  };
}

/** Graph of one evaluation: inputs of `continuousInputs` and of the denoiser. */
export const continuousStepGraph = (
  options: ContinuousStepOptions,
  traceOptions: { dtype?: "f32" | "f64" } = {},
): Graph =>
  trace((t) => {
    const inputs = Object.entries(continuousInputs(options)).map(([name, spec]) => [
      name,
      t.input(name, spec),
    ]);
    const outputs = continuousStep(
      t,
      Object.fromEntries(inputs) as Record<string, Tensor>,
      options,
    );
    for (const [name, value] of Object.entries(outputs)) t.output(name, value);
  }, traceOptions);
