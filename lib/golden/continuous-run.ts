// Runs the plan of a continuous sampler for a golden case: one evaluation after the other through the
// library's step, with the noise that the case gives. States are channels first outside, as the
// references have them, and channels last for the network.
import type { Parameterisation } from "../processes/gaussian-levels.js";
import { coefficientRow, hasBefore, isStochastic } from "../samplers/continuous.js";
import type { Combination, ContinuousPlan, Evaluation } from "../samplers/continuous.js";
import { continuousInputs, continuousStep } from "../samplers/continuous-step.js";
import type { ContinuousInput, ContinuousStepOptions } from "../samplers/continuous-step.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues } from "./case.js";
import type { Evaluate, Tensors } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";

/** Noise for a step, before or after the network; asked for where the plan adds some. */
export type GivenNoise = (step: number, place: "before" | "after") => Values;

type NamedValues = Readonly<Record<string, Values>>;

export interface PlanRun {
  plan: ContinuousPlan;
  parameterisation: Parameterisation;
  /** The network; `given` are the further inputs. */
  denoise: (t: Trace, input: ContinuousInput, given: Tensors) => Tensor;
  start: Values;
  noise: GivenNoise;
  /** Paired images. */
  pair?: Values;
  /** Further inputs by name, fixed or by evaluation. */
  inputs?: NamedValues | ((evaluation: Evaluation) => NamedValues);
  parameters?: ReadonlyMap<string, Values>;
  /** How the step reads the network. */
  step?: Pick<ContinuousStepOptions, "clamp" | "epsilon" | "variance">;
}

/** What an evaluation did. */
export interface EvaluationResult {
  step: number;
  /** Whether it is the first of its step. */
  isFirst: boolean;
  /** The state that the network read. */
  read: Values;
  x0: Values;
  /** The state after it. */
  x: Values;
}

/** Draws `noise.K` of a case, by step. */
export const caseNoise =
  (golden: GoldenCase): GivenNoise =>
  (step) =>
    ioValues(golden, `noise.${step}`);

/** x times a factor plus noise times another. */
const mixed = (x: Values, factor: number, noise: Values, weight: number): Values => ({
  shape: x.shape,
  data: Float32Array.from(x.data, (value, i) => factor * value + weight * noise.data[i]!),
});

/** The state that the network reads, after churn. */
function readState(x: Values, { before }: Evaluation, noise: Values): Values {
  if (!before) return x;
  const { slots = [], noise: weight = 0 } = before[0]!;
  return mixed(x, slots[0] ?? 0, noise, weight);
}

const zeros = ({ shape, data }: Values): Values => ({
  shape,
  data: new Float32Array(data.length),
});

const addsNoise = (list: readonly Combination[] = []): boolean =>
  list.some(({ noise = 0, spread = 0 }) => noise !== 0 || spread !== 0);

/** States are given and taken channels first. */
function tracedStep(t: Trace, x: Tensors, run: PlanRun): Tensors {
  const [batch, ...shape] = run.start.shape as [number, ...number[]];
  const { plan, pair, denoise, step } = run;
  const options: ContinuousStepOptions = {
    ...step,
    denoise: (trace, input) => denoise(trace, input, x),
    batch,
    shape: [...shape.slice(1), shape[0]!],
    plan,
    hasPair: pair !== undefined,
    noise: "given",
  };
  const isState = (value: Tensor): boolean =>
    value.rank === run.start.shape.length && value.rank > 2;
  const own = Object.keys(continuousInputs(options)).map((name): [string, Tensor] => {
    const value = x[name]!;
    return [name, isState(value) ? channelsLast(value) : value];
  });
  const results = Object.entries(continuousStep(t, Object.fromEntries(own), options));
  return Object.fromEntries(
    results.map(([name, value]) => [name, isState(value) ? channelsFirst(value) : value]),
  );
}

/** Yields after each evaluation. */
export async function* runPlan(evaluate: Evaluate, run: PlanRun): AsyncGenerator<EvaluationResult> {
  const { plan, parameterisation, start, noise, pair, inputs = {}, parameters } = run;
  const batch = start.shape[0]!;
  const layout = { slots: plan.slots, before: hasBefore(plan) };
  const none = zeros(start);
  let slots: Values[] = Array.from({ length: plan.slots }, (_, i) => (i === 0 ? start : none));
  for (const [step, { evaluations }] of plan.steps.entries()) {
    for (const [k, evaluation] of evaluations.entries()) {
      const row = coefficientRow(evaluation, parameterisation, layout);
      const rows = Array.from({ length: batch }, () => row).flat();
      const early = addsNoise(evaluation.before) ? noise(step, "before") : none;
      const fresh = addsNoise(evaluation.after) ? noise(step, "after") : none;
      const given: Record<string, Values> = {
        ...Object.fromEntries(slots.map((slot, i) => [`slot.${i}`, slot])),
        times: { shape: [batch], data: new Float32Array(batch).fill(evaluation.level.time) },
        coefficients: { shape: [batch, row.length], data: Float32Array.from(rows) },
        ...(pair && { pair }),
        ...(isStochastic(plan) && { noise: fresh }),
        ...(isStochastic(plan) && layout.before && { noiseBefore: early }),
      };
      const results = await evaluate((t, x) => tracedStep(t, x, run), {
        inputs: { ...(typeof inputs === "function" ? inputs(evaluation) : inputs), ...given },
        ...(parameters && { parameters }),
      });
      const read = readState(slots[0]!, evaluation, early);
      slots = slots.map((_, i) => results[`slot.${i}`]!);
      yield { step, isFirst: k === 0, read, x0: results["x0"]!, x: slots[0]! };
    }
  }
}

/** A state of a chain after `done` steps. */
export interface ChainState {
  done: number;
  x: Values;
  x0: Values;
}

/** The states after each step. */
export async function runContinuous(evaluate: Evaluate, run: PlanRun): Promise<ChainState[]> {
  const states: ChainState[] = [];
  for await (const { step, x, x0 } of runPlan(evaluate, run))
    states[step] = { done: step + 1, x, x0 };
  return states;
}
