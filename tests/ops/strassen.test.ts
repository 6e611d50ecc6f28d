// Strassen's algorithm, or pairs of terms where they are offered instead, against the definition: the error they may have, epilogues,
// samples that do not depend on each other.
import { describe, expect, it } from "vitest";
import type { Graph } from "../../lib/ir/graph.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile, type CompileOptions } from "../../lib/runtime/program.js";
import { concat } from "../../lib/trace/functions.js";
import { trace } from "../../lib/trace/trace.js";
import { backends } from "./harness.js";
import { gaussian, uniformStream } from "./operand.js";

type Epilogue = "none" | "bias" | "program" | "gate";

interface Shape {
  readonly x: readonly [number, number, number];
  readonly N: number;
}

const noise = (seed: number, size: number): Float32Array => {
  const draw = uniformStream(seed);
  return Float32Array.from({ length: size }, (_, i) => gaussian(draw, i, size));
};

function graphOf({ x: [B, T, K], N }: Shape, dtype: "f32" | "f64", epilogue: Epilogue): Graph {
  return trace(
    (t) => {
      const zeros = { kind: "zeros" } as const;
      const x = t.input("x", { shape: [B, T, K], dtype });
      const y = x.matmul(t.parameter({ name: "w", shape: [K, N], init: zeros }));
      const b = t.parameter({ name: "b", shape: [N], init: zeros });
      const input = (name: string, shape: number[]) => t.input(name, { shape, dtype });
      const ends = {
        none: () => y,
        bias: () => y.add(b),
        program: () => y.add(b).gelu().add(y.mul(0.5)),
        gate: () => input("residual", [B, T, N]).add(y.add(b).mul(input("gate", [B, 1, N]))),
      };
      t.output("y", ends[epilogue]());
    },
    { dtype },
  );
}

async function run(shape: Shape, epilogue: Epilogue, options: CompileOptions) {
  const { x, N } = shape;
  const dtype = options.isa === "ref" ? "f64" : "f32";
  const as = (data: Float32Array) => (dtype === "f64" ? Float64Array.from(data) : data);
  const graph = graphOf(shape, dtype, epilogue);
  using program = await compile(graph, options);
  const weights = {
    w: Buffer.fromArray(as(noise(2, x[2] * N)), dtype, [x[2], N]),
    b: Buffer.fromArray(as(noise(3, N)), dtype, [N]),
  };
  const names = graph.inputs.map(({ name }) => name);
  using session = await program.bind(
    Object.fromEntries(Object.entries(weights).filter(([name]) => names.includes(name))),
  );
  const [B, T, K] = x;
  const sizes = { x: T * K, residual: T * N, gate: N };
  const feeds = Object.entries(sizes).filter(([name]) => names.includes(name));
  // The first sample is the same in every batch.
  const { y } = await session.run(
    Object.fromEntries(
      feeds.map(([name, size]) => {
        const samples = Array.from({ length: B }, (_, i) => [...noise(10 * i + name.length, size)]);
        return [name, as(Float32Array.from(samples.flat()))];
      }),
    ),
  );
  return { y: y as unknown as ArrayLike<number>, text: program.print() };
}

const rms = (a: ArrayLike<number>, b?: ArrayLike<number>): number =>
  Math.sqrt(Array.from(a).reduce((sum, v, i) => sum + (v - (b?.[i] ?? 0)) ** 2, 0) / a.length);

const shapes: readonly Shape[] = [
  { x: [1, 64, 256], N: 512 },
  { x: [3, 66, 288], N: 512 },
  { x: [3, 340, 288], N: 512 },
  { x: [2, 70, 384], N: 384 },
  { x: [1, 130, 2080], N: 256 },
];

const fewer = /Strassen|pairs|digits/;
const isas = backends.filter((isa) => isa !== "ref");

describe.each(isas)("%s", (isa) => {
  it.each(shapes)("errs at most four times as much as the direct kernel: $x", async (shape) => {
    const exact = await run(shape, "none", { isa: "ref" });
    const direct = await run(shape, "none", { isa, winograd: false });
    const ours = await run(shape, "none", { isa });
    expect(direct.text).not.toMatch(fewer);
    expect(ours.text).toMatch(fewer);
    expect(rms(ours.y, exact.y)).toBeLessThan(4 * rms(direct.y, exact.y));
  });

  // Pairs of terms: panels without a second one, slices and thirds that are not full, one group of columns, a second slice.
  it.each<Shape>([
    { x: [2, 33, 67], N: 128 },
    { x: [3, 37, 515], N: 192 },
    { x: [1, 1003, 64], N: 320 },
    { x: [2, 95, 1025], N: 256 },
  ])("errs no more where rows are odd: $x", async (shape) => {
    const exact = await run(shape, "program", { isa: "ref" });
    const ours = await run(shape, "program", { isa });
    expect(rms(ours.y, exact.y)).toBeLessThan(2e-6 * rms(exact.y));
  });

  it("keeps digits of rows and columns of any magnitude, of numbers of one sign, and zeros", async () => {
    const [T, K, N] = [40, 384, 128];
    const ofRow = (t: number) => [1e-25, 1e25, 1, 0][t % 4]!;
    const ofColumn = (n: number) => [1, 1e-10, 1e10, 0, 1e-3][n % 5]!;
    const x = noise(1, T * K).map((v, i) => (Math.floor(i / K) % 8 < 4 ? v : 1) * ofRow(Math.floor(i / K))); // prettier-ignore
    const w = noise(2, K * N).map((v, i) => v * ofColumn(i % N));
    const y = async (isa: string) => {
      const dtype = isa === "ref" ? "f64" : "f32";
      const as = (data: Float32Array) => (dtype === "f64" ? Float64Array.from(data) : data);
      using program = await compile(graphOf({ x: [1, T, K], N }, dtype, "none"), { isa });
      const b = Buffer.fromArray(as(new Float32Array(N)), dtype, [N]);
      using session = await program.bind({ w: Buffer.fromArray(as(w), dtype, [K, N]), b });
      const all = Array.from((await session.run({ x: as(x) })).y as unknown as ArrayLike<number>);
      const factors = all.map((_, i) => ofRow(Math.floor(i / N)) * ofColumn(i % N));
      return all.map((v, i) => (factors[i] === 0 ? v : v / factors[i]!));
    };
    const [exact, ours] = [await y("ref"), await y(isa)];
    for (let t = 0; t < T; ++t) {
      const row = (all: readonly number[]) => all.slice(t * N, (t + 1) * N);
      expect(rms(row(ours), row(exact))).toBeLessThanOrEqual(3e-6 * rms(row(exact)));
    }
  });

  const ends = shapes.slice(0, 4).flatMap((shape) => {
    return (["bias", "program", "gate"] as const).map((end) => ({ shape, end }));
  });
  it.each(ends)("runs its epilogue: $shape.x $end", async ({ shape, end }) => {
    const exact = await run(shape, end, { isa: "ref" });
    const ours = await run(shape, end, { isa });
    expect(ours.text).toMatch(fewer);
    expect(rms(ours.y, exact.y)).toBeLessThan(2e-6 * rms(exact.y));
  });

  it.each([66, 340])("gives a sample of %i rows the same bits in any batch", async (T) => {
    const one = await run({ x: [1, T, 288], N: 512 }, "gate", { isa });
    const three = await run({ x: [3, T, 288], N: 512 }, "gate", { isa });
    expect(Array.from(three.y).slice(0, T * 512)).toEqual(Array.from(one.y));
  });
});

it("counts the rows of a map, unless its channels are a concatenation that is read in place", async () => {
  const text = async (parts: number) => {
    const graph = trace((t) => {
      const map = (name: string) => t.input(name, { shape: [2, 8, 9, 512 / parts] });
      const x = parts === 1 ? map("x") : concat([map("x"), map("skip")], 3);
      const w = t.parameter({ name: "w", shape: [512, 256], init: { kind: "zeros" } });
      t.output("y", x.matmul(w));
    });
    using program = await compile(graph, {});
    return program.print();
  };
  expect(await text(1)).toMatch(fewer);
  expect(await text(2)).not.toMatch(/Strassen|concat/);
});

it("leaves matrices of each sample as they are, also of a single one", async () => {
  const graph = trace((t) => {
    const x = t.input("x", { shape: [1, 160, 256] });
    t.output("y", x.matmul(t.input("w", { shape: [1, 256, 256] })));
  });
  using program = await compile(graph, {});
  expect(program.print()).not.toMatch(fewer);
});

describe("is not used", () => {
  it.each<Shape>([
    { x: [2, 65, 256], N: 512 },
    { x: [1, 64, 600], N: 256 },
    { x: [1, 64, 1024], N: 200 },
    { x: [8, 2, 256], N: 512 },
    { x: [1, 64, 256], N: 256 },
  ])("for $x", async (shape) => {
    expect((await run(shape, "bias", {})).text).not.toContain("Strassen");
  });
});
