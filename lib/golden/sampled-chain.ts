// Whole chains of continuous samplers on golden cases, through the library's own loop: channels first
// outside, channels last inside, with the case's own noise.
import { sizeOf } from "../ir/shape.js";
import type { Parameterisation } from "../processes/gaussian-levels.js";
import { sampleContinuous } from "../samplers/continuous.js";
import type { Combination, ContinuousPlan, Evaluation, RunEvaluation } from "../samplers/continuous.js"; // prettier-ignore
import { continuousInputs, continuousStep } from "../samplers/continuous-step.js";
import type { ContinuousInput, ContinuousStepOptions } from "../samplers/continuous-step.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { ioValues } from "./case.js";
import type { GoldenCase, Values } from "./case.js";
import type { Evaluate, Tensors } from "./evaluate.js";

/** (B, C, H, W) -> (B, H, W, C), on values. */
function valuesLast({ shape, data }: Values): { shape: number[]; data: Float32Array } {
  const [B = 1, C = 1, ...space] = shape;
  const P = sizeOf(space);
  const out = new Float32Array(data.length);
  for (let b = 0; b < B; ++b)
    for (let c = 0; c < C; ++c)
      for (let p = 0; p < P; ++p) out[(b * P + p) * C + c] = data[(b * C + c) * P + p]!;
  return { shape: [B, ...space, C], data: out };
}

/** (B, H, W, C) -> (B, C, H, W), on values. */
function valuesFirst(data: ArrayLike<number>, shape: readonly number[]): Values {
  const [B = 1, C = 1] = [shape[0], shape.at(-1)];
  const space = shape.slice(1, -1);
  const P = sizeOf(space);
  const out = new Float32Array(data.length);
  for (let b = 0; b < B; ++b)
    for (let p = 0; p < P; ++p)
      for (let c = 0; c < C; ++c) out[(b * C + c) * P + p] = data[(b * P + p) * C + c]!;
  return { shape: [B, C, ...space], data: out };
}

/** Noise for a step, before or after the network, channels first; asked for where the plan adds some. */
export type GivenNoise = (step: number, place: "before" | "after") => Values;

/** Draws `noise.K` of a case, by step. */
export const caseNoise =
  (golden: GoldenCase): GivenNoise =>
  (step) =>
    ioValues(golden, `noise.${step}`);

type NamedValues = Readonly<Record<string, Values>>;

export interface ChainRun {
  plan: ContinuousPlan;
  parameterisation: Parameterisation;
  /** First state, channels first. */
  start: Values;
  noise: GivenNoise;
  /** Paired images, channels first. */
  pair?: Values;
  /** The network, given the state, times and pair (channels last) and the further inputs. */
  denoise: (t: Trace, input: ContinuousInput, given: Tensors) => Tensor;
  /** Further inputs as they are, fixed or by evaluation. */
  inputs?: NamedValues | ((evaluation: Evaluation) => NamedValues);
  parameters?: ReadonlyMap<string, Values>;
  /** How the step reads the network. */
  step?: Pick<ContinuousStepOptions, "clamp" | "epsilon" | "variance">;
}

/** What an evaluation did; values are channels first. */
export interface EvaluationResult {
  step: number;
  /** Whether it is the first of its step. */
  isFirst: boolean;
  /** The state that the network read, after churn. */
  read: Values;
  x0: Values;
  /** The state after it. */
  x: Values;
}

type Named = Readonly<Record<string, ArrayLike<number>>>;

/** The state that the network reads. */
function readState({ "slot.0": x, noiseBefore }: Named, { before }: Evaluation): number[] {
  const { slots = [1], noise = 0 } = before?.[0] ?? {};
  return Array.from(x!, (value, i) => (slots[0] ?? 0) * value + noise * (noiseBefore?.[i] ?? 0));
}

const addsNoise = (list: readonly Combination[] = []): boolean =>
  list.some(({ noise = 0, spread = 0 }) => noise !== 0 || spread !== 0);

/** Every evaluation of a run. */
export async function runPlan(evaluate: Evaluate, run: ChainRun): Promise<EvaluationResult[]> {
  const { plan, parameterisation, inputs = {}, parameters } = run;
  const start = valuesLast(run.start);
  const pair = run.pair && valuesLast(run.pair).data;
  const [batch, ...shape] = start.shape as [number, ...number[]];
  const common = { ...run.step, batch, shape, plan, hasPair: pair !== undefined, noise: "given" } as const; // prettier-ignore
  const specs = continuousInputs({ ...common, denoise: (_, { x }) => x });
  const places = plan.steps.flatMap(({ evaluations }, step) =>
    evaluations.map((evaluation, k) => ({ step, evaluation, isFirst: k === 0 })),
  );
  const noise = (index: number): Record<string, Float32Array> => {
    const { step, evaluation } = places[index]!;
    const drawn = (place: "before" | "after"): Float32Array =>
      addsNoise(evaluation[place])
        ? valuesLast(run.noise(step, place)).data
        : new Float32Array(start.data.length);
    const early = specs["noiseBefore"] && { noiseBefore: drawn("before") };
    return { ...early, noise: drawn("after") };
  };
  const first = (data: ArrayLike<number>): Values => valuesFirst(data, start.shape);
  const done: EvaluationResult[] = [];
  const runOnce: RunEvaluation = async (given, { evaluation }) => {
    const shaped = Object.entries(specs).map(([name, spec]): [string, Values] => [
      name,
      { shape: spec.shape, data: Float32Array.from(given[name]!) },
    ]);
    const own = typeof inputs === "function" ? inputs(evaluation) : inputs;
    const results = await evaluate(
      (t, x) =>
        continuousStep(t, x, { ...common, denoise: (t, input) => run.denoise(t, input, x) }),
      { inputs: { ...own, ...Object.fromEntries(shaped) }, ...(parameters && { parameters }) },
    );
    const [x, x0] = [first(results["slot.0"]!.data), first(results["x0"]!.data)];
    const { step, isFirst } = places[done.length]!;
    done.push({ step, isFirst, read: first(readState(given, evaluation)), x0, x });
    return Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, data]));
  };
  const options = { plan, parameterisation, batch, shape, seed: 0, start: start.data, noise };
  const states = sampleContinuous(runOnce, { ...options, ...(pair && { pair }) });
  while (!(await states.next()).done);
  return done;
}

export interface ChainState {
  /** Steps done, from 1. */
  done: number;
  x: Values;
  x0: Values;
}

/** The states of a run after each step, channels first. */
export async function runChain(evaluate: Evaluate, run: ChainRun): Promise<ChainState[]> {
  const states: ChainState[] = [];
  for (const { step, x, x0 } of await runPlan(evaluate, run))
    states[step] = { done: step + 1, x, x0 };
  return states;
}
