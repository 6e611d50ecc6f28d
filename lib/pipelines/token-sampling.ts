// A batch of token grids from prompts: encodes the condition once, then runs the reverse chain with compiled steps.
import type { Graph } from "../ir/graph.js";
import type { TextToToken } from "../models/text-to-token.js";
import type { MaskReplaceSchedule } from "../processes/schedules.js";
import type { Session } from "../runtime/program.js";
import {
  discretePlan,
  discreteStepGraph,
  releasedFastPlan,
  sampleDiscrete,
  type DiscreteDenoiser,
  type DiscreteState,
  type RunStep,
} from "../samplers/discrete.js";
import { purityPlan, purityStepGraph, samplePurity } from "../samplers/purity.js";
import type { SamplingStep } from "../samplers/sampler.js";
import { trace } from "../trace/trace.js";
import type { SessionCache } from "./session-cache.js";

export const samplerNames = ["exact", "released", "purity"] as const;
export type SamplerName = (typeof samplerNames)[number];

export interface TokenSettings {
  steps: number;
  guidanceScale: number;
  truncation: number;
  temperature: number;
  topK: number;
  sampler: SamplerName;
}

export interface TokenJob {
  model: TextToToken;
  sessions: SessionCache;
  schedule: MaskReplaceSchedule;
  /** Word ids (B, length). */
  prompts: Int32Array;
  /** 1 where nothing was said (B). */
  isNull: Float32Array;
  attributes: Record<string, Int32Array>;
  /** Numbers of the samples under the seed, consecutive. */
  samples: readonly number[];
  seed: number;
  settings: TokenSettings;
  /** Tokens of one picture to keep, -1 = make anew. */
  known?: Int32Array;
  signal?: AbortSignal;
}

export interface TokenStep {
  index: number;
  steps: number;
  /** (B, N). */
  tokens: Int32Array;
  /** Most probable clean tokens (B, N). */
  best: Int32Array;
}

const priorWeight = 1; // r of the purity prior, the documented setting of Improved VQ-Diffusion

const isGuided = ({ settings }: TokenJob): boolean => Math.abs(settings.guidanceScale - 1) >= 1e-3;
const batchOf = ({ samples }: TokenJob): number => samples.length;

/** Words and attributes -> condition tokens and mask; with guidance followed by the null condition of each sample. */
function conditionGraph({ model }: TokenJob, rows: number): Graph {
  const { text, attributes = {} } = model.config.condition;
  return trace((t) => {
    const inputs = Object.keys(attributes).map((name) => [
      name,
      t.input(`attribute.${name}`, { shape: [rows], dtype: "i32" }),
    ]);
    const { tokens, mask } = model.conditioner.forward({
      words: t.input("words", { shape: [rows, text.length], dtype: "i32" }),
      attributes: Object.fromEntries(inputs),
      isNull: t.input("isNull", { shape: [rows] }),
    });
    t.output("condition", tokens);
    t.output("conditionMask", mask);
  });
}

/** The values of both branches in one batch. */
function twice<T extends Int32Array | Float32Array>(values: T): T {
  const out = new (values.constructor as new (length: number) => T)(2 * values.length);
  out.set(values, 0);
  out.set(values, values.length);
  return out;
}

async function encodeCondition(job: TokenJob): Promise<Record<string, Float32Array>> {
  const guided = isGuided(job);
  const B = batchOf(job);
  const rows = guided ? 2 * B : B;
  const branch = <T extends Int32Array | Float32Array>(values: T): T =>
    guided ? twice(values) : values;
  const isNull = branch(job.isNull);
  if (guided) isNull.fill(1, B);
  const graph = (): Graph => conditionGraph(job, rows);
  const session = await job.sessions.get(`condition ${rows}`, graph, job.signal);
  const attributes = Object.entries(job.attributes).map(([name, values]) => [
    `attribute.${name}`,
    branch(values),
  ]);
  const out = await session.run(
    { words: branch(job.prompts), isNull, ...Object.fromEntries(attributes) },
    job.signal ? { signal: job.signal } : {},
  );
  return {
    condition: out["condition"] as Float32Array,
    conditionMask: out["conditionMask"] as Float32Array,
  };
}

/** The transformer as a denoiser that reads an encoded condition. */
function denoiser({ transformer, conditioner }: TextToToken): DiscreteDenoiser {
  return (t, { tokens, times }) => {
    const rows = tokens.shape[0]!;
    return transformer.forward({
      tokens,
      times,
      condition: t.input("condition", { shape: [rows, conditioner.length, conditioner.width] }),
      conditionMask: t.input("conditionMask", { shape: [rows, 1, 1, conditioner.length] }),
    });
  };
}

const runner =
  (session: Session): RunStep =>
  (inputs, options) =>
    session.run(inputs, options);

async function chain(job: TokenJob): Promise<AsyncGenerator<SamplingStep<DiscreteState>>> {
  const { model, sessions, schedule, settings, seed, samples, known, signal } = job;
  const { codes, grid } = model.config.transformer;
  const batch = batchOf(job);
  const guided = isGuided(job);
  const tokens = grid[0] * grid[1];
  const graphOptions = { denoise: denoiser(model), batch, tokens, codes, guided };
  const session = (key: string, graph: () => Graph): Promise<Session> =>
    sessions.get(key, graph, signal);
  const step = await session(`step ${batch} ${guided}`, () => discreteStepGraph(graphOptions));
  const { steps, sampler, guidanceScale, truncation, temperature, topK } = settings;
  const common = {
    schedule, batch, tokens, seed, guidanceScale, truncation, temperature, topK,
    firstSample: samples[0]!,
    inputs: await encodeCondition(job),
    ...(known && { known: repeatRow(known, batch) }),
    ...(signal && { signal }),
  }; // prettier-ignore
  if (sampler === "purity") {
    const key = `purity ${batch} ${guided} ${guidanceScale} ${truncation}`;
    const reveal = await session(key, () =>
      purityStepGraph({ ...graphOptions, guidanceScale, truncation, priorWeight }),
    );
    return samplePurity(runner(reveal), runner(step), {
      ...common,
      plan: purityPlan(schedule, tokens, { steps }),
    });
  }
  const plan =
    sampler === "released"
      ? releasedFastPlan(schedule, Math.max(0, Math.round(schedule.timesteps / steps) - 1))
      : discretePlan(schedule, { steps });
  return sampleDiscrete(runner(step), { ...common, plan });
}

function repeatRow(row: Int32Array, count: number): Int32Array {
  const out = new Int32Array(row.length * count);
  for (let i = 0; i < count; ++i) out.set(row, i * row.length);
  return out;
}

/** Runs the chain; the last step holds the clean tokens. */
export async function* sampleTokens(job: TokenJob): AsyncGenerator<TokenStep> {
  for await (const { index, steps, state } of await chain(job)) {
    yield { index, steps, tokens: state.tokens, best: state.best ?? state.tokens };
  }
}
