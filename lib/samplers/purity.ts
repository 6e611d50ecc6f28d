// High-quality sampling with the purity prior: a fixed number of masked positions is revealed at
// each call, chosen by how sure the network is, and visible tokens stay until the last call.
// Source: Tang et al. 2022, arXiv:2205.16007, section 3.2, and p_sample of microsoft/VQ-Diffusion
// diffusion_transformer.py.
import type { Graph } from "../ir/graph.js";
import { coefficientTable, cumulativeAt } from "../processes/schedules.js";
import { drawTokens, guide, predictStart, truncate } from "../processes/discrete.js";
import type { MaskReplaceSchedule } from "../processes/schedules.js";
import { equal, logSoftmax, randomUniform, topK, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { trace } from "../trace/trace.js";
import {
  declareStepInputs,
  denoiseBranches,
  discretePlan,
  keepKnown,
  keyTable,
  startState,
} from "./discrete.js";
import type {
  DiscretePlanOptions,
  DiscreteSampleOptions,
  DiscreteState,
  DiscreteStepGraphOptions,
  RunStep,
} from "./discrete.js";
import { sampleLoop } from "./sampler.js";
import type { PlannedStep, SamplingStep } from "./sampler.js";

export interface PurityStep extends PlannedStep {
  /**
   * Share of all positions that is revealed after this call; the last call redraws every position.
   */
  revealed: number;
}

/**
 * Positions to reveal at level t: round(N cbar_t) - round(N cbar_s), which adds up to N for any N
 * and T. Differs: the reference has tables for N = 1024 only.
 */
export const revealCount = (
  schedule: MaskReplaceSchedule,
  tokens: number,
  t: number,
  s: number,
): number =>
  Math.round(tokens * cumulativeAt(schedule, t).cbar) -
  Math.round(tokens * cumulativeAt(schedule, s).cbar);

/**
 * Positions to reveal in the next call: at most `perCall`, and never leaving a single one for a
 * call of its own.
 */
export function nextReveal(remaining: number, perCall: number): number {
  const count = Math.min(remaining, perCall);
  return remaining - count === 1 ? remaining : count;
}

/**
 * Calls of the chain: at each level above 0 as many as it takes to reveal its positions, then one
 * full redraw at level 0. `perCall` is the largest number of positions of one call; default all of
 * a level.
 */
export function purityPlan(
  schedule: MaskReplaceSchedule,
  tokens: number,
  { perCall = tokens, ...options }: DiscretePlanOptions & { perCall?: number } = {},
): PurityStep[] {
  const calls: PurityStep[] = [];
  let revealed = 0;
  for (const { t, s } of discretePlan(schedule, options)) {
    if (s < 0) {
      calls.push({ t, s, revealed: 1 });
      continue;
    }
    for (let remaining = revealCount(schedule, tokens, t, s); remaining > 0;) {
      const count = nextReveal(remaining, perCall);
      remaining -= count;
      revealed += count;
      calls.push({ t, s, revealed: Math.min(1, revealed / tokens) });
    }
  }
  return calls;
}

/**
 * "uniform": any masked position alike (rule 1); "purity": by the largest probability of the
 * position (rule 2).
 */
export type PositionRule = "uniform" | "purity";

const kScoreEps = 1e-10;

/**
 * Score of each position (B, N): 1, or max_j p(x0 = j) relative to the surest position of the
 * sample.
 */
export function positionScores(logX0: Tensor, rule: PositionRule): Tensor {
  const [B, N] = logX0.shape as [number, number, number];
  if (rule === "uniform") return logX0.trace.constant(1).broadcastTo([B, N]);
  const sure = logX0.max([2]).exp().clamp(0, 1);
  return sure.div(sure.max([1], true).add(kScoreEps));
}

/** Scores of the masked positions; zero where a token is visible. */
export function selectionScores(scores: Tensor, xt: Tensor, codes: number): Tensor {
  const t = xt.trace;
  return where(equal(xt, codes), scores, t.constant(0));
}

/** Tang et al. 2022, eq. 11: log of p^(1 + r score), normalised; r = `priorWeight`. */
export function sharpen(logX0: Tensor, scores: Tensor, priorWeight: number): Tensor {
  if (priorWeight === 0) return logX0;
  const [B, N] = scores.shape as [number, number];
  const power = scores.mul(priorWeight).add(1).reshape([B, N, 1]);
  return logSoftmax(logX0.mul(power)).clamp(-70, 0);
}

/**
 * Which positions to reveal: `counts` (B) draws without replacement with the given weights, by
 * Gumbel top-k (Kool et al. 2019, arXiv:1903.06059). Positions of weight zero are never taken.
 */
function choosePositions(weights: Tensor, counts: Tensor, uniform: Tensor): Tensor {
  const [B, N] = weights.shape as [number, number];
  const t = weights.trace;
  const gumbel = uniform.clamp(1e-12, 1).log().neg().clamp(1e-12, 1e3).log().neg();
  const isOpen = t.constant(0).less(weights);
  const order = where(isOpen, weights.maximum(1e-30).log().add(gumbel), t.constant(-1e30));
  const sorted = topK(order, { k: N, descending: true }).indices;
  const rank = topK(sorted, { k: N, descending: false }).indices; // position in the sorted order
  return rank.less(counts.reshape([B, 1])).logicalAnd(isOpen);
}

export interface PurityGraphOptions extends DiscreteStepGraphOptions {
  /** Default "purity". */
  rule?: PositionRule;
  /** r of eq. 11; default 0. */
  priorWeight?: number;
  /** Default 1. */
  guidanceScale?: number;
  /** Default 1 = off. */
  truncation?: number;
}

const kPositionPurpose = 2;
const kTokenPurpose = 3;

/** One call that reveals `reveal` (B) positions; outputs as discreteStepGraph. */
export const purityStepGraph = (options: PurityGraphOptions): Graph =>
  trace((t) => {
    const { batch, tokens: N, codes, guidanceScale = 1, truncation = 1 } = options;
    const { rule = "purity", priorWeight = 0 } = options;
    const inputs = declareStepInputs(t, batch, N);
    const reveal = t.input("reveal", { shape: [batch], dtype: "i32" });
    const [logits, uncondLogits] = denoiseBranches(t, inputs, options);
    const predicted = predictStart(logits);
    const guided = uncondLogits
      ? guide(predicted, predictStart(uncondLogits), guidanceScale)
      : predicted;
    const logX0 = truncate(guided, truncation);
    const scores = positionScores(logX0, rule);
    const draws = randomUniform(inputs.key, {
      shape: [batch, N, codes + 1],
      purpose: kTokenPurpose,
    });
    const drawn = drawTokens(sharpen(logX0, scores, rule === "purity" ? priorWeight : 0), draws);
    const open = selectionScores(scores, inputs.tokens, codes);
    const places = randomUniform(inputs.key, { shape: [batch, N], purpose: kPositionPurpose });
    const tokens = where(choosePositions(open, reveal, places), drawn, inputs.tokens);
    t.output("tokens", keepKnown(tokens, inputs.known));
    t.output("best", logX0.slice([0, 0, 0], [batch, N, codes]).argMax());
    t.output("confidence", logX0.max([2]).exp());
  });

export interface PuritySampleOptions extends Omit<DiscreteSampleOptions, "plan"> {
  plan: readonly PurityStep[];
}

/** Masked positions of each sample. */
function maskedCounts(tokens: Int32Array, batch: number, codes: number): number[] {
  const N = tokens.length / batch;
  return Array.from({ length: batch }, (_, b) =>
    tokens
      .subarray(b * N, (b + 1) * N)
      .reduce((count, token) => count + (token === codes ? 1 : 0), 0),
  );
}

/** Inputs of the final redraw beside those of every call. */
function redrawInputs(
  options: PuritySampleOptions,
  { t, s }: PurityStep,
): Record<string, Float32Array> {
  const { schedule, batch, guidanceScale = 1, temperature = 1, truncation = 1, topK = 0 } = options;
  const settings = [guidanceScale, temperature, truncation, topK].map((value) =>
    typeof value === "number" ? value : value(t),
  );
  const rows = Array.from({ length: batch }, () => ({ t, s }));
  return {
    coeffs: coefficientTable(schedule, rows),
    settings: Float32Array.from(rows.flatMap(() => settings)),
  };
}

/**
 * The chain of purity calls with `reveal`, and the final redraw with `redraw` (a discreteStepGraph
 * program).
 */
export function samplePurity(
  reveal: RunStep,
  redraw: RunStep,
  options: PuritySampleOptions,
): AsyncGenerator<SamplingStep<DiscreteState>> {
  const { schedule, plan, batch, seed, firstSample = 0, signal, inputs = {} } = options;
  const { tokens, known } = startState(options);
  const unknown = maskedCounts(tokens, batch, schedule.codes);
  let shown = unknown.map(() => 0);
  const call = signal ? { signal } : {};
  return sampleLoop<PurityStep, DiscreteState>(
    plan,
    { tokens },
    async (step, state, index) => {
      const fixed = {
        ...inputs,
        tokens: state.tokens,
        times: new Int32Array(batch).fill(step.t),
        known,
        key: keyTable(seed, firstSample, index, batch),
      };
      const target = unknown.map((count) => Math.round(count * step.revealed));
      const counts = Int32Array.from(target, (count, b) => count - shown[b]!);
      shown = target;
      const out = await (step.s < 0
        ? redraw({ ...fixed, ...redrawInputs(options, step) }, call)
        : reveal({ ...fixed, reveal: counts }, call));
      return {
        tokens: out["tokens"] as Int32Array,
        best: out["best"] as Int32Array,
        confidence: out["confidence"] as Float32Array,
      };
    },
    options,
  );
}
