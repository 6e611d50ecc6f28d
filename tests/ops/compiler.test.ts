// The native compiler on random programs: every backend against the plain evaluator.
import { describe, expect, it } from "vitest";
import type { Graph } from "../../lib/ir/graph.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import { noise } from "./gradient-graph.js";
import { backends, typedArray } from "./harness.js";
import type { Feeds, Real } from "./harness.js";
import { interpret } from "./interpreter.js";
import { rematerialise } from "../../lib/autodiff/rematerialise.js";
import { randomGraph } from "./random-graph.js";

/** Numbers for every input, parameter and state. */
function feedsFor(graph: Graph, dtype: Real): Feeds {
  return Object.fromEntries(
    graph.inputs.map(({ name, value }) => {
      const size = graph.values[value]!.shape.reduce((n, m) => n * m, 1);
      return [name, typedArray(dtype, noise(name, size))];
    }),
  );
}

/** Outputs, and states after the run. */
async function results(graph: Graph, feeds: Feeds, isa: string): Promise<Feeds> {
  using program = await compile(graph, { isa });
  const bound = graph.inputs.filter(({ role }) => role !== "input");
  const buffers = Object.fromEntries(
    bound.map(({ name, value }) => {
      const { dtype, shape } = graph.values[value]!;
      return [name, Buffer.fromArray(feeds[name]!, dtype, shape)];
    }),
  );
  using session = await program.bind(buffers);
  const given = graph.inputs.filter(({ role }) => role === "input").map(({ name }) => name);
  const outputs = await session.run(Object.fromEntries(given.map((name) => [name, feeds[name]!])));
  const updated = graph.outputs.filter(({ updates }) => updates !== undefined);
  const states = updated.map(({ name }) => [name, buffers[name]!.read()] as const);
  Object.values(buffers).forEach((buffer) => buffer.dispose());
  return { ...outputs, ...Object.fromEntries(states) };
}

function expectClose(ours: Feeds, exact: Record<string, number[]>, tolerance: number): void {
  expect(Object.keys(ours).sort()).toEqual(Object.keys(exact).sort());
  for (const [name, expected] of Object.entries(exact)) {
    const scale = Math.max(1e-3, ...expected.map(Math.abs));
    const error = Math.max(0, ...expected.map((e, i) => Math.abs(e - ours[name]![i]!)));
    expect(error / scale, name).toBeLessThan(tolerance);
  }
}

const programs = Array.from({ length: 120 }, (_, seed) => [seed, 10 + (seed % 6) * 8] as const);

describe("random programs", () => {
  it.each(programs)("seed %i, %i ops", async (seed, size) => {
    const graph = randomGraph(seed, size, "f64");
    const feeds = feedsFor(graph, "f64");
    const exact = interpret(graph, feeds);
    // storage in 16 bits turns rounding differences into steps of 2^-11
    const isStored = graph.nodes.some(({ attrs }) => attrs.dtype === "f16");
    expectClose(await results(graph, feeds, "ref"), exact, isStored ? 2e-3 : 1e-10);
    const graph32 = randomGraph(seed, size, "f32");
    const lighter = rematerialise(graph32, { minBytes: 0 });
    for (const [isa, form] of [
      ...backends.map((isa) => [isa, graph32] as const),
      ["", lighter] as const,
    ]) {
      const ours = await results(form, feedsFor(form, "f32"), isa);
      expectClose(ours, exact, isStored ? 5e-3 : 2e-4);
    }
  });
});
