// Attention with one head: two products with weights are as good as four (docs/design/0029).
import { describe, expect, it } from "vitest";
import { uniformStream } from "../../lib/nn/random.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile, type Quantize } from "../../lib/runtime/program.js";
import { attention } from "../../lib/trace/functions.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace, type Trace } from "../../lib/trace/trace.js";
import { backends, typedArray } from "./harness.js";

interface Case {
  readonly heads?: number;
  /** Channels of the context of a cross attention; self-attention without. */
  readonly context?: number;
  /** Width of queries and keys, and of values and the result before the last product. */
  readonly width?: number;
  readonly hasBias?: boolean;
  readonly mask?: boolean;
  readonly causal?: boolean;
  /** What others see too. */
  readonly returned?: "lse" | "scores" | "all";
  readonly quantize?: Quantize;
}

const [B, N, M, C] = [3, 20, 24, 64] as const;

function graphOf(c: Case, dtype: "f32" | "f64") {
  const { heads = 1, width = C, hasBias = true, returned } = c;
  const parameter = (t: Trace, name: string, shape: number[]): Tensor =>
    t.parameter({ name, shape, init: { kind: "zeros" } });
  const linear = (t: Trace, name: string, x: Tensor, out: number): Tensor => {
    const y = x.matmul(parameter(t, name, [x.shape.at(-1)!, out]));
    return hasBias ? y.add(parameter(t, `${name}.bias`, [out])) : y;
  };
  return trace(
    (t) => {
      const x = t.input("x", { shape: [B, N, C] });
      const y = c.context ? t.input("y", { shape: [B, M, c.context] }) : x;
      const K = y.shape[1]!;
      const byHead = (z: Tensor): Tensor => z.reshape([...z.shape.slice(0, 2), heads, width / heads]); // prettier-ignore
      const parts = [linear(t, "q", x, width), linear(t, "k", y, width), linear(t, "v", y, width)];
      if (returned === "all") parts.forEach((part, i) => t.output(`part ${i}`, part));
      const [q, k, v] = parts.map(byHead) as [Tensor, Tensor, Tensor];
      const mask = c.mask ? t.input("mask", { shape: [N, K] }) : undefined;
      const mixed = attention(q, k, v, { scale: 0.3, causal: c.causal ?? false, ...(mask && { mask }) }); // prettier-ignore
      if (returned === "lse") t.output("lse", mixed.lse);
      if (returned === "scores") t.output("mixed", mixed.out);
      t.output("out", linear(t, "out", mixed.out.reshape([B, N, width]), C).add(x));
    },
    { dtype },
  );
}

async function run(c: Case, isa: string, spoilt?: number) {
  const dtype = isa === "f64" ? "f64" : "f32";
  const graph = graphOf(c, dtype);
  const { quantize } = c;
  using program = await compile(graph, { isa: isa === "f64" ? "ref" : isa, ...(quantize && { quantize }) }); // prettier-ignore
  const weights: Record<string, Buffer> = {};
  const feeds: Record<string, ReturnType<typeof typedArray>> = {};
  for (const { name, value, role } of graph.inputs) {
    const { shape } = graph.values[value]!;
    const size = shape.reduce((a, b) => a * b, 1);
    const numbers = Array.from(uniformStream(5, name, size), (u) => 2 * u - 1);
    if (name === "mask") numbers.fill(-Infinity, 0, shape[1]! - 1);
    if (name === "x" && spoilt !== undefined) numbers[C] = spoilt; // a number of the second row
    const data = typedArray(dtype, role === "weight" ? numbers.map((w) => w / 4) : numbers);
    if (role === "weight") weights[name] = Buffer.fromArray(data, dtype, [...shape]);
    else feeds[name] = data;
  }
  using session = await program.bind(weights);
  const outputs = await session.run(feeds);
  Object.values(weights).forEach((buffer) => buffer.dispose());
  const products = program.plan().steps.filter(({ op }) => op.startsWith("matmul")).length;
  return { y: Array.from(outputs["out"] as Float32Array), products };
}

const rms = (a: readonly number[], b: readonly number[]): number =>
  Math.sqrt(a.reduce((sum, v, i) => sum + (v - b[i]!) ** 2, 0) / a.length);

const folded: readonly (readonly [Case, number])[] = [
  [{}, 1],
  [{ hasBias: false }, 1],
  [{ mask: true }, 1],
  [{ causal: true }, 1],
  [{ context: C }, 2],
  [{ context: 40 }, 2], // keys stay, for the product of weights would not be square
  [{ width: 80 }, 4], // neither is
  [{ returned: "lse" }, 1], // what all scores of a query have in common shows
  [{ returned: "scores" }, 2],
];

describe.each(backends)("%s", (isa) => {
  it.each(folded)("%j: %i products", async (c, products) => {
    const exact = await run(c, "f64");
    const ours = await run(c, isa);
    const apart = await run({ ...c, returned: "all" }, isa);
    expect(ours.products).toBe(products);
    expect(apart.products).toBe(4);
    const scale = rms(exact.y, Array<number>(exact.y.length).fill(0));
    expect(rms(ours.y, exact.y)).toBeLessThan(1e-6 * scale);
  });

  it("leaves what is not a number in its sample", async () => {
    const [exact, ours] = [await run({}, "f64", NaN), await run({}, isa, NaN)];
    expect(ours.y.map(Number.isNaN)).toEqual(exact.y.map(Number.isNaN));
    expect(ours.y.slice(N * C).some(Number.isNaN)).toBe(false);
  });
});

it("rows that are not tokens keep their products", async () => {
  const products = async (tokens: number) => {
    const graph = trace((t) => {
      const weight = (name: string) => t.parameter({ name, shape: [C, C], init: { kind: "zeros" } }); // prettier-ignore
      const x = t.input("x", { shape: [B, N, C] });
      const heads = (name: string) => x.matmul(weight(name)).reshape([B, tokens, 1, (N * C) / tokens]); // prettier-ignore
      const mixed = attention(heads("q"), heads("k"), heads("v")).out.reshape([B, N, C]);
      t.output("out", mixed.matmul(weight("out")));
    });
    using program = await compile(graph);
    return program.plan().steps.filter(({ op }) => op.startsWith("matmul")).length;
  };
  expect([await products(N), await products(2 * N)]).toEqual([1, 4]);
});

it("several heads, and weights to be stored narrow, keep their products", async () => {
  expect((await run({ heads: 2 }, "scalar")).products).toBe(2); // three of them are one
  expect((await run({ quantize: "f16-weights" }, "scalar")).products).toBe(4);
});
