// What a sampler is: plan() gives the coefficients of every step as numbers, step() is traced once
// on tensors, and this loop runs the compiled step. Nothing here knows a model or a process.
import { throwIfAborted } from "../errors.js";

/** One step of a plan: from level t to level s. */
export interface PlannedStep {
  /** Level of the state, and what the network is told. */
  t: number;
  /** Level after the step; -1 is clean data. */
  s: number;
}

/** What the loop yields after each step. */
export interface SamplingStep<State> extends PlannedStep {
  /** From 0. */
  index: number;
  steps: number;
  state: State;
}

export interface SampleLoopOptions<State> {
  /** Stops with code "aborted" before the next step. */
  signal?: AbortSignal;
  /** Called after each step, before it is yielded; what it returns replaces the state. */
  onStep?: (
    step: SamplingStep<State>,
  ) => State | undefined | void | Promise<State | undefined | void>;
}

/** Runs the steps of a plan one after the other, yielding the state after each. */
export async function* sampleLoop<Step extends PlannedStep, State>(
  plan: readonly Step[],
  first: State,
  run: (step: Step, state: State, index: number) => Promise<State>,
  { signal, onStep }: SampleLoopOptions<State> = {},
): AsyncGenerator<SamplingStep<State>> {
  let state = first;
  for (const [index, step] of plan.entries()) {
    throwIfAborted(signal, "sampling");
    state = await run(step, state, index);
    const done: SamplingStep<State> = { index, steps: plan.length, t: step.t, s: step.s, state };
    const replaced = await onStep?.(done);
    if (replaced !== undefined) state = replaced;
    yield { ...done, state };
  }
}
