// Whole chains of continuous samplers on golden cases, through the library's own loop: channels first
// outside, channels last inside, with the case's own noise.
import type { Parameterisation } from "../processes/gaussian-levels.js";
import { sampleContinuous } from "../samplers/continuous.js";
import type { ContinuousPlan } from "../samplers/continuous.js";
import { continuousInputs, continuousStep } from "../samplers/continuous-step.js";
import type { ContinuousInput, ContinuousStepOptions } from "../samplers/continuous-step.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { ioValues } from "./case.js";
import type { GoldenCase, Values } from "./case.js";
import type { Evaluate, Tensors } from "./evaluate.js";

/** (B, C, H, W) -> (B, H, W, C), on values. */
export function valuesLast({ shape, data }: Values): { shape: number[]; data: Float32Array } {
  const [B = 1, C = 1, ...space] = shape;
  const P = space.reduce((size, extent) => size * extent, 1);
  const out = new Float32Array(data.length);
  for (let b = 0; b < B; ++b)
    for (let c = 0; c < C; ++c)
      for (let p = 0; p < P; ++p) out[(b * P + p) * C + c] = data[(b * C + c) * P + p]!;
  return { shape: [B, ...space, C], data: out };
}

/** (B, H, W, C) -> (B, C, H, W), on values. */
export function valuesFirst(data: ArrayLike<number>, shape: readonly number[]): Values {
  const [B = 1, C = 1] = [shape[0], shape.at(-1)];
  const space = shape.slice(1, -1);
  const P = space.reduce((size, extent) => size * extent, 1);
  const out = new Float32Array(data.length);
  for (let b = 0; b < B; ++b)
    for (let p = 0; p < P; ++p)
      for (let c = 0; c < C; ++c) out[(b * C + c) * P + p] = data[(b * P + p) * C + c]!;
  return { shape: [B, C, ...space], data: out };
}

/** Noise of evaluation i of a case: `noise.i`, or zeros where the reference draws none. */
export const caseNoise =
  (golden: GoldenCase) =>
  (index: number): Values => {
    const { shape, data } = ioValues(golden, "x_T");
    return golden.io.get(`noise.${index}`) ?? { shape, data: new Float32Array(data.length) };
  };

export interface ChainRun {
  plan: ContinuousPlan;
  parameterisation: Parameterisation;
  /** First state, channels first. */
  start: Values;
  /** Noise of evaluation i, channels first; for stochastic plans. */
  noise: (index: number) => Values;
  /** Paired images, channels first. */
  pair?: Values;
  /** The network, given the state, times and pair (channels last) and the further inputs. */
  denoise: (t: Trace, input: ContinuousInput, given: Tensors) => Tensor;
  /** Further inputs, as they are. */
  inputs?: Readonly<Record<string, Values>>;
  parameters: ReadonlyMap<string, Values>;
  step: Pick<ContinuousStepOptions, "clamp" | "epsilon" | "variance">;
}

export interface ChainResult {
  /** Steps done, from 1. */
  done: number;
  x: Values;
  x0: Values;
}

/** The states of a run after each step, channels first. */
export async function runChain(evaluate: Evaluate, run: ChainRun): Promise<ChainResult[]> {
  const { plan, parameterisation, inputs = {}, parameters } = run;
  const start = valuesLast(run.start);
  const pair = run.pair && valuesLast(run.pair).data;
  const [batch, ...shape] = start.shape as [number, ...number[]];
  const common = { ...run.step, batch, shape, plan, hasPair: pair !== undefined, noise: "given" } as const; // prettier-ignore
  const specs = continuousInputs({ ...common, denoise: (_, { x }) => x });
  const step = async (values: Record<string, ArrayLike<number>>) => {
    const shaped = Object.entries(specs).map(([name, spec]): [string, Values] => [
      name,
      { shape: spec.shape, data: Float32Array.from(values[name]!) },
    ]);
    const results = await evaluate(
      (t, given) =>
        continuousStep(t, given, { ...common, denoise: (t, x) => run.denoise(t, x, given) }),
      { inputs: { ...inputs, ...Object.fromEntries(shaped) }, parameters },
    );
    return Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, data]));
  };
  const states = sampleContinuous((values) => step(values as Record<string, ArrayLike<number>>), {
    plan, parameterisation, batch, shape, seed: 0, start: start.data,
    noise: (index) => (specs["noise"] ? { noise: valuesLast(run.noise(index)).data } : {}),
    ...(pair && { pair }),
  }); // prettier-ignore
  const out: ChainResult[] = [];
  for await (const { index, state } of states) {
    const first = (data: ArrayLike<number>): Values => valuesFirst(data, start.shape);
    out.push({ done: index + 1, x: first(state.x), x0: first(state.x0!) });
  }
  return out;
}
