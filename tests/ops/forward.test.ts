// Every case on every backend in f32, against the same graph in f64 on the reference backend.
import { describe, expect, it } from "vitest";
import { caseName, opCases } from "./cases.js";
import { largeCases } from "./cases-large.js";
import { backendsOf, excess, feedsOf, forwardGraph, isReal, run } from "./harness.js";
import type { OpCase } from "./cases.js";
import type { Feeds } from "./harness.js";

/** What is wrong with these outputs, by name. */
function faults(ours: Feeds, plain: Feeds, exact: Feeds, c: OpCase): string[] {
  return Object.entries(exact).flatMap(([name, expected]) => {
    if (isReal(expected)) {
      const fault = excess(ours[name]!, plain[name]!, expected, c);
      return fault ? [`${name} ${fault}`] : [];
    }
    return Array.from(expected).every((x, i) => x === ours[name]![i])
      ? []
      : [`${name} expected ${Array.from(expected)}, got ${Array.from(ours[name]!)}`];
  });
}

const cases = [...opCases, ...largeCases];

describe.each([...new Set(cases.map(({ op }) => op))])("%s", (op) => {
  const rows = cases.filter((c) => c.op === op);
  it.each(rows.map((c) => [caseName(c), c] as const))("%s", async (_, c) => {
    const exact = await run(forwardGraph(c, "f64"), "ref", feedsOf(c, "f64"));
    const graph = forwardGraph(c, "f32");
    const plain = await run(graph, "ref", feedsOf(c, "f32"));
    for (const isa of backendsOf(op)) {
      const ours = await run(graph, isa, feedsOf(c, "f32"));
      expect(faults(ours, plain, exact, c), isa).toEqual([]);
    }
  });
});
