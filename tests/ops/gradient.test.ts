// Gradients in f64 against central differences along random directions, and in f32 on each backend against f64.
import { describe, expect, it } from "vitest";
import { caseName } from "./cases.js";
import type { OpCase } from "./cases.js";
import type { Graph } from "../../lib/ir/graph.js";
import {
  gradientGraph,
  largeSmoothCases,
  noise,
  secondGraph,
  smoothCases,
} from "./gradient-graph.js";
import { backendsOf, excess, feedsOf, run, runner } from "./harness.js";

const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
};

const norm = (a: ArrayLike<number>): number => Math.sqrt(dot(a, a));

/**
 * Compares d<i> . u with (loss(x + h u) - loss(x - h u)) / 2h for one random direction u an input, relative to the size
 * that the product of two such vectors has.
 */
async function expectMatchesDifferences(graph: Graph, c: OpCase): Promise<void> {
  const feeds = feedsOf(c, "f64");
  const exact = await runner(graph, "ref");
  const results = await exact.run(feeds);
  const step = 1e-4;
  for (const name of Object.keys(results).filter((key) => key !== "loss")) {
    const input = `x${name.slice(1)}`;
    const direction = noise(`direction ${input}`, feeds[input]!.length);
    const lossAt = async (h: number): Promise<number> => {
      const moved = Float64Array.from(feeds[input]!, (x, i) => x + h * direction[i]!);
      return (await exact.run({ ...feeds, [input]: moved })).loss![0]!;
    };
    // fourth order: error h^4
    const near = (await lossAt(step)) - (await lossAt(-step));
    const far = (await lossAt(2 * step)) - (await lossAt(-2 * step));
    const difference = (8 * near - far) / (12 * step);
    const analytic = dot(results[name]!, direction);
    const scale = norm(results[name]!) * norm(direction) + 1e-6;
    expect(
      Math.abs(difference - analytic) / scale,
      `${input}: ${difference} vs ${analytic}`,
    ).toBeLessThan(1e-5);
  }
  exact.dispose();
}

describe.each([...new Set(smoothCases.map(({ op }) => op))])("%s", (op) => {
  const rows = smoothCases.filter((c) => c.op === op).map((c) => [caseName(c), c] as const);

  it.each(rows)("%s matches differences", async (_, c) => {
    await expectMatchesDifferences(gradientGraph(c, "f64"), c);
  });

  const twice = rows.filter(([, c]) => c.isTwiceSmooth);
  if (twice.length > 0) {
    it.each(twice)("%s, twice", async (_, c) => expectMatchesDifferences(secondGraph(c), c));
  }

  const all = [
    ...rows,
    ...largeSmoothCases.filter((c) => c.op === op).map((c) => [caseName(c), c] as const),
  ];
  it.each(all)("%s in f32", async (_, c) => {
    const exact = await run(gradientGraph(c, "f64"), "ref", feedsOf(c, "f64"));
    const graph = gradientGraph(c, "f32");
    const plain = await run(graph, "ref", feedsOf(c, "f32"));
    for (const isa of backendsOf(op)) {
      const ours = await run(graph, isa, feedsOf(c, "f32"));
      const faults = Object.keys(exact)
        .filter((name) => name !== "loss")
        .flatMap(
          (name) => excess(ours[name]!, plain[name]!, exact[name]!, { slack: c.slack ?? 1 }) ?? [],
        );
      expect(faults, isa).toEqual([]);
    }
  });
});
