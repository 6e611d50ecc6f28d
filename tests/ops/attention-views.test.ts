// Attention on columns of one product: queries, keys and values are read where they lie, with the same bits as from tensors
// of their own.
import { describe, expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import { uniformStream } from "../../lib/nn/random.js";
import { compile } from "../../lib/runtime/program.js";
import { attention, split } from "../../lib/trace/functions.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace, type Trace } from "../../lib/trace/trace.js";
import { backends } from "./harness.js";

const [B, N, H, D, E] = [2, 37, 3, 20, 12] as const;
const widths = [H * D, H * D, H * E];
const floats = (name: string, count: number): Float32Array =>
  Float32Array.from(uniformStream(5, name, count), (u) => 2 * u - 1);

/** Output and the gradients of its weighted sum; `isSplit` takes q, k and v from one input. */
function attend(t: Trace, isSplit: boolean): void {
  const whole = t.input("qkv", { shape: [B, N, 2 * H * D + H * E] });
  const parts = split(whole, widths, 2).map((part) => (isSplit ? part : part.add(t.input("zero", { shape: [1] })))); // prettier-ignore
  const [q, k, v] = parts.map((x, i) => x.reshape([B, N, H, [D, D, E][i]!])) as [Tensor, Tensor, Tensor]; // prettier-ignore
  const { out, lse } = attention(q, k, v, { causal: true });
  t.output("out", out);
  t.output("lse", lse);
  const loss = out.mul(t.input("w", { shape: [B, N, H, E] })).sum();
  t.output("dqkv", gradients(loss, [whole])[0]!);
}

async function run(isSplit: boolean, isa: string) {
  using program = await compile(
    trace((t) => attend(t, isSplit)),
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
  it("reads queries, keys and values out of one tensor", async () => {
    const views = await run(true, isa);
    const copies = await run(false, isa);
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
