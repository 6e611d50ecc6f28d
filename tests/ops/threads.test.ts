// Results do not depend on the number of threads: the same bits with 1, 2 and 16.
import { afterAll, describe, expect, it } from "vitest";
import { configureBackend } from "../../lib/runtime/device.js";
import { opCases } from "./cases.js";
import { gradientGraph, smoothCases } from "./gradient-graph.js";
import { backends, backendsOf, feedsOf, forwardGraph, runner } from "./harness.js";
import type { OpCase } from "./cases.js";
import type { Feeds } from "./harness.js";
import type { Graph } from "../../lib/ir/graph.js";

afterAll(() => configureBackend({ threads: 2 }));

const bits = (feeds: Feeds): string[] =>
  Object.values(feeds).map((data) =>
    Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64"),
  );

async function expectSameBits(graph: Graph, c: OpCase, isa: string): Promise<void> {
  const program = await runner(graph, isa);
  const results: string[][] = [];
  for (const threads of [1, 2, 16]) {
    configureBackend({ threads });
    results.push(bits(await program.run(feedsOf(c, "f32"))));
  }
  program.dispose();
  expect(results[1]).toEqual(results[0]);
  expect(results[2]).toEqual(results[0]);
}

/** The largest case of an op has the most work items; of each op that has kernels of this backend. */
function largestOf(isa: string, cases: readonly OpCase[]): OpCase[] {
  const size = (c: OpCase): number =>
    Math.max(0, ...c.inputs.map(({ shape }) => shape.reduce((n, m) => n * m, 1)));
  const largest = new Map<string, OpCase>();
  for (const c of cases.filter(({ op }) => backendsOf(op).includes(isa))) {
    const known = largest.get(c.op);
    if (!known || size(c) > size(known)) largest.set(c.op, c);
  }
  return [...largest.values()];
}

describe.each(backends)("%s", (isa) => {
  it.each(largestOf(isa, opCases).map((c) => [c.op, c] as const))("%s", async (_, c) => {
    await expectSameBits(forwardGraph(c, "f32"), c, isa);
  });

  it.each(largestOf(isa, smoothCases).map((c) => [c.op, c] as const))(
    "gradient of %s",
    async (_, c) => {
      await expectSameBits(gradientGraph(c, "f32"), c, isa);
    },
  );
});
