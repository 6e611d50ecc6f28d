// Attention on columns of one product: queries, keys and values are read where they lie, with the same bits as from tensors
// of their own.
import { describe, expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import { uniformStream } from "../../lib/nn/random.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile, type Quantize } from "../../lib/runtime/program.js";
import { attention, matmul, split } from "../../lib/trace/functions.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace, type Trace } from "../../lib/trace/trace.js";
import { backends } from "./harness.js";

const [B, N, H, D, E] = [2, 37, 3, 20, 12] as const;
const widths = [H * D, H * D, H * E];
const floats = (name: string, count: number): Float32Array =>
  Float32Array.from(uniformStream(5, name, count), (u) => 2 * u - 1);

/** What lies next to each other: queries, keys and values of all heads, or those of each head. */
type Order = "all heads" | "each head";

/** Output and the gradients of its weighted sum; `isSplit` takes q, k and v from one input. */
function attend(t: Trace, isSplit: boolean, order: Order): void {
  const whole = t.input("qkv", { shape: [B, N, 2 * H * D + H * E] });
  const slices =
    order === "all heads"
      ? split(whole, widths, 2)
      : split(whole.reshape([B, N, H, 2 * D + E]), [D, D, E], 3);
  const parts = slices.map((part) => (isSplit ? part : part.add(t.input("zero", { shape: [1] })))); // prettier-ignore
  const [q, k, v] = parts.map((x, i) => x.reshape([B, N, H, [D, D, E][i]!])) as [Tensor, Tensor, Tensor]; // prettier-ignore
  const { out, lse } = attention(q, k, v, { causal: true });
  t.output("out", out);
  t.output("lse", lse);
  const loss = out.mul(t.input("w", { shape: [B, N, H, E] })).sum();
  t.output("dqkv", gradients(loss, [whole])[0]!);
}

async function run(isSplit: boolean, order: Order, isa: string) {
  using program = await compile(
    trace((t) => attend(t, isSplit, order)),
    { isa },
  );
  using session = await program.bind();
  const ops = program.plan().steps.map(({ op }) => op);
  const outputs = await session.run({
    qkv: floats("qkv", B * N * (2 * H * D + H * E)),
    w: floats("w", B * N * H * E),
    ...(isSplit ? {} : { zero: new Float32Array(1) }),
  });
  return { ops, outputs };
}

describe.each(backends)("%s", (isa) => {
  it.each(["all heads", "each head"] as const)("reads %s out of one tensor", async (order) => {
    const views = await run(true, order, isa);
    const copies = await run(false, order, isa);
    expect(views.ops).not.toContain("slice");
    expect(views.outputs).toEqual(copies.outputs);
  });
});

it("copies what others read too", async () => {
  const graph = trace((t) => {
    const x = t.input("x", { shape: [1, 8, 96] });
    const [q, k, v] = split(x, [32, 32, 32], 2).map((part) => part.reshape([1, 8, 2, 16])) as [Tensor, Tensor, Tensor]; // prettier-ignore
    t.output("out", attention(q, k, v).out);
    t.output("k", k);
    t.output("v", v.exp());
  });
  using program = await compile(graph);
  const ops = program.plan().steps.map(({ op }) => op);
  expect(ops.filter((op) => op === "slice")).toHaveLength(2);
});

interface Projections {
  readonly width: number;
  readonly hasBias: boolean;
  readonly winograd: boolean;
  readonly quantize?: Quantize;
}

/** Self-attention and attention to a context, every projection a product of its own; `isApart` returns them too. */
function project(t: Trace, { width, hasBias }: Projections, isApart: boolean): void {
  const x = t.input("x", { shape: [2, 64, 256] });
  const context = t.input("context", { shape: [2, 64, 320] });
  const init = { kind: "zeros" } as const;
  const heads = (name: string, from: Tensor): Tensor => {
    const product = matmul(from, t.parameter({ name, shape: [from.shape[2]!, width], init }));
    const y = hasBias ? product.add(t.parameter({ name: `${name}.bias`, shape: [width], init })) : product; // prettier-ignore
    if (isApart) t.output(name, y);
    return y.reshape([2, 64, 4, width / 4]);
  };
  t.output("self", attention(heads("q", x), heads("k", x), heads("v", x)).out);
  t.output("cross", attention(heads("cross.q", x), heads("cross.k", context), heads("cross.v", context)).out); // prettier-ignore
}

async function runProjections(projections: Projections, isApart: boolean, isa: string) {
  const graph = trace((t) => project(t, projections, isApart));
  using program = await compile(graph, { ...projections, isa });
  const weights = graph.inputs.filter(({ role }) => role === "weight");
  const buffers = weights.map(({ name, value }) => {
    const { shape } = graph.values[value]!;
    const numbers = floats(name, shape.reduce((a, b) => a * b, 1)).map((w) => w / 8); // prettier-ignore
    return [name, Buffer.fromArray(numbers, "f32", shape)] as const;
  });
  using session = await program.bind(Object.fromEntries(buffers));
  const { self, cross } = await session.run({
    x: floats("x", 2 * 64 * 256),
    context: floats("context", 2 * 64 * 320),
  });
  buffers.forEach(([, buffer]) => buffer.dispose());
  const { steps, weightBytes } = program.plan();
  const outputs = [self, cross].flatMap((y) => Array.from(y as Float32Array));
  const ops = steps.map(({ op }) => op.replace(/\+.*/, ""));
  return { ops, weightBytes, outputs, text: program.print() };
}

describe.each(backends)("projections on %s", (isa) => {
  it.each<Projections>([
    { width: 256, hasBias: true, winograd: false },
    { width: 256, hasBias: false, winograd: false },
    { width: 256, hasBias: true, winograd: false, quantize: "int8" },
    { width: 256, hasBias: true, winograd: true },
    { width: 320, hasBias: true, winograd: true }, // odd numbers of panels
  ])("are one product: %o", async (projections) => {
    const joined = await runProjections(projections, false, isa);
    const apart = await runProjections(projections, true, isa);
    expect(joined.ops.filter((op) => op === "matmul")).toHaveLength(3);
    expect(apart.ops.filter((op) => op === "matmul")).toHaveLength(6);
    expect(joined.ops).not.toContain("slice");
    if (projections.winograd) {
      const errors = joined.outputs.map((y, i) => Math.abs(y - apart.outputs[i]!));
      expect(errors.reduce((a, b) => Math.max(a, b))).toBeLessThan(1e-5);
      return;
    }
    expect(joined.outputs).toEqual(apart.outputs);
    expect(joined.text).not.toMatch(/concat \[.*:f32\[\d+,\d+\] =/); // weights stay apart
    const biases = projections.hasBias ? 5 * projections.width * 4 : 0;
    expect(joined.weightBytes - apart.weightBytes).toBe(biases);
  });
});
