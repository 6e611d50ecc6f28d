// A batch of token grids from what each is told: encodes the condition once, then runs the reverse chain with compiled
// steps.
import type { Graph } from "../ir/graph.js";
import type { TokenModel } from "../models/token-model.js";
import type { MaskReplaceSchedule } from "../processes/schedules.js";
import type { Quantize } from "../runtime/program.js";
import type { SessionCache } from "../runtime/session-cache.js";
import {
  discretePlan,
  discreteStepGraph,
  releasedFastPlan,
  sampleDiscrete,
  type DiscreteDenoiser,
  type DiscreteState,
} from "../samplers/discrete.js";
import { purityPlan, purityStepGraph, samplePurity } from "../samplers/purity.js";
import type { SamplingStep } from "../samplers/sampler.js";
import type { Tensor } from "../trace/tensor.js";
import { trace } from "../trace/trace.js";
import {
  conditionRows,
  type ConditionReader,
  type SampleCondition,
} from "../trainers/condition-rows.js";
import type { SamplingSettings } from "../trainers/vq-diffusion-recipe.js";
import { fixedInputs } from "./fixed-inputs.js";

export interface TokenJob {
  reader: ConditionReader;
  sessions: SessionCache;
  schedule: MaskReplaceSchedule;
  /** What each sample of the batch is told. */
  conditions: readonly SampleCondition[];
  /** Number of the first sample under the seed; the others follow. */
  firstSample: number;
  seed: number;
  settings: SamplingSettings;
  /** Tokens of one picture to keep, -1 = make anew. */
  known?: Int32Array;
  /** How the transformer is compiled; default floats. */
  quantize?: Quantize | undefined;
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
const batchOf = ({ conditions }: TokenJob): number => conditions.length;

/** What each sample is told -> what the transformer reads. */
const conditionGraph = (model: TokenModel, rows: number): Graph =>
  trace((t) => {
    const told = Object.entries(model.conditionInputs(rows)).map(([name, spec]) => [
      name,
      t.input(name, spec),
    ]);
    const encoded = model.encode(Object.fromEntries(told) as Record<string, Tensor>);
    for (const [name, value] of Object.entries(encoded)) t.output(name, value);
  });

/** The encoded condition of a batch; with guidance followed by the null condition of each sample. */
async function encodeCondition(job: TokenJob): Promise<Record<string, Int32Array | Float32Array>> {
  const { reader, conditions, sessions, signal } = job;
  const nothing = conditions.map((condition) => ({ ...condition, isNull: true }));
  const rows = isGuided(job) ? [...conditions, ...nothing] : conditions;
  const inputs = conditionRows(reader, rows);
  if (!reader.model.encodedInputs) return inputs;
  const graph = (): Graph => conditionGraph(reader.model, rows.length);
  const key = `condition ${rows.length}`;
  const encoded = await sessions.run(key, graph, inputs, signal ? { signal } : {});
  return encoded as Record<string, Float32Array>;
}

/** The transformer as a denoiser that reads an encoded condition. */
const denoiser =
  (model: TokenModel): DiscreteDenoiser =>
  (t, { tokens, times }) => {
    const specs = (model.encodedInputs ?? model.conditionInputs)(tokens.shape[0]!);
    const condition = Object.entries(specs).map(([name, spec]) => [name, t.input(name, spec)]);
    return model.transformer.forward({ tokens, times, ...Object.fromEntries(condition) });
  };

async function chain(job: TokenJob): Promise<AsyncGenerator<SamplingStep<DiscreteState>>> {
  const { reader, sessions, schedule, settings, seed, firstSample, known, quantize, signal } = job;
  const { model } = reader;
  const { codes, grid } = model.transformer.config;
  const batch = batchOf(job);
  const guided = isGuided(job);
  const tokens = grid[0] * grid[1];
  const graphOptions = { denoise: denoiser(model), batch, tokens, codes, guided };
  const told = await encodeCondition(job);
  const runner = fixedInputs(sessions, `told ${batch} ${guided}`, told, quantize && { quantize });
  const step = runner(`step ${batch} ${guided}`, () => discreteStepGraph(graphOptions));
  const { steps, sampler, guidanceScale, truncation, temperature, topK } = settings;
  const common = {
    schedule, batch, tokens, seed, guidanceScale, truncation, temperature, topK, firstSample,
    ...(known && { known: repeatRow(known, batch) }),
    ...(signal && { signal }),
  }; // prettier-ignore
  if (sampler === "purity") {
    const key = `purity ${batch} ${guided} ${guidanceScale} ${truncation}`;
    const reveal = runner(key, () =>
      purityStepGraph({ ...graphOptions, guidanceScale, truncation, priorWeight }),
    );
    return samplePurity(reveal, step, {
      ...common,
      plan: purityPlan(schedule, tokens, { steps }),
    });
  }
  const plan =
    sampler === "released"
      ? releasedFastPlan(schedule, Math.max(0, Math.round(schedule.timesteps / steps) - 1))
      : discretePlan(schedule, { steps });
  return sampleDiscrete(step, { ...common, plan });
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
