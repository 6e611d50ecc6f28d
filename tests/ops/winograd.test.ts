// Winograd's algorithm against the definition: the error it may have, odd shapes, and the ways to turn it off.
import { describe, expect, it } from "vitest";
import type { Graph } from "../../lib/ir/graph.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { configureBackend } from "../../lib/runtime/device.js";
import { compile, type CompileOptions } from "../../lib/runtime/program.js";
import { conv2d, groupNorm } from "../../lib/trace/functions.js";
import { trace } from "../../lib/trace/trace.js";
import { backendsOf, ownBackends } from "./harness.js";
import { gaussian, uniformStream } from "./operand.js";

interface Shape {
  readonly x: readonly [number, number, number, number];
  readonly O: number;
  readonly padding?: [number, number, number, number];
  readonly upsample?: number;
  readonly stride?: number;
  readonly isGradient?: boolean;
  /** Of a gradient: the size of its result. */
  readonly to?: readonly [number, number];
}

const noise = (seed: number, size: number): Float32Array => {
  const draw = uniformStream(seed);
  return Float32Array.from({ length: size }, (_, i) => gaussian(draw, i, size));
};

const elements = (shape: readonly number[]): number => shape.reduce((n, m) => n * m, 1);

function weightShape({ x, O, isGradient }: Shape): number[] {
  return isGradient ? [3, 3, O, x[3]] : [3, 3, x[3], O];
}

/** What hangs on the convolution: nothing, SiLU and others, or terms only: a bias, one of each sample and y's own shape. */
type Epilogue = "none" | "program" | "sum" | "norm";

function graphOf(shape: Shape, dtype: "f32" | "f64", epilogue: Epilogue): Graph {
  const { padding = [1, 1, 1, 1], upsample = 1, stride = 1, to } = shape;
  const [top, bottom, left, right] = padding;
  return trace(
    (t) => {
      const x = t.input("x", { shape: [...shape.x], dtype });
      const zeros = { kind: "zeros" } as const;
      const w = t.parameter({ name: "w", shape: weightShape(shape), init: zeros });
      const y = shape.isGradient
        ? t.append("conv2dGradInput", [x, w], {
            inputSize: to ?? [shape.x[1] - 2 + top + bottom, shape.x[2] - 2 + left + right],
            stride: to ? [2, 2] : [1, 1],
            padding: to ? padding : padding.map((p) => 2 - p),
            groups: 1,
          })[0]!
        : conv2d(x, w, { padding, upsample, stride });
      const b = t.parameter({ name: "b", shape: [shape.O], init: zeros });
      const input = (name: string, of: readonly number[]) =>
        t.input(name, { shape: [...of], dtype });
      const residual = () => input("residual", y.shape);
      const ends = {
        none: () => y,
        program: () => y.add(b).silu().add(y.mul(0.5)),
        norm: () => groupNorm(y.add(b).add(200), b, b, { groups: shape.O / 2, eps: 1e-6, activation: "silu" }), // prettier-ignore
        sum: () => residual().add(y.add(b).add(input("each", [y.shape[0]!, 1, 1, shape.O]))),
      };
      t.output("y", ends[epilogue]());
    },
    { dtype },
  );
}

interface Result {
  readonly y: ArrayLike<number>;
  readonly text: string;
}

async function run(graph: Graph, shape: Shape, options: CompileOptions): Promise<Result> {
  using program = await compile(graph, options);
  const dtype = graph.values[graph.inputs[0]!.value]!.dtype as "f32" | "f64";
  const as = (data: Float32Array) => (dtype === "f64" ? Float64Array.from(data) : data);
  const wShape = weightShape(shape);
  const weights: Record<string, Buffer> = {
    w: Buffer.fromArray(as(noise(2, elements(wShape))), dtype, wShape),
    b: Buffer.fromArray(as(noise(3, shape.O)), dtype, [shape.O]),
  };
  const bound = Object.fromEntries(
    graph.inputs.filter(({ role }) => role !== "input").map(({ name }) => [name, weights[name]!]),
  );
  using session = await program.bind(bound);
  const given = graph.inputs
    .filter(({ role }) => role === "input")
    .map(({ name, value }, i) => {
      return [name, as(noise(10 + i, elements(graph.values[value]!.shape)))] as const;
    });
  const { y } = await session.run(Object.fromEntries(given));
  return { y: y as unknown as ArrayLike<number>, text: program.print() };
}

const rms = (a: ArrayLike<number>, exact: ArrayLike<number>): number =>
  Math.sqrt(
    Array.from(a).reduce((sum, value, i) => sum + (value - exact[i]!) ** 2, 0) / exact.length,
  );

const shapes: readonly Shape[] = [
  { x: [1, 16, 16, 48], O: 48 },
  { x: [1, 13, 18, 64], O: 64 },
  { x: [3, 9, 7, 50], O: 33 },
  { x: [1, 32, 33, 70], O: 97 },
  { x: [2, 20, 20, 64], O: 40, padding: [0, 0, 0, 0] },
  { x: [1, 18, 19, 49], O: 64, padding: [2, 0, 1, 2] },
  { x: [1, 9, 8, 64], O: 70, upsample: 2 },
  { x: [2, 16, 17, 50], O: 33, upsample: 2 },
  { x: [1, 37, 33, 48], O: 70, upsample: 2 },
  { x: [1, 8, 8, 32], O: 48, upsample: 2, padding: [1, 0, 1, 0] },
  { x: [1, 8, 8, 64], O: 64, upsample: 2, padding: [0, 0, 0, 0] },
  { x: [1, 71, 72, 48], O: 50, stride: 2 },
  { x: [3, 53, 38, 130], O: 97, stride: 2, padding: [0, 1, 0, 1] },
  { x: [1, 24, 24, 64], O: 64, isGradient: true },
  { x: [1, 16, 16, 64], O: 64, isGradient: true, to: [32, 32] },
  { x: [3, 7, 9, 50], O: 33, isGradient: true, to: [13, 17] },
  { x: [2, 5, 6, 49], O: 70, isGradient: true, to: [9, 11] },
  { x: [1, 35, 30, 64], O: 50, isGradient: true, to: [70, 60], padding: [0, 1, 0, 1] },
  { x: [2, 8, 9, 50], O: 65, isGradient: true, to: [16, 18], padding: [0, 1, 0, 1] },
  { x: [1, 9, 8, 48], O: 48, isGradient: true, to: [16, 17], padding: [2, 1, 0, 0] },
  { x: [1, 48, 48, 96], O: 33 },
  { x: [1, 8, 8, 64], O: 64 },
  { x: [4, 8, 8, 130], O: 64 },
  { x: [1, 8, 8, 264], O: 130 },
  { x: [3, 7, 8, 260], O: 96 },
  { x: [4, 4, 4, 256], O: 128 },
  { x: [6, 4, 4, 132], O: 64 },
  { x: [6, 4, 4, 132], O: 64, padding: [2, 2, 2, 2] },
  { x: [4, 2, 2, 132], O: 64, padding: [2, 2, 2, 2] },
  { x: [3, 16, 16, 70], O: 130 },
  { x: [1, 11, 9, 150], O: 560 },
  { x: [1, 6, 7, 132], O: 200, upsample: 2 },
  { x: [2, 5, 6, 130], O: 64 },
  { x: [1, 16, 16, 256], O: 64 },
  { x: [3, 9, 11, 300], O: 200 },
  { x: [1, 32, 33, 3], O: 70 },
  { x: [2, 11, 21, 5], O: 32, padding: [2, 0, 1, 2] },
  { x: [3, 9, 8, 1], O: 7 },
  { x: [1, 9, 17, 8], O: 18 },
  { x: [1, 19, 31, 8], O: 3 },
  { x: [1, 17, 70, 64], O: 3 },
  { x: [3, 9, 10, 40], O: 1, padding: [0, 2, 2, 0] },
  { x: [1, 33, 12, 130], O: 4 },
  { x: [2, 10, 9, 33], O: 2 },
  { x: [1, 24, 24, 64], O: 3, isGradient: true },
  { x: [1, 4, 4, 256], O: 128 },
  { x: [3, 4, 4, 70], O: 50 },
  { x: [8, 4, 4, 50], O: 65 },
  { x: [1, 4, 2, 130], O: 66, padding: [1, 1, 2, 2] },
  { x: [1, 3, 4, 49], O: 96 },
  { x: [1, 3, 5, 64], O: 33, padding: [1, 1, 0, 0] },
  { x: [2, 4, 4, 50], O: 132, isGradient: true },
];

const isas = backendsOf("conv2d").filter((isa) => isa !== "ref");
const ownIsas = ownBackends.filter((isa) => isa !== "ref");

// "amx" has kernels of its own for maps of few tiles only.
const shapesOf = (isa: string) =>
  isa === "amx" ? shapes.filter(({ x: [B, H, W] }) => B * H * W <= 1024) : shapes;

describe.each(isas)("%s", (isa) => {
  it.each(shapesOf(isa).map((shape) => [JSON.stringify(shape), shape] as const))(
    "errs at most four times as much as the direct kernel: %s",
    async (_, shape) => {
      const exact = await run(graphOf(shape, "f64", "none"), shape, { isa: "ref" });
      const direct = await run(graphOf(shape, "f32", "none"), shape, { isa, winograd: false });
      const ours = await run(graphOf(shape, "f32", "none"), shape, { isa });
      expect(direct.text).not.toMatch(/F\(|digits/);
      expect(ours.text).toMatch(
        /F\((4,3|(2x2|3x3|4x4),3x3( upsampled| spread| stride 2)?)\)|digits/,
      );
      expect(rms(ours.y, exact.y)).toBeLessThan(4 * rms(direct.y, exact.y));
    },
  );

  const ends = shapesOf(isa).flatMap((shape) =>
    (["program", "sum"] as const).map((end) => ({ shape, end })),
  );
  it.each(ends.map((row) => [JSON.stringify(row), row] as const))(
    "runs its epilogue: %s",
    async (_, { shape, end }) => {
      const exact = await run(graphOf(shape, "f64", end), shape, { isa: "ref" });
      const ours = await run(graphOf(shape, "f32", end), shape, { isa });
      const scale = rms(
        exact.y,
        Array.from(exact.y, () => 0),
      );
      expect(rms(ours.y, exact.y)).toBeLessThan(4e-6 * scale);
    },
  );
});

/** Results that are written past the caches. */
it.each(ownIsas)("%s writes large results", async (isa) => {
  const shape: Shape = { x: [1, 260, 256, 3], O: 64 };
  for (const end of ["none", "norm"] as const) {
    const exact = await run(graphOf(shape, "f64", end), shape, { isa: "ref" });
    const ours = await run(graphOf(shape, "f32", end), shape, { isa });
    const worst = ours.y.length - exact.y.length + rms(ours.y, exact.y);
    expect(worst).toBeLessThan(4e-5);
  }
});

/** Maps beyond a cache: the convolution sums its results for the group norm after it. */
describe.each(ownIsas)("%s sums for a group norm", (isa) => {
  it.each<Shape>([
    { x: [1, 61, 75, 64], O: 70 },
    { x: [2, 48, 48, 64], O: 128 },
    { x: [3, 50, 49, 64], O: 128 }, // blocks of tiles of two samples
  ])("%j", async (shape) => {
    const exact = await run(graphOf(shape, "f64", "norm"), shape, { isa: "ref" });
    const ours = await run(graphOf(shape, "f32", "norm"), shape, { isa });
    const scale = rms(
      exact.y,
      Array.from(exact.y, () => 0),
    );
    expect(rms(ours.y, exact.y)).toBeLessThan(4e-6 * scale);
    configureBackend({ threads: 1 });
    const alone = await run(graphOf(shape, "f32", "norm"), shape, { isa });
    configureBackend({ threads: 2 });
    expect(alone.y).toEqual(ours.y);
  });
});

/** The gradient of the weight, from the same x and a dy of O channels. */
function gradientGraph({ x: [B, H, W, C], O, upsample = 1 }: Shape, dtype: "f32" | "f64"): Graph {
  return trace(
    (t) => {
      const x = t.input("x", { shape: [B, H, W, C], dtype });
      const dy = t.input("dy", { shape: [B, H * upsample, W * upsample, O], dtype });
      const window = { kernel: [3, 3], stride: [1, 1], padding: [1, 1, 1, 1] };
      t.output("dw", t.append("conv2dGradWeight", [x, dy], { ...window, groups: 1, upsample })[0]!);
    },
    { dtype },
  );
}

async function runGradient(shape: Shape, options: CompileOptions): Promise<Result> {
  const dtype = options.isa === "ref" ? "f64" : "f32";
  const { x, O, upsample = 1 } = shape;
  using program = await compile(gradientGraph(shape, dtype), options);
  using session = await program.bind({});
  const as = (data: Float32Array) => (dtype === "f64" ? Float64Array.from(data) : data);
  const dySize = (elements(x) / x[3]) * upsample ** 2 * O;
  const { dw } = await session.run({ x: as(noise(1, elements(x))), dy: as(noise(4, dySize)) });
  return { y: dw as unknown as ArrayLike<number>, text: program.print() };
}

describe.each(ownIsas)("gradient of the weight on %s", (isa) => {
  const rows: readonly Shape[] = [
    { x: [1, 16, 16, 48], O: 48 },
    { x: [3, 9, 7, 50], O: 65 },
    { x: [2, 12, 17, 66], O: 97 },
    { x: [1, 6, 7, 64], O: 64, upsample: 2 },
    { x: [2, 12, 12, 48], O: 32 },
  ];
  it.each(rows.map((shape) => [JSON.stringify(shape), shape] as const))("%s", async (_, shape) => {
    const exact = await runGradient(shape, { isa: "ref" });
    const direct = await runGradient(shape, { isa, winograd: false });
    const ours = await runGradient(shape, { isa });
    expect(direct.text).not.toContain("F(");
    expect(ours.text).toMatch(/F\((2x2|3x3|4x4),3x3( upsampled| spread| stride 2)?\)/);
    expect(rms(ours.y, exact.y)).toBeLessThan(4 * rms(direct.y, exact.y));
  });
});

describe("turned off", () => {
  const shape = shapes[0]!;
  it("by the option and by SMALTI_WINOGRAD=0", async () => {
    const graph = graphOf(shape, "f32", "none");
    const plain = await run(graph, shape, { winograd: false });
    expect(plain.text).not.toContain("F(");
    process.env["SMALTI_WINOGRAD"] = "0";
    try {
      const same = await run(graph, shape, {});
      expect(same.text).toBe(plain.text);
      expect(Array.from(same.y)).toEqual(Array.from(plain.y));
      expect((await run(graph, shape, { winograd: true })).text).toContain("F(4x4,3x3)");
    } finally {
      delete process.env["SMALTI_WINOGRAD"];
    }
  });
});
