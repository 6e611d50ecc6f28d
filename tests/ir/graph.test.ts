// Bookkeeping of graphs: verification rejects broken ones, bytes are stable, pruning and merging keep meaning.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DiffusionError, checkOptions, nearestName } from "../../lib/errors.js";
import { encode } from "../../lib/ir/encode.js";
import type { Graph } from "../../lib/ir/graph.js";
import { printGraph } from "../../lib/ir/print.js";
import { mergeDuplicates } from "../../lib/ir/prune.js";
import { adjacentRuns, broadcastShapes, canBroadcastTo, sizeOf } from "../../lib/ir/shape.js";
import { verify } from "../../lib/ir/verify.js";
import { GraphTrace, trace } from "../../lib/trace/trace.js";

const sample = (): Graph =>
  trace(
    (t) => {
      const x = t.input("x", { shape: [2, 3] });
      const w = t.parameter({ name: "w", shape: [3], init: { kind: "ones" } });
      t.output("y", x.mul(w).sum([1]));
      t.update("w", w.mul(0.9));
    },
    { parameters: "state" },
  );

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** A deep copy that `change` may spoil. */
function broken(change: (graph: Graph) => void): () => void {
  const graph = structuredClone(sample());
  change(graph);
  return () => verify(graph);
}

describe("verify", () => {
  it("accepts a sound graph", () => expect(() => verify(sample())).not.toThrow());

  const breaks: [string, (graph: Graph) => void, string][] = [
    [
      "a value made later",
      (g) => ((g.nodes[2] as Mutable<Graph["nodes"][0]>).inputs = [0, 3]),
      "expected inputs made before",
    ],
    [
      "an unknown value",
      (g) => ((g.nodes[2] as Mutable<Graph["nodes"][0]>).inputs = [0, 99]),
      "expected known values",
    ],
    [
      "a wrong shape",
      (g) => ((g.values[2] as Mutable<Graph["values"][0]>).shape = [2, 4]),
      "expected f32[2,3], got",
    ],
    [
      "a wrong dtype",
      (g) => ((g.values[2] as Mutable<Graph["values"][0]>).dtype = "i32"),
      "expected f32[2,3], got",
    ],
    [
      "an unknown op",
      (g) => ((g.nodes[2] as Mutable<Graph["nodes"][0]>).op = "mull"),
      'got "mull"; did you mean "mul"?',
    ],
    [
      "a wrong producer",
      (g) => ((g.values[2] as Mutable<Graph["values"][0]>).node = 3),
      "made before `%3 = sum",
    ],
    ["an unlisted input", (g) => g.inputs.pop(), "among the graph's inputs, got 0 times"],
    [
      "an input that is computed",
      (g) => g.inputs.push({ name: "z", value: 2, role: "input" }),
      "to come from an input node, got mul",
    ],
    [
      "an output out of range",
      (g) => g.outputs.push({ name: "z", value: 99 }),
      "output z to be a value, got %99",
    ],
    [
      "a repeated output",
      (g) => g.outputs.push({ name: "y", value: 2 }),
      "distinct outputs, got y twice",
    ],
    [
      "an update of an input",
      (g) => g.outputs.push({ name: "z", value: 0, updates: "x" }),
      "to update a state, got x",
    ],
    [
      "a second update",
      (g) => g.outputs.push({ name: "z", value: 1, updates: "w" }),
      "one update of w, got two",
    ],
    [
      "an update of another shape",
      (g) => g.outputs.push({ name: "z", value: 0, updates: "w" }),
      "to be f32[3], got f32[2,3]",
    ],
  ];

  it.each(breaks)("rejects %s", (_, change, message) => expect(broken(change)).toThrow(message));
});

describe("encode", () => {
  it("starts with the magic and the version, and is a function of the graph", () => {
    const bytes = encode(sample());
    expect([...bytes.slice(0, 8)]).toEqual([0x53, 0x4d, 0x4c, 0x47, 1, 0, 0, 0]);
    expect(encode(sample())).toEqual(bytes);
  });

  it("writes attributes sorted by key, whatever their order in the object", () => {
    const withAttrs = (attrs: Record<string, number>): Uint8Array => {
      const t = new GraphTrace();
      t.append("clamp", [t.input("x", { shape: [1] })], attrs);
      return encode(t.graph);
    };
    expect(withAttrs({ min: 0, max: 1 })).toEqual(withAttrs({ max: 1, min: 0 }));
  });

  it("has the stated layout", () => {
    const t = new GraphTrace();
    t.output("é", t.input("x", { shape: [2] }));
    const bytes = Buffer.from(encode(t.graph));
    const text = (s: string): number[] => [Buffer.byteLength(s), 0, 0, 0, ...Buffer.from(s)];
    expect([...bytes.subarray(8)]).toEqual(
      [
        [1, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0], // one value: f32, rank 1, [2]
        [1, 0, 0, 0, text("input"), text(""), 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], // one node: no inputs, output 0
        [2, 0, 0, 0, text("name"), 1, text("x"), text("role"), 1, text("input")], // its attributes
        [1, 0, 0, 0, text("x"), 0, 0, 0, 0, 0], // graph input x: value 0, role 0
        [1, 0, 0, 0, text("é"), 0, 0, 0, 0, 0], // graph output: value 0, no update
      ].flat(2),
    );
  });

  it("takes large constants", () => {
    const values = Array.from({ length: 5000 }, (_, i) => i * 1.5);
    const bytes = Buffer.from(encode(trace((t) => t.output("y", t.constant(values)))));
    const start = bytes.indexOf("values") + "values".length + 1; // key, then tag 3
    expect(bytes.readUInt32LE(start)).toBe(values.length);
    expect(values.map((_, i) => bytes.readDoubleLE(start + 4 + 8 * i))).toEqual(values);
  });
});

describe("prune and merge", () => {
  it("do not change a graph that has nothing to drop", () => {
    const graph = sample();
    expect(printGraph(mergeDuplicates(graph))).toBe(printGraph(graph));
  });

  it("merge tells attributes apart", () => {
    const t = new GraphTrace();
    const x = t.input("x", { shape: [1] });
    t.output("a", x.clamp(0, Infinity));
    t.output("b", x.clamp(-0, Infinity));
    t.output("c", x.clamp(0, NaN));
    t.output("d", x.clamp(0, Infinity));
    const { outputs } = mergeDuplicates(t.graph);
    expect(outputs.map(({ value }) => value)).toEqual([1, 2, 3, 1]);
  });
});

const shapes = fc.array(fc.constantFrom(1, 2, 3), { maxLength: 4 });

describe("shapes", () => {
  it("broadcasting is commutative, and both operands broadcast to the result", () => {
    fc.assert(
      fc.property(shapes, shapes, (a, b) => {
        const common = broadcastShapes(a, b);
        expect(broadcastShapes(b, a)).toEqual(common);
        if (!common) return;
        expect(canBroadcastTo(a, common) && canBroadcastTo(b, common)).toBe(true);
        expect(sizeOf(common)).toBeGreaterThanOrEqual(Math.max(sizeOf(a), sizeOf(b)));
      }),
    );
  });

  it("broadcasting agrees with the rule on each axis, and with the add op", () => {
    fc.assert(
      fc.property(shapes, shapes, (a, b) => {
        const fits = [...a].reverse().every((n, i) => {
          const m = b.at(-1 - i) ?? 1;
          return n === m || n === 1 || m === 1;
        });
        expect(broadcastShapes(a, b) !== undefined).toBe(fits);
        const t = new GraphTrace();
        const sum = (): unknown => t.input("a", { shape: a }).add(t.input("b", { shape: b })).shape;
        if (fits) expect(sum()).toEqual(broadcastShapes(a, b));
        else expect(sum).toThrow(DiffusionError);
      }),
    );
  });

  it("runs of axes", () => {
    expect(adjacentRuns([0, 1, 3, 5, 6])).toEqual([[0, 1], [3], [5, 6]]);
    expect(adjacentRuns([])).toEqual([]);
  });
});

describe("errors", () => {
  it("name the nearest option", () => {
    expect(nearestName("grops", ["groups", "eps"])).toBe("groups");
    expect(nearestName("zzzzzz", ["groups", "eps"])).toBeUndefined();
    expect(() => checkOptions("conv2d", { padding: 1, strid: 2 }, ["stride", "padding"])).toThrow(
      'conv2d: expected options among stride, padding, got "strid"; did you mean "stride"?',
    );
  });
});
