// Reverse chain of mask-and-replace: the whole step (network, guidance, posterior, draw) is one
// graph, and the loop feeds it coefficients. Source: Gu et al. 2021, arXiv:2111.14822, algorithms 2
// and 3; Tang et al. 2022, arXiv:2205.16007.
import { checkOptions, DiffusionError } from "../errors.js";
import type { Graph } from "../ir/graph.js";
import { uniformStream } from "../nn/random.js";
import {
  coefficientNames,
  coefficientTable,
  cumulativeAt,
  maskToken,
} from "../processes/schedules.js";
import type { MaskReplaceSchedule } from "../processes/schedules.js";
import { concat, maskReplaceStep, randomUniform, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { trace } from "../trace/trace.js";
import type { Trace } from "../trace/trace.js";
import type { PlannedStep, SampleLoopOptions, SamplingStep } from "./sampler.js";
import { sampleLoop } from "./sampler.js";

/**
 * A step of the chain; the released fast form evaluates the posterior at a lower level than the
 * network's.
 */
export interface DiscreteStep extends PlannedStep {
  /** Upper level of the posterior; `t` except in the released fast form. */
  posteriorT: number;
}

export interface DiscretePlanOptions {
  /** Number of network calls, spread evenly; default all timesteps. */
  steps?: number;
  /** The levels themselves, falling. */
  levels?: readonly number[];
  /**
   * "exact": the posterior of the pair of levels; "released": the fast form of the published code.
   * Default "exact".
   */
  stride?: "exact" | "released";
  /** First level; default T - 1. Lower starts from given tokens (image to image). */
  start?: number;
}

/** `count` levels from `start` down to 0, evenly spread. */
function evenLevels(start: number, count: number): number[] {
  if (!Number.isInteger(count) || count < 1 || count > start + 1) {
    throw new DiffusionError(
      "option",
      `discretePlan: expected steps from 1 to ${start + 1}, got ${count}`,
    );
  }
  return Array.from({ length: count }, (_, i) =>
    count === 1 ? start : Math.round(start - (i * start) / (count - 1)),
  );
}

function checkLevels(levels: readonly number[], timesteps: number): void {
  const isFine = levels.every(
    (t, i) => Number.isInteger(t) && t >= 0 && t < timesteps && (i === 0 || t < levels[i - 1]!),
  );
  if (levels.length === 0 || !isFine) {
    throw new DiffusionError(
      "option",
      `discretePlan: expected falling levels from ${timesteps - 1} to 0, got ${levels.join(", ") || "none"}`,
    );
  }
}

/**
 * Steps of the reverse chain. Exact: p(x_s | x_t) with s the next level, Gu et al. 2021, eq. 13,
 * for any list of levels.
 */
export function discretePlan(
  schedule: MaskReplaceSchedule,
  options: DiscretePlanOptions = {},
): DiscreteStep[] {
  checkOptions("discretePlan", options, ["steps", "levels", "stride", "start"]);
  const { timesteps } = schedule;
  const { start = timesteps - 1, stride = "exact" } = options;
  if (stride === "released") {
    throw new DiffusionError(
      "option",
      "discretePlan: expected stride exact, got released; use releasedFastPlan",
    );
  }
  const levels = options.levels ?? evenLevels(start, options.steps ?? start + 1);
  checkLevels(levels, timesteps);
  return levels.map((t, i) => ({ t, s: levels[i + 1] ?? -1, posteriorT: t }));
}

/**
 * Fast form of microsoft/VQ-Diffusion (sample_fast), for parity: levels T-1, T-2-skip, …, 0; while
 * t > skip the one-step posterior of level t - skip is used for an x_t of level t, so too many
 * tokens stay masked until the last call.
 */
export function releasedFastPlan(schedule: MaskReplaceSchedule, skip: number): DiscreteStep[] {
  const levels: number[] = [];
  for (let t = schedule.timesteps - 1; t >= 0; t -= 1 + skip) levels.push(t);
  if (levels.at(-1) !== 0) levels.push(0);
  return levels.map((t) => {
    const posteriorT = t > skip ? t - skip : t;
    return { t, s: posteriorT - 1, posteriorT };
  });
}

/**
 * Tokens that corruption to level t leaves of x0, drawn on the host; sample b depends on (seed,
 * firstSample + b) only.
 */
export function corruptTokens(
  schedule: MaskReplaceSchedule,
  x0: Int32Array,
  t: number,
  draw: { batch: number; seed: number; firstSample?: number },
): Int32Array {
  const { abar, cbar } = cumulativeAt(schedule, t);
  const { codes } = schedule;
  const N = x0.length / draw.batch;
  const out = new Int32Array(x0.length);
  for (let b = 0; b < draw.batch; ++b) {
    const uniform = uniformStream(draw.seed, `corrupt.${(draw.firstSample ?? 0) + b}`, 2 * N);
    for (let i = 0; i < N; ++i) {
      const u = uniform[2 * i]!;
      const other = Math.floor(uniform[2 * i + 1]! * codes);
      out[b * N + i] = u < cbar ? maskToken(codes) : u < cbar + abar ? x0[b * N + i]! : other;
    }
  }
  return out;
}

/** Start of the chain: all masks, as every published sampler does, or a draw from q(x_T). */
function startTokens(
  schedule: MaskReplaceSchedule,
  tokens: number,
  draw: { batch: number; seed: number; firstSample?: number; init?: "mask" | "prior" },
): Int32Array {
  const masked = new Int32Array(draw.batch * tokens).fill(maskToken(schedule.codes));
  if (draw.init !== "prior") return masked;
  return corruptTokens(schedule, masked, schedule.timesteps - 1, draw);
}

/**
 * What a denoiser reads; with guidance the rows are the conditional samples followed by the
 * unconditional ones.
 */
export interface DenoiserInput {
  /** x_t, i32 (rows, N). */
  tokens: Tensor;
  /** Timesteps i32 (rows). */
  times: Tensor;
  /** Samples; rows = batch, or 2 batch with guidance. */
  batch: number;
  guided: boolean;
}

/**
 * Traced network: logits of p(x0 | x_t), (rows, N, K). It declares its own condition inputs on the
 * trace.
 */
export type DiscreteDenoiser = (trace: Trace, input: DenoiserInput) => Tensor;

export interface DiscreteStepGraphOptions {
  denoise: DiscreteDenoiser;
  batch: number;
  /** Tokens of a sample. */
  tokens: number;
  codes: number;
  /** Two network evaluations in one batch. */
  guided: boolean;
}

/** Number of the random stream of the sampler's draws. */
const kDrawPurpose = 1;

/** Columns of the settings table: guidance, temperature, truncation, top k. */
const kSettings = 4;

/**
 * State inputs of every discrete step: tokens, timesteps, known tokens (-1 = free) and the random
 * key.
 */
export interface StepInputs {
  tokens: Tensor;
  times: Tensor;
  known: Tensor;
  key: Tensor;
}

/** Declares the inputs that every discrete step has. */
export const declareStepInputs = (t: Trace, batch: number, tokens: number): StepInputs => ({
  tokens: t.input("tokens", { shape: [batch, tokens], dtype: "i32" }),
  times: t.input("times", { shape: [batch], dtype: "i32" }),
  known: t.input("known", { shape: [batch, tokens], dtype: "i32" }),
  key: t.input("key", { shape: [batch, 4], dtype: "i32" }),
});

/**
 * Evaluates the denoiser, for both branches in one batch when guided: [conditional, unconditional].
 */
export function denoiseBranches(
  t: Trace,
  { tokens, times }: Pick<StepInputs, "tokens" | "times">,
  { denoise, batch, guided }: Pick<DiscreteStepGraphOptions, "denoise" | "batch" | "guided">,
): [Tensor, Tensor | undefined] {
  if (!guided) return [denoise(t, { tokens, times, batch, guided }), undefined];
  const both = denoise(t, {
    tokens: concat([tokens, tokens], 0),
    times: concat([times, times], 0),
    batch,
    guided,
  });
  const [rows, N, K] = both.shape as [number, number, number];
  if (rows !== 2 * batch) {
    throw new DiffusionError(
      "shape",
      `sampler: expected logits of ${2 * batch} rows with guidance, got ${rows}`,
    );
  }
  return [both.slice([0, 0, 0], [batch, N, K]), both.slice([batch, 0, 0], [batch, N, K])];
}

/** Known tokens stay; the others are the drawn ones. */
export const keepKnown = (drawn: Tensor, known: Tensor): Tensor =>
  where(known.less(0), drawn, known);

/**
 * One reverse step as a graph: outputs tokens, best (argmax of p(x0)) and confidence (its
 * probability).
 */
export const discreteStepGraph = (options: DiscreteStepGraphOptions): Graph =>
  trace((t) => {
    const { batch, tokens: N } = options;
    const inputs = declareStepInputs(t, batch, N);
    const coeffs = t.input("coeffs", { shape: [batch, coefficientNames.length] });
    const settings = t.input("settings", { shape: [batch, kSettings] });
    const [logits, uncondLogits] = denoiseBranches(t, inputs, options);
    const uniform = randomUniform(inputs.key, { shape: [batch, N], purpose: kDrawPurpose });
    const step = maskReplaceStep(logits, inputs.tokens, coeffs, settings, uniform, uncondLogits);
    t.output("tokens", keepKnown(step.tokens, inputs.known));
    t.output("best", step.best);
    t.output("confidence", step.confidence);
  });

/** Values after a step. */
export interface DiscreteState {
  /** x_s, (B, N). */
  tokens: Int32Array;
  /**
   * Most probable clean tokens and their probability, for previews; absent before the first step.
   */
  best?: Int32Array;
  confidence?: Float32Array;
}

/** Runs a compiled discrete step on inputs by name. */
export type RunStep = (
  inputs: Record<string, Int32Array | Float32Array>,
  options: { signal?: AbortSignal },
) => Promise<Record<string, ArrayBufferView>>;

/** A number, or a function of the level. */
export type Scheduled = number | ((t: number) => number);

export interface DiscreteSampleOptions extends SampleLoopOptions<DiscreteState> {
  schedule: MaskReplaceSchedule;
  plan: readonly DiscreteStep[];
  batch: number;
  /** Tokens of a sample. */
  tokens: number;
  seed: number;
  /** Number of the first sample of this batch under the seed; default 0. */
  firstSample?: number;
  /** 1 = off, default. Only with a guided step. */
  guidanceScale?: Scheduled;
  /** 1 = off, default. */
  temperature?: Scheduled;
  /** Keep classes while the mass before them is below this; 1 = off, default. */
  truncation?: Scheduled;
  /** Keep this many classes; 0 = off, default. */
  topK?: Scheduled;
  /** Tokens to keep, -1 where free: (B, N). */
  known?: Int32Array;
  /** Tokens to start from; default all masks. */
  start?: Int32Array;
  /** Default "mask". */
  init?: "mask" | "prior";
  /** Further inputs of the denoiser, such as its condition, the same at every step. */
  inputs?: Record<string, Int32Array | Float32Array>;
}

const valueAt = (scheduled: Scheduled, t: number): number =>
  typeof scheduled === "number" ? scheduled : scheduled(t);

const repeat = (row: readonly number[], count: number): number[] =>
  Array.from({ length: count }, () => row).flat();

/** Rows (seed low, seed high, sample, step) of a batch. */
export const keyTable = (
  seed: number,
  firstSample: number,
  step: number,
  batch: number,
): Int32Array =>
  Int32Array.from(
    Array.from({ length: batch }, (_, b) => [
      seed | 0,
      Math.floor(seed / 2 ** 32) | 0,
      firstSample + b,
      step,
    ]).flat(),
  );

/** Puts known tokens in place. */
const withKnown = (tokens: Int32Array, known: Int32Array): Int32Array =>
  tokens.map((token, i) => (known[i]! >= 0 ? known[i]! : token));

/** First tokens and the known table of a batch. */
export function startState(options: Omit<DiscreteSampleOptions, "plan">): {
  tokens: Int32Array;
  known: Int32Array;
} {
  const { schedule, batch, tokens: N, seed, firstSample = 0, init = "mask" } = options;
  const known = options.known ?? new Int32Array(batch * N).fill(-1);
  const start = options.start ?? startTokens(schedule, N, { batch, seed, firstSample, init });
  for (const [name, values] of Object.entries({ known, start })) {
    if (values.length === batch * N) continue;
    throw new DiffusionError(
      "shape",
      `sampling: expected ${name} of ${batch} x ${N} tokens, got ${values.length}`,
    );
  }
  return { tokens: withKnown(start, known), known };
}

/** Full reverse chain; yields after each step. The last state holds the clean tokens. */
export function sampleDiscrete(
  run: RunStep,
  options: DiscreteSampleOptions,
): AsyncGenerator<SamplingStep<DiscreteState>> {
  const { schedule, plan, batch, seed, firstSample = 0, signal, inputs = {} } = options;
  const { guidanceScale = 1, temperature = 1, truncation = 1, topK = 0 } = options;
  const { tokens, known } = startState(options);
  return sampleLoop<DiscreteStep, DiscreteState>(
    plan,
    { tokens },
    async ({ t, s, posteriorT }, state, index) => {
      const settings = [guidanceScale, temperature, truncation, topK].map((value) =>
        valueAt(value, t),
      );
      const out = await run(
        {
          ...inputs,
          tokens: state.tokens,
          times: new Int32Array(batch).fill(t),
          coeffs: coefficientTable(
            schedule,
            Array.from({ length: batch }, () => ({ t: posteriorT, s })),
          ),
          settings: Float32Array.from(repeat(settings, batch)),
          known,
          key: keyTable(seed, firstSample, index, batch),
        },
        signal ? { signal } : {},
      );
      return {
        tokens: out["tokens"] as Int32Array,
        best: out["best"] as Int32Array,
        confidence: out["confidence"] as Float32Array,
      };
    },
    options,
  );
}
