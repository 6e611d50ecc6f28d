// The reference backend in f64 against an evaluator in plain JavaScript: two programs that share nothing but the graph.
import { describe, expect, it } from "vitest";
import { lower } from "../../lib/trace/lower.js";
import { caseName, opCases } from "./cases.js";
import { feedsOf, forwardGraph, isReal, run } from "./harness.js";
import { canInterpret, interpret } from "./interpreter.js";

const rows = opCases
  .map((c) => ({ c, graph: forwardGraph(c, "f64") }))
  .filter(({ graph }) => canInterpret(lower(graph, new Set())));

function expectClose(ours: ArrayLike<number>, exact: readonly number[], name: string): void {
  const scale = Math.max(0, ...exact.map(Math.abs).filter(Number.isFinite));
  exact.forEach((e, i) => {
    const same = Object.is(ours[i]! + 0, e + 0) || Math.abs(ours[i]! - e) <= 1e-10 * scale;
    expect(same, `${name} element ${i}: expected ${e}, got ${ours[i]}`).toBe(true);
  });
}

describe.each([...new Set(rows.map(({ c }) => c.op))])("%s", (op) => {
  const own = rows.filter(({ c }) => c.op === op);
  it.each(own.map(({ c, graph }) => [caseName(c), c, graph] as const))(
    "%s",
    async (_, c, graph) => {
      const feeds = feedsOf(c, "f64");
      const ours = await run(graph, "ref", feeds);
      const exact = interpret(graph, feeds);
      for (const [name, data] of Object.entries(ours)) {
        if (isReal(data)) expectClose(data, exact[name]!, name);
        else expect(Array.from(data, Number)).toEqual(exact[name]!.map((x) => x + 0)); // no -0
      }
    },
  );
});
