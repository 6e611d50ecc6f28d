// A step cut in two by its fixed inputs computes what the whole step computes, and repeats nothing that they decide.
import { describe, expect, it } from "vitest";
import type { Graph } from "../../lib/ir/graph.js";
import { splitFixed } from "../../lib/ir/split.js";
import { verify } from "../../lib/ir/verify.js";
import { attention } from "../../lib/nn/attention.js";
import { zeros } from "../../lib/nn/init.js";
import { ParamScope } from "../../lib/nn/module.js";
import { uniformStream } from "../../lib/nn/random.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import { trace } from "../../lib/trace/trace.js";

const [B, N, M, D] = [2, 6, 5, 16] as const;

/** Attention over a fixed text, and an embedding of a fixed label on every position. */
const step = (): Graph =>
  trace((t) => {
    const x = t.input("x", { shape: [B, N, D] });
    const text = t.input("text", { shape: [B, M, D] });
    const labels = t.input("labels", { shape: [B], dtype: "i32" });
    const scope = new ParamScope();
    const mix = attention(scope.child("attn"), { width: D, heads: 2, contextWidth: D });
    const table = t.parameter({ name: "table", shape: [3, D], init: zeros });
    const named = table.gather(labels).silu().reshape([B, 1, D]).broadcastTo([B, N, D]);
    const y = x.add(mix(x.mul(named), text));
    t.output("y", y.add(t.parameter({ name: "bias", shape: [D], init: zeros })));
    t.output("labels", labels);
  });

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

async function run(graph: Graph, inputs: Record<string, Float32Array | Int32Array>) {
  verify(graph);
  using program = await compile(graph);
  const weights = graph.inputs.filter(({ role }) => role === "weight");
  const buffers = Object.fromEntries(
    weights.map(({ name, value }) => {
      const { shape } = graph.values[value]!;
      const values = Float32Array.from(uniformStream(1, name, sizeOf(shape)));
      return [name, Buffer.fromArray(values, "f32", shape)];
    }),
  );
  using session = await program.bind(buffers);
  return session.run(inputs);
}

const floats = (name: string, shape: readonly number[]): Float32Array =>
  Float32Array.from(uniformStream(2, name, sizeOf(shape)));

const inputs = {
  x: floats("x", [B, N, D]),
  text: floats("text", [B, M, D]),
  labels: Int32Array.of(2, 0),
};
const names = (graph: Graph, role: string): string[] =>
  graph.inputs.filter((input) => input.role === role).map(({ name }) => name);

describe("a step with fixed inputs", () => {
  it("gives the same bits in two graphs", async () => {
    const { x, ...fixed } = inputs;
    const whole = await run(step(), inputs);
    const { once, step: rest } = splitFixed(step(), new Set(Object.keys(fixed)));
    const kept = await run(once, fixed);
    expect(await run(rest, { x, ...kept })).toEqual(whole);
  });

  it("leaves only what changes in the step: no product with the text, no broadcast before it", () => {
    const { once, step: rest } = splitFixed(step(), new Set(["text", "labels"]));
    const products = (graph: Graph): number =>
      graph.nodes.filter(({ op }) => op === "matmul").length;
    expect([products(step()), products(once), products(rest)]).toEqual([4, 2, 2]);
    expect(once.outputs.map(({ name }) => name)).toEqual(["labels", "once.1", "once.2", "once.3"]);
    expect(rest.nodes.some(({ op }) => op === "broadcastTo")).toBe(true);
    expect(names(once, "input")).toEqual(["text", "labels"]);
    expect(names(rest, "input").sort()).toEqual(["labels", "once.1", "once.2", "once.3", "x"]);
    expect(names(once, "weight")).toContain("table");
    expect(names(rest, "weight")).not.toContain("table");
  });

  it("changes nothing without fixed inputs", () => {
    const { once, step: rest } = splitFixed(step(), new Set());
    expect(once.nodes).toEqual([]);
    expect(rest.nodes.length).toBe(step().nodes.length);
  });
});
