// Bytes from anywhere: decoding and compiling refuse them with a coded error and never crash. And both sides print alike.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encode } from "../../lib/ir/encode.js";
import type { Graph, Node } from "../../lib/ir/graph.js";
import { printGraph } from "../../lib/ir/print.js";
import { native } from "../../lib/runtime/native.js";
import { forwardGraph } from "../ops/harness.js";
import { opCases } from "../ops/cases.js";
import { smallGraph } from "./workload.js";

const samples = [
  smallGraph(),
  ...opCases.filter((_, i) => i % 9 === 0).map((c) => forwardGraph(c, "f32")),
];

/** Compiles, binds and runs whatever was decoded, when it is small; returns the error code or "ok". */
async function survive(bytes: Uint8Array): Promise<string> {
  const addon = native();
  try {
    const program = await addon.compile(bytes, "");
    const plan = program.plan();
    program.dispose();
    return plan.arenaBytes >= 0 ? "ok" : "negative arena";
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

const codes = ["ok", "internal", "shape", "dtype", "option", "memory"];

describe("hostile graphs", () => {
  it("survives changed, cut and lengthened bytes", async () => {
    const encoded = samples.map(encode);
    const edit = fc.record({ at: fc.double({ min: 0, max: 1, noNaN: true }), value: fc.nat(255) });
    await fc.assert(
      fc.asyncProperty(
        fc.nat(encoded.length - 1),
        fc.array(edit, { maxLength: 6 }),
        fc.integer({ min: -40, max: 8 }),
        async (index, edits, growth) => {
          const source = encoded[index]!;
          const bytes = new Uint8Array(Math.max(0, source.length + growth));
          bytes.set(source.subarray(0, bytes.length));
          for (const { at, value } of edits) bytes[Math.floor(at * bytes.length)] = value;
          expect(codes).toContain(await survive(bytes));
        },
      ),
      { numRuns: 1000 },
    );
  });

  it("survives random bytes", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
        expect(await survive(bytes)).toBe("internal");
      }),
    );
  });

  it("refuses attributes that would leave a tensor", async () => {
    const graphs = opCases.map((c) => forwardGraph(c, "f32"));
    const attribute = fc.oneof(
      fc.integer(),
      fc.double(),
      fc.constantFrom(-1, 0, 1, 2 ** 31, 2 ** 53, NaN, Infinity),
    );
    const change = (graph: Graph, pick: number, value: number): Graph => ({
      ...graph,
      nodes: graph.nodes.map((node): Node => {
        const keys = Object.keys(node.attrs);
        if (node.op === "input" || keys.length === 0) return node;
        const key = keys[pick % keys.length]!;
        const old = node.attrs[key]!;
        const list = Array.isArray(old)
          ? (old as number[]).map((n, i) => (i === pick % (old as number[]).length ? value : n))
          : undefined;
        return {
          ...node,
          attrs: { ...node.attrs, [key]: list ?? (typeof old === "number" ? value : old) },
        };
      }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.nat(graphs.length - 1),
        fc.nat(20),
        attribute,
        async (index, pick, value) => {
          expect(codes).toContain(await survive(encode(change(graphs[index]!, pick, value))));
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("printing", () => {
  it.each(samples.map((graph) => [graph.nodes.at(-1)!.op, graph] as const))(
    "is the same on both sides: %s",
    (_, graph) => {
      expect(native().print(encode(graph))).toBe(printGraph(graph));
    },
  );

  it("writes numbers as JavaScript does", () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.double(), fc.integer(), fc.float())), (values) => {
        const graph: Graph = {
          nodes: [
            {
              id: 0,
              op: "x",
              inputs: [],
              attrs: { values, one: values[0] ?? 0 },
              outputs: [0],
              scope: "a.b",
            },
          ],
          values: [{ id: 0, node: 0, output: 0, dtype: "f32", shape: [1] }],
          inputs: [],
          outputs: [],
        };
        expect(native().print(encode(graph))).toBe(printGraph(graph));
      }),
      { numRuns: 300 },
    );
  });
});
