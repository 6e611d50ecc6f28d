// Continuous samplers on data whose denoiser is known in closed form: a normal distribution.
import { afterAll, describe, expect, it } from "vitest";
import { predictions, type Level } from "../../lib/processes/gaussian-levels.js";
import { compile } from "../../lib/runtime/program.js";
import { sampleContinuous, type ContinuousPlan } from "../../lib/samplers/continuous.js";
import {
  continuousStepGraph,
  type ContinuousDenoiser,
} from "../../lib/samplers/continuous-step.js";
import { ddim } from "../../lib/samplers/ddim.js";

const open: { dispose(): void }[] = [];
afterAll(() => open.forEach((resource) => resource.dispose()));

const linearAlphaBars = (T: number): number[] => {
  let product = 1;
  return Array.from({ length: T }, (_, i) => (product *= 1 - (1e-4 + (i / (T - 1)) * 0.0199)));
};

const level = (alphaBar: number): Level => ({
  time: alphaBar,
  a: Math.sqrt(alphaBar),
  b: 0,
  c: Math.sqrt(1 - alphaBar),
});

/** Levels round(linspace(0, 999, N + 1)) without 0, noisiest first, then clean data. */
const grid = (N: number): Level[] => {
  const bars = linearAlphaBars(1000);
  const times = Array.from({ length: N }, (_, i) => Math.round(((i + 1) * 999) / N)).reverse();
  return [...times.map((t) => level(bars[t]!)), level(1)];
};

const mean = 0.3;
const variance = 0.25;

/** E[eps | x] of N(mean, variance); the time is alphaBar. */
const exactEps: ContinuousDenoiser = (_, { x, times }) => {
  const bar = times.reshape([times.shape[0]!, 1]);
  const c = bar.neg().add(1).sqrt();
  const spread = bar.mul(variance).sub(bar).add(1);
  return c.mul(x.sub(bar.sqrt().mul(mean))).div(spread);
};

async function last(plan: ContinuousPlan, start: number): Promise<number> {
  const graph = continuousStepGraph(
    { denoise: exactEps, batch: 1, shape: [1], plan },
    { dtype: "f64" },
  );
  const program = await compile(graph, { isa: "ref" });
  const session = await program.bind();
  open.push(session, program);
  let x = NaN;
  const options = {
    plan, parameterisation: predictions.eps, batch: 1, shape: [1], seed: 0,
    start: Float64Array.of(start), dtype: "f64",
  } as const; // prettier-ignore
  for await (const { state } of sampleContinuous((inputs) => session.run(inputs), options))
    x = state.x[0]!;
  return x;
}

describe("ddim", () => {
  it.each([
    [5, 0.561198449],
    [10, 0.6684900587],
    [20, 0.7300468385],
    [50, 0.7702329586],
  ])("with %i steps gives the published recursion's value", async (N, expected) => {
    expect(await last(ddim().plan(grid(N)), 1)).toBeCloseTo(expected, 8);
  });
});
