// One evaluation of a continuous sampler as a graph: network, conversion to (x0, eps), clamping, and
// the update of every slot. All numbers of the step come in as a row of coefficients per sample, so
// one compiled graph serves every step of every plan with the same slots.
import { DiffusionError } from "../errors.js";
import type { Graph } from "../ir/graph.js";
import type { Shape } from "../ir/shape.js";
import { randomNormal } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { trace } from "../trace/trace.js";
import type { Trace } from "../trace/trace.js";
import { columnNames, hasBefore, isStochastic } from "./continuous.js";
import type { ContinuousPlan } from "./continuous.js";

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

/** Bounds that x0 is clamped to. */
export type Clamp = readonly [low: number, high: number];

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
}

/** Numbers of the random streams of the draws after and before the network. */
const kNoisePurpose = 1;
const kEarlyNoisePurpose = 2;

/** Columns of the coefficient table as tensors that broadcast over a sample. */
type Columns = (name: string) => Tensor;

function declareColumns(t: Trace, { batch, shape, plan }: ContinuousStepOptions): Columns {
  const names = columnNames({ slots: plan.slots, before: hasBefore(plan) });
  const table = t.input("coefficients", { shape: [batch, names.length], dtype: t.dtype });
  const place = new Map(names.map((name, i) => [name, i]));
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
  const clamped = x0.clamp(...clamp);
  if (epsilon === "kept") return { x0: clamped, eps };
  const rest = x.sub(clamped.mul(columns("a")));
  const noise = pair ? rest.sub(pair.mul(columns("b"))) : rest;
  return { x0: clamped, eps: noise.div(columns("c")) };
}

/**
 * Graph of one evaluation. Inputs: `slot.i`, `times`, `coefficients`, `key` (drawn noise) or `noise`
 * and `noiseBefore` (given), `pair`, and those of the denoiser. Outputs: `slot.i` and `x0`.
 */
export const continuousStepGraph = (
  options: ContinuousStepOptions,
  traceOptions: { dtype?: "f32" | "f64" } = {},
): Graph =>
  trace((t) => {
    const { batch, shape, plan, hasPair = false, noise = "drawn", variance } = options;
    const sample = { shape: [batch, ...shape], dtype: t.dtype };
    const columns = declareColumns(t, options);
    const times = t.input("times", { shape: [batch], dtype: t.dtype });
    const state = Array.from({ length: plan.slots }, (_, i) => t.input(`slot.${i}`, sample));
    const pair = hasPair ? { pair: t.input("pair", sample) } : {};
    const key = isStochastic(plan) && noise === "drawn" ? t.input("key", { shape: [batch, 4], dtype: "i32" }) : undefined; // prettier-ignore
    const draw = (name: string, purpose: number): Tensor | undefined => {
      if (!isStochastic(plan)) return undefined;
      return key ? randomNormal(key, { shape: sample.shape, purpose }) : t.input(name, sample);
    };
    const slots = hasBefore(plan)
      ? updateSlots(columns, "before", state, { ...pair, noise: draw("noiseBefore", kEarlyNoisePurpose) }) // prettier-ignore
      : state;
    const x = slots[0]!;
    const output = options.denoise(t, { x: x.mul(columns("inputScale")), times, ...pair });
    const { value, spread } = splitOutput(output, options);
    const { x0, eps } = readOutput(columns, { x, ...pair, output: value }, options);
    const fresh = draw("noise", kNoisePurpose);
    const deviation = spread && learnedDeviation(spread, columns, variance === "learnedRange");
    const terms = {
      x0,
      eps,
      ...pair,
      noise: fresh,
      spread: deviation && fresh ? deviation.mul(fresh) : undefined,
      output: value,
    };
    const next = updateSlots(columns, "after", slots, terms);
    next.forEach((slot, i) => t.output(`slot.${i}`, slot));
    t.output("x0", x0);
  }, traceOptions);
