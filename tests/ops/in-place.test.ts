// Concatenations along channels that norms and products alone read are never made: the same numbers as with the
// concatenation returned too, close to float64, whatever the widths.
import { afterAll, describe, expect, it } from "vitest";
import { benchWorkloads } from "../../lib/cli/bench-workloads.js";
import { uniformStream } from "../../lib/nn/random.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { configureBackend } from "../../lib/runtime/device.js";
import { compile } from "../../lib/runtime/program.js";
import { concat, groupNorm } from "../../lib/trace/functions.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace, type Trace } from "../../lib/trace/trace.js";
import { backends, typedArray } from "./harness.js";

afterAll(() => configureBackend({ threads: 2 }));

const isas = backends.filter((isa) => isa !== "ref");

interface Case {
  readonly rows: readonly [batch: number, height: number, width: number];
  readonly widths: readonly number[];
  readonly groups: number;
  readonly columns: number;
}

const cases: Case[] = [
  { rows: [1, 5, 3], widths: [24, 17], groups: 1, columns: 70 }, // neither vectors nor tiles are whole
  { rows: [3, 6, 7], widths: [24, 18], groups: 7, columns: 96 }, // a group lies in both
  { rows: [3, 4, 4], widths: [40, 9, 15], groups: 16, columns: 64 },
  { rows: [1, 1, 1], widths: [64, 64, 64, 64], groups: 32, columns: 130 },
  { rows: [3, 1, 1], widths: [70, 20, 20, 30], groups: 4, columns: 64 },
  { rows: [1, 16, 16], widths: [256, 128], groups: 32, columns: 128 }, // in blocks of rows
  { rows: [3, 16, 17], widths: [128, 128], groups: 32, columns: 128 },
  { rows: [3, 12, 14], widths: [250, 150], groups: 25, columns: 72 },
  { rows: [1, 3, 3], widths: [1024, 65], groups: 11, columns: 200 }, // rows that are copied
  { rows: [1, 44, 37], widths: [8, 40], groups: 8, columns: 64 },
];

/** Two readers of a concatenation of fresh tensors; `isMade` returns it too. */
function readers(t: Trace, { rows, widths, groups, columns }: Case, isMade: boolean): void {
  const parts = widths.map((width, i) => t.input(`x${i}`, { shape: [...rows, width] }).mul(2).add(1)); // prettier-ignore
  const whole = concat(parts, 3);
  const channels = widths.reduce((a, b) => a + b);
  const one = (name: string, size: number): Tensor => t.input(name, { shape: [size] });
  const norm = (y: Tensor, activation: "none" | "silu"): Tensor =>
    groupNorm(y, one(`gamma ${activation}`, channels), one(`beta ${activation}`, channels), { groups, activation }); // prettier-ignore
  t.output("norm", norm(whole, "silu"));
  t.output("scaled", norm(whole, "none").mul(one("scale", channels)).silu());
  t.output("gelu", norm(whole.reshape([rows[0], rows[1] * rows[2], channels]), "none").gelu());
  const product = whole.matmul(t.input("w", { shape: [channels, columns] }));
  t.output("product", product.add(one("bias", columns)));
  if (isMade) t.output("whole", whole);
}

async function run(c: Case, isa: string, isMade: boolean, threads = 2) {
  configureBackend({ threads });
  const dtype = isa === "f64" ? "f64" : "f32";
  const graph = trace((t) => readers(t, c, isMade), { dtype });
  using program = await compile(graph, { isa: isa === "f64" ? "ref" : isa, winograd: false });
  using session = await program.bind();
  const feeds = graph.inputs.map(({ name, value }) => {
    const size = graph.values[value]!.shape.reduce((n, m) => n * m, 1);
    return [name, typedArray(dtype, Array.from(uniformStream(3, name, size), (u) => 2 * u - 1))] as const; // prettier-ignore
  });
  const outputs = (await session.run(Object.fromEntries(feeds))) as Record<string, Float32Array>;
  return { outputs, ops: program.plan().steps.map(({ op }) => op) };
}

/** Largest difference relative to the largest number. */
function difference(ours: ArrayLike<number>, exact: ArrayLike<number>): number {
  let [most, largest] = [0, 0];
  for (let i = 0; i < exact.length; ++i) {
    const distance = Math.abs(ours[i]! - exact[i]!);
    most = distance <= most ? most : distance; // NaN stays
    largest = Math.max(largest, Math.abs(exact[i]!));
  }
  return most / largest;
}

describe.each(isas)("%s", (isa) => {
  it.each(cases)("reads $widths of $rows", async (c) => {
    const inPlace = await run(c, isa, false);
    const made = await run(c, isa, true);
    const exact = await run(c, "f64", true);
    expect(inPlace.ops).not.toContain("concat");
    expect(made.ops).toContain("concat");
    for (const name of ["norm", "scaled", "gelu", "product"]) {
      expect(difference(inPlace.outputs[name]!, exact.outputs[name]!)).toBeLessThan(3e-6);
      expect(difference(inPlace.outputs[name]!, made.outputs[name]!)).toBeLessThan(2e-6);
    }
    const alone = await run(c, isa, false, 1);
    for (const [name, y] of Object.entries(alone.outputs))
      expect(difference(y, inPlace.outputs[name]!)).toBe(0);
  });

  it.each([48, 50])("writes large results past the caches: %i and 16 channels", async (width) => {
    const results: Float32Array[] = [];
    for (const isMade of [false, true]) {
      const graph = trace((t) => {
        const x = [width, 16].map((n, i) => t.input(`x${i}`, { shape: [1, 66_000, n] }));
        const [gamma, beta] = ["gamma", "beta"].map((name) => t.input(name, { shape: [width + 16] })); // prettier-ignore
        const whole = concat(x, 2);
        t.output("y", groupNorm(whole, gamma!, beta!, { groups: 2, activation: "silu" }));
        if (isMade) t.output("sum", whole.sum());
      });
      using program = await compile(graph, { isa });
      using session = await program.bind();
      const numbers = (n: number) => Float32Array.from({ length: n }, (_, i) => ((i * 7919) % 1009) / 500 - 1); // prettier-ignore
      const [x0, x1, channels] = [66_000 * width, 66_000 * 16, width + 16].map(numbers);
      const outputs = await session.run({ x0: x0!, x1: x1!, gamma: channels!, beta: channels! });
      results.push(outputs["y"] as Float32Array);
    }
    expect(difference(results[0]!, results[1]!)).toBeLessThan(2e-6);
  });

  it.each(["int8-weights", "f16-weights"] as const)("multiplies %s in place", async (quantize) => {
    const results: Float32Array[] = [];
    for (const isMade of [false, true]) {
      const graph = trace((t) => {
        const x = [40, 40, 300].map((width, i) => t.input(`x${i}`, { shape: [7, width] }));
        const whole = concat(x, 1);
        const w = t.parameter({ name: "w", shape: [380, 192], init: { kind: "zeros" } });
        t.output("y", whole.matmul(w).silu());
        if (isMade) t.output("whole", whole);
      });
      using program = await compile(graph, { isa, quantize });
      const numbers = (name: string, size: number) => Float32Array.from(uniformStream(4, name, size), (u) => u - 0.5); // prettier-ignore
      using w = Buffer.fromArray(numbers("w", 380 * 192), "f32", [380, 192]);
      using session = await program.bind({ w });
      const x = { x0: numbers("0", 280), x1: numbers("1", 280), x2: numbers("2", 2100) };
      results.push((await session.run(x))["y"] as Float32Array);
      const { steps } = program.plan();
      expect(steps.some(({ op }) => op === "concat")).toBe(isMade);
      expect(steps.some(({ text }) => text.includes(quantize))).toBe(true);
    }
    expect(difference(results[0]!, results[1]!)).toBeLessThan(2e-6);
  });

  it("keeps a part that a result would be written over", async () => {
    const graph = (isMade: boolean) =>
      trace((t) => {
        const a = t.input("a", { shape: [1, 12, 64] }).exp();
        const b = t.input("b", { shape: [1, 12, 32] }).exp();
        const whole = concat([a, b], 2);
        const y = whole.matmul(t.input("w", { shape: [96, 64] }));
        t.output("y", y.add(a));
        if (isMade) t.output("whole", whole);
      });
    const results = await Promise.all(
      [false, true].map(async (isMade) => {
        using program = await compile(graph(isMade), { isa });
        using session = await program.bind();
        const feed = (name: string, size: number) => typedArray("f32", [...uniformStream(1, name, size)]); // prettier-ignore
        return (await session.run({ a: feed("a", 768), b: feed("b", 384), w: feed("w", 96 * 64) }))["y"]!; // prettier-ignore
      }),
    );
    expect(difference(results[0]!, results[1]!)).toBeLessThan(1e-6);
  });

  it("keeps a state that is a part until it has been read", async () => {
    const graph = trace((t) => {
      const state = t.state("state", { shape: [1, 64] });
      const whole = concat([state, t.input("x", { shape: [1, 64] })], 1);
      t.update("state", whole.matmul(t.input("w", { shape: [128, 64] })).add(state));
    });
    using program = await compile(graph, { isa });
    const numbers = (name: string, size: number) => Float32Array.from(uniformStream(2, name, size));
    const [s, x, w] = [numbers("s", 64), numbers("x", 64), numbers("w", 128 * 64)];
    using state = Buffer.fromArray(s, "f32", [1, 64]);
    using session = await program.bind({ state });
    await session.run({ x, w });
    const row = [...s, ...x];
    const exact = Array.from(s, (v, n) => row.reduce((sum, r, k) => sum + r * w[k * 64 + n]!, v));
    expect(difference(state.read() as Float32Array, exact)).toBeLessThan(1e-6);
  });
});

it("makes those that others read too, of more than four parts, or along another axis", async () => {
  const made = async (read: (whole: Tensor) => Tensor, parts = 2, axis = 1): Promise<boolean> => {
    const graph = trace((t) => {
      const x = Array.from({ length: parts }, (_, i) => t.input(`x${i}`, { shape: [64, 64] }));
      t.output("y", read(concat(x, axis)));
    });
    using program = await compile(graph);
    return program.plan().steps.some(({ op }) => op === "concat");
  };
  const product = (whole: Tensor): Tensor => whole.matmul(whole.sum([0]).reshape([-1, 1]).broadcastTo([whole.shape[1]!, 64])); // prettier-ignore
  const plain = (whole: Tensor): Tensor => whole.matmul(whole.trace.input("w", { shape: [whole.shape[1]!, 64] })); // prettier-ignore
  expect(await made(plain)).toBe(false);
  expect(await made(plain, 4)).toBe(false);
  expect(await made(plain, 5)).toBe(true);
  expect(await made(plain, 2, 0)).toBe(true);
  expect(await made(product)).toBe(true);
  expect(await made((whole) => plain(whole).add(whole.sum()))).toBe(true);
});

describe("workloads of the bench", () => {
  for (const { name, batch, kind, graph, compileOptions } of benchWorkloads) {
    // Gradients read concatenations too; 8-bit products quantize whole rows.
    if (kind !== "network" || name.startsWith("int8")) continue;
    it(`${name} of batch ${batch} makes no concatenation`, async () => {
      using program = await compile(graph(), compileOptions);
      expect(program.plan().steps.filter(({ op }) => op === "concat")).toEqual([]);
    });
  }
});
