// A copied graph: untouched nodes as they were, replacements in their place, and none of another shape.
import { describe, expect, it } from "vitest";
import { printGraph } from "../../lib/ir/print.js";
import { rewrite } from "../../lib/trace/rewrite.js";
import { trace } from "../../lib/trace/trace.js";

const graph = trace((t) => {
  const x = t.input("x", { shape: [2, 3] });
  t.scoped("layer", () => t.output("y", x.exp().mul(2)));
});

describe("rewrite", () => {
  it("copies a graph of which nothing is replaced", () => {
    const copy = rewrite(graph, () => undefined);
    expect(printGraph(copy)).toBe(printGraph(graph));
    expect(copy.inputs).toEqual(graph.inputs);
  });

  it("puts a replacement in the place and the scope of a node", () => {
    const copy = rewrite(graph, (_, { op, inputs }, now) =>
      op === "exp" ? [now(inputs[0]!).sin()] : undefined,
    );
    expect(printGraph(copy)).toBe(printGraph(graph).replace(" exp ", " sin "));
  });

  it.each(["another shape", "fewer results"])("refuses %s", (what) => {
    const replace = () =>
      rewrite(graph, (_, { op, inputs }, now) => {
        if (op !== "exp") return undefined;
        return what === "fewer results" ? [] : [now(inputs[0]!).transpose([1, 0])];
      });
    expect(replace).toThrow(/rewrite: expected f32\[2,3\] for exp, got/);
  });
});
