// The core's token kernels as plain functions on typed arrays: each call is one small program, compiled once per shape.
import { DiffusionError } from "../errors.js";
import type { Graph } from "../ir/graph.js";
import {
  coefficientNames,
  coefficientTable,
  type MaskReplaceSchedule,
} from "../processes/schedules.js";
import type { TensorData } from "../runtime/buffer.js";
import { compile } from "../runtime/program.js";
import type { Program, RunOptions, RunOutputs, Session } from "../runtime/program.js";
import * as ops from "../trace/functions.js";
import { trace } from "../trace/trace.js";

const limit = 32; // programs kept; each is a few kilobytes and an arena of its shapes

interface Entry {
  made: Promise<{ program: Program; session: Session }>;
  users: number;
  isDropped: boolean;
}

/** The most recently used last. */
const entries = new Map<string, Entry>();

function entryOf(key: string, graph: () => Graph): Entry {
  const make = async (): Promise<{ program: Program; session: Session }> => {
    const program = await compile(graph());
    return { program, session: await program.bind({}) };
  };
  const entry = entries.get(key) ?? { made: make(), users: 0, isDropped: false };
  entries.delete(key);
  entries.set(key, entry);
  if (entries.size > limit) drop(entries.keys().next().value!);
  return entry;
}

function drop(key: string): void {
  const entry = entries.get(key)!;
  entries.delete(key);
  entry.isDropped = true;
  if (entry.users === 0) dispose(entry);
}

function dispose({ made }: Entry): void {
  made.then(
    ({ program, session }) => {
      session.dispose();
      program.dispose();
    },
    () => undefined, // who asked for it is told
  );
}

/** Runs the program of a key; one that was dropped meanwhile is disposed after its last run. */
async function runKernel(
  key: string,
  graph: () => Graph,
  inputs: Readonly<Record<string, TensorData>>,
  options: RunOptions = {},
): Promise<RunOutputs> {
  const entry = entryOf(key, graph);
  ++entry.users;
  try {
    const { session } = await entry.made.catch((error: unknown) => {
      if (!entry.isDropped) drop(key);
      throw error;
    });
    return await session.run(inputs, options);
  } finally {
    if (--entry.users === 0 && entry.isDropped) dispose(entry);
  }
}

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
  const out = await runKernel(key, graph, { latents, codebook }, signal ? { signal } : {});
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
    const out = await runKernel(`corrupt ${B} ${N} ${codes}`, graph, { x0, coeffs, uniform });
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
    const out = await runKernel(`step ${B} ${N} ${K} ${uncondLogits !== undefined}`, graph, {
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
    const out = await runKernel(`loss ${B} ${N} ${K}`, graph, { logits, x0, xt, coeffs });
    return { kl: out["kl"] as Float32Array, nll: out["nll"] as Float32Array };
  },
};
