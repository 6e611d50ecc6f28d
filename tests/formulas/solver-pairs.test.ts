// Solvers with a paired image y: the state is that of the process without it, plus b y. And the
// compiled step gives what the plan says.
import { describe, expect, it } from "vitest";
import { predictions } from "../../lib/processes/gaussian-levels.js";
import type { Level } from "../../lib/processes/gaussian-levels.js";
import { pathLevels, pathLine } from "../../lib/processes/interpolant.js";
import { compile } from "../../lib/runtime/program.js";
import { sampleContinuous } from "../../lib/samplers/continuous.js";
import type { ContinuousPlan } from "../../lib/samplers/continuous.js";
import { continuousStepGraph } from "../../lib/samplers/continuous-step.js";
import { networkVelocity, velocityPlan } from "../../lib/samplers/adaptive.js";
import { adaptiveFlow } from "../../lib/samplers/flow-adaptive.js";
import { samplerNames, samplerOf } from "../../lib/samplers/samplers.js";
import { runPlan } from "./run-plan.js";
import type { Vector } from "./run-plan.js";

/** y comes in as noise grows, and is gone at data. */
const withPair = (level: Level): Level => {
  const { rates, c } = level;
  return { ...level, b: c * c, ...(rates && { rates: { ...rates, b: 2 * c * rates.c } }) };
};

const levels = pathLevels("gvp", { points: 7, from: 0.95, to: 0 });
const line = pathLine("gvp");
const pairedLevels = levels.map(withPair);
const pairedLine = {
  ofRatio: (ratio: number) => withPair(line.ofRatio(ratio)),
  ofTime: (time: number) => withPair(line.ofTime(time)),
};

/** A clean sample guessed from the state without its pair. */
const guess = (bare: number, { a, c }: Level): number => Math.tanh(bare / (a + c));

const kPair = 1.7;

/** Draws 0.1, 0.2, …, the same in every run. */
const counter = (): (() => Vector) => {
  let count = 0;
  return () => [0.1 * ++count];
};

// flows integrate b' y, and so carry it to the order of their method only
const exactOnes = samplerNames.filter((name) => !name.startsWith("flow"));

describe("a paired image", () => {
  it.each(exactOnes)("is carried along by %s", (name) => {
    const solver = samplerOf(name);
    const plain = runPlan(solver.plan(levels, line), [1.2], ([x], level) => [guess(x!, level)], {
      draw: counter(),
    });
    const paired = runPlan(
      solver.plan(pairedLevels, pairedLine),
      [1.2 + pairedLevels[0]!.b * kPair],
      ([x], level) => [guess(x! - level.b * kPair, level)],
      { draw: counter(), pair: [kPair] },
    );
    expect(paired[0]).toBeCloseTo(plain[0]!, 9);
  });
});

describe("the compiled step", () => {
  const draws = (index: number, early: boolean): number => Math.sin(3 * index + (early ? 1 : 2));

  /** End of a run on the graph, with the noise of `draws`. */
  async function onGraph(plan: ContinuousPlan): Promise<number> {
    const graph = continuousStepGraph(
      {
        denoise: (_, { x, times }) => {
          const turn = times.reshape([1, 1]).mul(Math.PI / 2);
          return x.div(turn.cos().add(turn.sin())).tanh();
        },
        batch: 1,
        shape: [1],
        plan,
        noise: "given",
      },
      { dtype: "f64" },
    );
    using program = await compile(graph, { isa: "ref" });
    using session = await program.bind();
    const names = graph.inputs.map(({ name }) => name).filter((name) => name.startsWith("noise"));
    const noise = (index: number) =>
      Object.fromEntries(
        names.map((name) => [name, Float64Array.of(draws(index, name !== "noise"))]),
      );
    const options = {
      plan, parameterisation: predictions.x0, batch: 1, shape: [1], seed: 0,
      start: Float64Array.of(1.2), noise, dtype: "f64",
    } as const; // prettier-ignore
    let x = NaN;
    for await (const { state } of sampleContinuous((inputs) => session.run(inputs), options))
      x = state.x[0]!;
    return x;
  }

  it("gives the adaptive flow its velocity", async () => {
    const [first] = levels;
    const graph = continuousStepGraph(
      { denoise: (_, { x }) => x.mul(0.5), batch: 2, shape: [1], plan: velocityPlan(first!) },
      { dtype: "f64" },
    );
    using program = await compile(graph, { isa: "ref" });
    using session = await program.bind();
    const velocity = networkVelocity((inputs) => session.run(inputs), {
      parameterisation: predictions.velocity,
      batch: 2,
    });
    // dx/dt = x / 2
    const ends: number[] = [];
    const grid = { levels: pathLevels("linear", { points: 3 }), line: pathLine("linear") };
    const options = { atol: 1e-10, rtol: 1e-10, norm: "sample", batch: 2 } as const;
    for await (const { x } of adaptiveFlow(velocity, Float64Array.of(1, -3), grid, options))
      ends.push(...x);
    [1, -3, Math.exp(-0.25), -3 * Math.exp(-0.25), Math.exp(-0.5), -3 * Math.exp(-0.5)].forEach(
      (value, i) => expect(ends[i]).toBeCloseTo(value, 8),
    );
  });

  it.each([
    ["heun", { churn: 3 }],
    ["dpm-2-ancestral", {}],
    ["dpm-solver-3m-sde", {}],
    ["unipc", { order: 3 }],
    ["lms", {}],
    ["dpm-solver-3s", { eta: 1 }],
    ["flow-adams", { slopes: 3 }],
    ["pndm", { start: "runge-kutta" }],
    ["flow-sde", { method: "heun" }],
  ])("of %s %o does what its plan says", async (name, options) => {
    const plan = samplerOf(name, options).plan(levels, line);
    const order = plan.steps.flatMap(({ evaluations }) =>
      evaluations.map(({ before }) => before !== undefined),
    );
    // drawn in the order of runPlan: before the network where there is an early update, then after
    const values = order.flatMap((early, i) => [
      ...(early ? [draws(i, true)] : []),
      draws(i, false),
    ]);
    let next = 0;
    const [expected] = runPlan(plan, [1.2], ([x], level) => [guess(x!, level)], {
      draw: () => [values[next++]!],
    });
    expect(await onGraph(plan)).toBeCloseTo(expected!, 9);
  });
});
