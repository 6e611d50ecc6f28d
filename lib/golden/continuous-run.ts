// Runs the plan of a continuous sampler for a golden case: one evaluation after the other through the
// library's step, with the noise that the case gives.
import type { Parameterisation } from "../processes/gaussian-levels.js";
import { coefficientRow, hasBefore, isStochastic } from "../samplers/continuous.js";
import type { ContinuousPlan, Evaluation } from "../samplers/continuous.js";
import { continuousInputs, continuousStep } from "../samplers/continuous-step.js";
import type { ContinuousDenoiser } from "../samplers/continuous-step.js";
import type { Tensor } from "../trace/tensor.js";
import type { Values } from "./case.js";
import type { Evaluate, Tensors } from "./evaluate.js";

export interface PlanRun {
  plan: ContinuousPlan;
  parameterisation: Parameterisation;
  /** The network, given the further inputs of the case. */
  denoise: (x: Tensors) => ContinuousDenoiser;
  start: Values;
  /** Noise before and after the network in an evaluation; called once for each that adds some. */
  noise: (step: number, place: "before" | "after") => Values;
  /** Further inputs, by name. */
  inputs?: Readonly<Record<string, Values>>;
  parameters?: ReadonlyMap<string, Values>;
}

/** What an evaluation did. */
export interface EvaluationResult {
  step: number;
  /** Whether it is the first, and the last, of its step. */
  isFirst: boolean;
  isLast: boolean;
  /** The state that the network read. */
  read: Values;
  x0: Values;
  /** The state after it. */
  x: Values;
}

/** x times a factor plus noise times another. */
const mixed = (x: Values, factor: number, noise: Values, weight: number): Values => ({
  shape: x.shape,
  data: Float32Array.from(x.data, (value, i) => factor * value + weight * noise.data[i]!),
});

/** The state that the network reads, after churn. */
function readState(x: Values, { before }: Evaluation, noise: Values): Values {
  const { slots = [], noise: weight = 0 } = before?.[0] ?? { slots: [1] };
  return before ? mixed(x, slots[0] ?? 0, noise, weight) : x;
}

const zeros = ({ shape, data }: Values): Values => ({
  shape,
  data: new Float32Array(data.length),
});

/** Yields after each evaluation. */
export async function* runPlan(
  evaluate: Evaluate,
  { plan, parameterisation, denoise, start, noise, inputs = {}, parameters }: PlanRun,
): AsyncGenerator<EvaluationResult> {
  const [batch, ...shape] = start.shape as [number, ...number[]];
  const layout = { slots: plan.slots, before: hasBefore(plan) };
  const none = zeros(start);
  let slots: Values[] = Array.from({ length: plan.slots }, (_, i) => (i === 0 ? start : none));
  const adds = (list: Evaluation["after"] | undefined): boolean =>
    list?.some((part) => (part.noise ?? 0) !== 0) ?? false;
  for (const [step, { evaluations }] of plan.steps.entries()) {
    for (const [k, evaluation] of evaluations.entries()) {
      const row = coefficientRow(evaluation, parameterisation, layout);
      const rows = Array.from({ length: batch }, () => row).flat();
      const early = adds(evaluation.before) ? noise(step, "before") : none;
      const fresh = adds(evaluation.after) ? noise(step, "after") : none;
      const state = Object.fromEntries(slots.map((slot, i) => [`slot.${i}`, slot]));
      const given: Record<string, Values> = {
        ...state,
        times: { shape: [batch], data: new Float32Array(batch).fill(evaluation.level.time) },
        coefficients: { shape: [batch, row.length], data: Float32Array.from(rows) },
        ...(isStochastic(plan) && { noise: fresh }),
        ...(isStochastic(plan) && layout.before && { noiseBefore: early }),
      };
      const results = await evaluate(
        (t, x) => {
          const options = { denoise: denoise(x), batch, shape, plan, noise: "given" } as const;
          const names = Object.keys(continuousInputs(options));
          const own = Object.fromEntries(names.map((name): [string, Tensor] => [name, x[name]!]));
          return continuousStep(t, own, options);
        },
        { inputs: { ...inputs, ...given }, ...(parameters && { parameters }) },
      );
      const read = readState(slots[0]!, evaluation, early);
      slots = slots.map((_, i) => results[`slot.${i}`]!);
      yield {
        step,
        isFirst: k === 0,
        isLast: k === evaluations.length - 1,
        read,
        x0: results["x0"]!,
        x: slots[0]!,
      };
    }
  }
}
