// Every fused op, and the gradient graphs that hold fused gradient ops, against their decompositions.
import { describe, expect, it } from "vitest";
import { opDef } from "../../lib/ir/op-table.js";
import { hasDecomposition } from "../../lib/trace/decompose.js";
import { lower } from "../../lib/trace/lower.js";
import type { Graph } from "../../lib/ir/graph.js";
import { caseName, opCases } from "./cases.js";
import type { OpCase } from "./cases.js";
import { gradientGraph, smoothCases } from "./gradient-graph.js";
import { excess, feedsOf, forwardGraph, isReal, run } from "./harness.js";
import type { Feeds, Real } from "./harness.js";

const isFused = (op: string): boolean => opDef(op).traits.has("fused") && hasDecomposition(op);

/** Largest difference of any real output, relative to its largest element; Infinity if integers differ. */
function difference(a: Feeds, b: Feeds): number {
  const perOutput = Object.keys(a).map((name) => {
    const [x, y] = [a[name]!, b[name]!].map((data) => Array.from(data as ArrayLike<number>)) as [
      number[],
      number[],
    ];
    if (!isReal(a[name]!)) return x.every((v, i) => v === y[i]) ? 0 : Infinity;
    const scale = Math.max(1e-30, ...x.map(Math.abs));
    return Math.max(0, ...x.map((v, i) => Math.abs(v - y[i]!))) / scale;
  });
  return Math.max(...perOutput);
}

async function bothForms(
  graph: Graph,
  c: OpCase,
  dtype: Real,
  isa: string,
): Promise<[Feeds, Feeds]> {
  const feeds = feedsOf(c, dtype);
  return [await run(graph, isa, feeds), await run(lower(graph, new Set()), isa, feeds)];
}

const fusedRows = opCases.filter(({ op }) => isFused(op)).map((c) => [caseName(c), c] as const);
const gradientRows = smoothCases
  .filter(({ op }) => isFused(op))
  .map((c) => [caseName(c), c] as const);

describe("fused op equals its decomposition", () => {
  it.each(fusedRows)("%s", async (_, c) => {
    const [fused, plain] = await bothForms(forwardGraph(c, "f64"), c, "f64", "ref");
    expect(difference(fused, plain)).toBeLessThan(1e-9);
    const [fused32, plain32] = await bothForms(forwardGraph(c, "f32"), c, "f32", "");
    const faults = Object.keys(fused)
      .filter((name) => isReal(fused[name]!))
      .flatMap((name) => excess(fused32[name]!, plain32[name]!, fused[name]!, c) ?? []);
    expect(faults).toEqual([]);
  });

  it.each(gradientRows)("gradient of %s", async (_, c) => {
    const [fused, plain] = await bothForms(gradientGraph(c, "f64"), c, "f64", "ref");
    expect(difference(fused, plain)).toBeLessThan(1e-9);
  });
});
