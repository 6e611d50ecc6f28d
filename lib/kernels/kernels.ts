// The core's token kernels as plain functions on typed arrays: each call is one small program, compiled once per shape.
import { DiffusionError } from "../errors.js";
import type { Graph } from "../ir/graph.js";
import {
  coefficientNames,
  coefficientTable,
  type MaskReplaceSchedule,
} from "../processes/schedules.js";
import { SessionCache } from "../runtime/session-cache.js";
import * as ops from "../trace/functions.js";
import { trace } from "../trace/trace.js";

const keptPrograms = 32; // each is a few kilobytes and an arena of its shapes
const programs = new SessionCache(new Map(), keptPrograms);

const settingsCount = 4;

function expectLength(
  where: string,
  name: string,
  values: ArrayLike<number>,
  expected: number,
): void {
  if (values.length === expected) return;
  throw new DiffusionError(
    "shape",
    `${where}: expected ${expected} values of ${name}, got ${values.length}`,
  );
}

export interface NearestCodesOptions {
  /** Width D of a latent and of a code. */
  width: number;
  /** Default "euclidean" (squared distance); "cosine" compares directions. */
  metric?: "euclidean" | "cosine";
  signal?: AbortSignal;
}

/**
 * Index of the nearest row of `codebook` (K, D) for each row of `latents` (N, D); the lowest index on ties. No N x K array
 * is made. Throws "shape" when a length is no multiple of the width.
 *
 * @example const indices = await nearestCodes(latents, codebook, { width: 256 });
 */
export async function nearestCodes(
  latents: Float32Array,
  codebook: Float32Array,
  { width: D, metric = "euclidean", signal }: NearestCodesOptions,
): Promise<Int32Array> {
  for (const [name, values] of Object.entries({ latents, codebook })) {
    if (values.length > 0 && values.length % D === 0) continue;
    throw new DiffusionError(
      "shape",
      `nearestCodes: expected ${name} in rows of ${D}, got ${values.length} values`,
    );
  }
  const N = latents.length / D;
  const K = codebook.length / D;
  const graph = (): Graph =>
    trace((t) => {
      const z = t.input("latents", { shape: [N, D] });
      t.output("indices", ops.nearestCodes(z, t.input("codebook", { shape: [K, D] }), { metric }));
    });
  const key = `codes ${N} ${K} ${D} ${metric}`;
  const out = await programs.run(key, graph, { latents, codebook }, signal ? { signal } : {});
  return out["indices"] as Int32Array;
}

export interface CorruptInput {
  /** Clean tokens (B, N). */
  x0: Int32Array;
  /** Level of each sample, 0 … T-1. */
  times: readonly number[];
  /** Two uniform draws in [0, 1) a token: (B, N, 2). */
  uniform: Float32Array;
}

export interface StepInput {
  /** Logits of p(x0 | x_t), (B, N, K). */
  logits: Float32Array;
  /** Logits without condition, for guidance. */
  uncondLogits?: Float32Array;
  /** x_t (B, N); K is the mask. */
  xt: Int32Array;
  /** From level t to level s (-1 = clean data), one pair a sample. */
  levels: readonly { t: number; s: number }[];
  /** One uniform draw in [0, 1) a token: (B, N). */
  uniform: Float32Array;
  /** Default 1 = off. */
  guidanceScale?: number;
  /** Default 1. */
  temperature?: number;
  /** Default 1 = off. */
  truncation?: number;
  /** Default 0 = off. */
  topK?: number;
}

export interface StepOutput {
  /** x_s (B, N). */
  tokens: Int32Array;
  /** argmax of p(x0 | x_t) (B, N). */
  best: Int32Array;
  /** Its probability (B, N). */
  confidence: Float32Array;
}

export interface LossInput {
  logits: Float32Array;
  x0: Int32Array;
  xt: Int32Array;
  levels: readonly { t: number; s: number }[];
}

/** The kernels of mask-and-replace diffusion (Gu et al. 2021, arXiv:2111.14822), on their own. */
export const maskAndReplace = {
  /** Draws x_t ~ q(x_t | x_0), (B, N). */
  async corrupt(
    schedule: MaskReplaceSchedule,
    { x0, times, uniform }: CorruptInput,
  ): Promise<Int32Array> {
    const B = times.length;
    const N = x0.length / B;
    expectLength("maskAndReplace.corrupt", "uniform", uniform, B * N * 2);
    const { codes } = schedule;
    const graph = (): Graph =>
      trace((t) => {
        const tokens = t.input("x0", { shape: [B, N], dtype: "i32" });
        const coeffs = t.input("coeffs", { shape: [B, coefficientNames.length] });
        t.output(
          "xt",
          ops.maskReplaceForward(tokens, coeffs, t.input("uniform", { shape: [B, N, 2] }), {
            codes,
          }),
        );
      });
    const coeffs = coefficientTable(schedule, times.map((t) => ({ t, s: t - 1 }))); // prettier-ignore
    const out = await programs.run(`corrupt ${B} ${N} ${codes}`, graph, { x0, coeffs, uniform });
    return out["xt"] as Int32Array;
  },

  /** One reverse step from logits to tokens: guidance, truncation, the closed-form posterior and the draw in one pass. */
  async step(schedule: MaskReplaceSchedule, input: StepInput): Promise<StepOutput> {
    const { logits, uncondLogits, xt, levels, uniform } = input;
    const { guidanceScale = 1, temperature = 1, truncation = 1, topK = 0 } = input;
    const B = levels.length;
    const N = xt.length / B;
    const K = schedule.codes;
    expectLength("maskAndReplace.step", "logits", logits, B * N * K);
    expectLength("maskAndReplace.step", "uniform", uniform, B * N);
    const graph = (): Graph =>
      trace((t) => {
        const input3 = (name: string) => t.input(name, { shape: [B, N, K] });
        const step = ops.maskReplaceStep(
          input3("logits"),
          t.input("xt", { shape: [B, N], dtype: "i32" }),
          t.input("coeffs", { shape: [B, coefficientNames.length] }),
          t.input("settings", { shape: [B, settingsCount] }),
          t.input("uniform", { shape: [B, N] }),
          uncondLogits ? input3("uncondLogits") : undefined,
        );
        for (const [name, value] of Object.entries(step)) t.output(name, value);
      });
    const settings = levels.flatMap(() => [guidanceScale, temperature, truncation, topK]);
    const out = await programs.run(`step ${B} ${N} ${K} ${uncondLogits !== undefined}`, graph, {
      logits,
      xt,
      coeffs: coefficientTable(schedule, levels),
      settings: Float32Array.from(settings),
      uniform,
      ...(uncondLogits && { uncondLogits }),
    });
    return out as unknown as StepOutput;
  },

  /** Per position KL(q(x_s | x_t, x_0) || p(x_s | x_t)) and -log p(x_0 | x_t), each (B, N). */
  async loss(
    schedule: MaskReplaceSchedule,
    input: LossInput,
  ): Promise<{ kl: Float32Array; nll: Float32Array }> {
    const { logits, x0, xt, levels } = input;
    const B = levels.length;
    const N = x0.length / B;
    const K = schedule.codes;
    expectLength("maskAndReplace.loss", "logits", logits, B * N * K);
    const graph = (): Graph =>
      trace((t) => {
        const tokens = (name: string) => t.input(name, { shape: [B, N], dtype: "i32" });
        const coeffs = t.input("coeffs", { shape: [B, coefficientNames.length] });
        const { kl, nll } = ops.maskReplaceLoss(
          t.input("logits", { shape: [B, N, K] }),
          tokens("x0"),
          tokens("xt"),
          coeffs,
        );
        t.output("kl", kl);
        t.output("nll", nll);
      });
    const coeffs = coefficientTable(schedule, levels);
    const out = await programs.run(`loss ${B} ${N} ${K}`, graph, { logits, x0, xt, coeffs });
    return { kl: out["kl"] as Float32Array, nll: out["nll"] as Float32Array };
  },
};
