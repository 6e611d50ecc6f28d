// Products in digits (tiles of bytes): where they could lose digits, against float64 and against the direct kernel.
import { afterAll, describe, expect, it } from "vitest";
import type { Graph } from "../../lib/ir/graph.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { configureBackend } from "../../lib/runtime/device.js";
import { compile, type CompileOptions } from "../../lib/runtime/program.js";
import { conv2d } from "../../lib/trace/functions.js";
import { trace } from "../../lib/trace/trace.js";
import { backends } from "./harness.js";
import { gaussian, uniformStream } from "./operand.js";

type Real = "f32" | "f64";

const noise = (seed: number, size: number): Float32Array => {
  const draw = uniformStream(seed);
  return Float32Array.from({ length: size }, (_, i) => gaussian(draw, i, size));
};

const zeros = { kind: "zeros" } as const;

interface Layer {
  readonly w: readonly number[];
  readonly graph: (dtype: Real) => Graph;
}

const product = (rows: number, K: number, N: number): Layer => ({
  w: [K, N],
  graph: (dtype) =>
    trace(
      (t) => {
        const x = t.input("x", { shape: [1, rows, K], dtype });
        t.output("y", x.matmul(t.parameter({ name: "w", shape: [K, N], init: zeros })));
      },
      { dtype },
    ),
});

type Window = Parameters<typeof conv2d>[2];

const convolution = (
  B: number,
  side: number,
  C: number,
  O: number,
  window: Window = {},
): Layer => ({
  w: [3, 3, C, O],
  graph: (dtype) =>
    trace(
      (t) => {
        const x = t.input("x", { shape: [B, side, side, C], dtype });
        const w = t.parameter({ name: "w", shape: [3, 3, C, O], init: zeros });
        t.output("y", conv2d(x, w, { padding: [1, 1, 1, 1], ...window }));
      },
      { dtype },
    ),
});

async function run(layer: Layer, x: Float32Array, w: Float32Array, options: CompileOptions) {
  const dtype = options.isa === "ref" ? "f64" : "f32";
  const as = (data: Float32Array) => (dtype === "f64" ? Float64Array.from(data) : data);
  using program = await compile(layer.graph(dtype), options);
  using session = await program.bind({ w: Buffer.fromArray(as(w), dtype, layer.w) });
  const { y } = await session.run({ x: as(x) });
  const { items } = program.plan().steps.find(({ op }) => /conv2d|matmul/.test(op))!;
  return { y: Array.from(y as unknown as ArrayLike<number>), text: program.print(), items };
}

const rms = (a: readonly number[], b: readonly number[]): number =>
  Math.sqrt(a.reduce((sum, v, i) => sum + (v - b[i]!) ** 2, 0) / a.length);

const isa = "amx";
afterAll(() => configureBackend({ threads: 2 }));

/** At most four times the error of the direct kernel; gives the results. */
async function expectSmallError(layer: Layer, x: Float32Array, w: Float32Array, way: string) {
  const exact = await run(layer, x, w, { isa: "ref" });
  const direct = await run(layer, x, w, { isa, winograd: false });
  const ours = await run(layer, x, w, { isa });
  expect(direct.text).not.toContain("digits");
  expect(ours.text).toContain(way);
  expect(rms(ours.y, exact.y)).toBeLessThan(4 * rms(direct.y, exact.y));
  return ours.y;
}

describe.skipIf(!backends.includes(isa))("digits (skipped where CPUs have no tiles)", () => {
  // A few numbers far above the others, in rows, in columns, in both, or in all of them (cubes).
  const spiked = (data: Float32Array, period: number, factor: number) =>
    data.map((v, i) => (i % period === 7 ? v * factor : v));
  const cubes = (data: Float32Array) => data.map((v) => v ** 3);
  const near1 = (data: Float32Array) => data.map((v) => 1 - 1e-3 * Math.abs(v));
  const [rows, K, N] = [48, 512, 96];
  const [x, w] = [noise(1, rows * K), noise(2, K * N)];
  it.each([
    ["plain", x, w],
    ["spikes in rows", spiked(x, 171, 1e3), w],
    ["spikes in columns", x, spiked(w, 97, 1e3)],
    ["spikes in both", spiked(x, 171, 300), spiked(w, 97, 300)],
    ["cubes", cubes(x), cubes(w)],
    ["numbers of one sign", x.map(Math.abs), w.map(Math.abs)],
    ["the largest sums of digits", near1(x), near1(w)],
  ] as const)("err at most four times as much as sums of floats: %s", async (_, x, w) => {
    await expectSmallError(product(rows, K, N), x, w, "digits");
  });

  const [side, C, O] = [16, 320, 64];
  const [pixels, taps] = [noise(7, side * side * C), noise(8, 9 * C * O)];
  it.each([
    ["plain", pixels, taps],
    ["spikes in pixels", spiked(pixels, 171, 1e3), taps],
    ["spikes in taps", pixels, spiked(taps, 97, 1e3)],
    ["spikes in both", spiked(pixels, 171, 300), spiked(taps, 97, 300)],
    ["cubes", cubes(pixels), cubes(taps)],
    ["numbers of one sign", pixels.map(Math.abs), taps.map(Math.abs)],
  ] as const)("err no more in tiles of results: %s", async (_, x, w) => {
    await expectSmallError(convolution(1, side, C, O), x, w, "F(2x2,3x3) digits");
    const doubled = convolution(1, side, C, O, { upsample: 2 });
    await expectSmallError(doubled, x, w, "F(4x4,3x3 upsampled) digits");
  });

  it.each([
    ["plain", pixels, taps],
    ["spikes in both", spiked(pixels, 171, 300), spiked(taps, 97, 300)],
    ["cubes", cubes(pixels), cubes(taps)],
  ] as const)("err no more with stride 2: %s", async (_, x, w) => {
    for (const padding of [
      [1, 1, 1, 1],
      [0, 1, 0, 1],
      [1, 0, 0, 1],
    ] as const) {
      const layer = convolution(1, side, C, O, { padding: [...padding], stride: 2 });
      await expectSmallError(layer, x, w, "digits");
    }
  });

  const fromInside = { stride: 2, padding: [0, 1, 0, 1] } satisfies Window;
  it.each([
    ["in four blocks of tiles", [1, 31, 176, 96], "F(2x2,3x3) digits"],
    ["of more channels than tiles take", [1, 13, 400, 70], "] digits"],
    ["of more digits than a cache holds", [1, 16, 704, 70], "] digits"],
    ["of as many, with stride 2", [1, 64, 96, 70], "] digits", { stride: 2 }],
    ["of as many, beginning inside", [1, 64, 96, 70], "] digits", fromInside],
    ["of as many channels in a batch", [4, 7, 400, 70], "F(2x2,3x3) digits"],
    ["in blocks with tiles of their own", [1, 41, 112, 130], "F(2x2,3x3) digits"],
    ["in such blocks across images", [3, 21, 96, 129], "F(2x2,3x3) digits"],
    ["in such blocks, of more channels", [1, 34, 400, 70], "F(2x2,3x3) digits"],
    ["in such blocks, upsampled", [1, 37, 96, 70], "F(4x4,3x3 upsampled) digits", { upsample: 2 }],
  ] as const)("err no more on maps %s", async (_, shape, way, window: Window = {}) => {
    const [B, side, C, O] = shape;
    const [x, w] = [noise(11, B * side * side * C), noise(12, 9 * C * O)];
    await expectSmallError(convolution(B, side, C, O, window), x, w, way);
  });

  it.each([
    ["one image", [1, 24, 128, 96], {}],
    ["an upsampled one", [1, 20, 96, 70], { upsample: 2 }],
    ["three, and two spans", [3, 13, 576, 70], {}],
  ] as const)("are the same wherever tiles lie: %s", async (_, shape, window) => {
    const [B, side, C, O] = shape;
    const layer = convolution(B, side, C, O, window);
    const [x, w] = [noise(15, B * side * side * C), noise(16, 9 * C * O)];
    x[x.length >> 1] = Number.NaN;
    configureBackend({ threads: 1 });
    const local = await run(layer, x, w, { isa });
    configureBackend({ threads: 16 });
    const apart = await run(layer, x, w, { isa });
    for (const { text } of [local, apart]) expect(text).toMatch(/F\(.*\) digits/);
    expect(local.items[1]).toBe(0);
    expect(apart.items[1]).toBeGreaterThan(0);
    expect(apart.y).toEqual(local.y);
    expect(local.y.filter(Number.isNaN).length).toBeGreaterThan(0);
    expect(local.y.filter(Number.isNaN).length).toBeLessThan(local.y.length / 4);
  });

  it("give an image the same bits in any batch of many tiles", async () => {
    const [side, C, O] = [34, 128, 96];
    const [x, w] = [noise(13, 2 * side * side * C), noise(14, 9 * C * O)];
    const two = await run(convolution(2, side, C, O), x, w, { isa });
    const one = await run(convolution(1, side, C, O), x.slice(x.length / 2), w, { isa });
    for (const { text } of [one, two]) expect(text).toContain("F(2x2,3x3) digits");
    expect(two.y.slice(two.y.length / 2)).toEqual(one.y);
  });

  it.each([Number.NaN, Infinity, -Infinity])("keep %f to its row", async (value) => {
    const layer = product(rows, K, N);
    const clean = await run(layer, x, w, { isa });
    const spoilt = await run(
      layer,
      x.map((v, i) => (i === 20 * K + 300 ? value : v)),
      w,
      { isa },
    );
    const inRow = (i: number) => Math.floor(i / N) === 20;
    expect(spoilt.y.some((v, i) => inRow(i) && Number.isFinite(v))).toBe(false);
    expect(spoilt.y.filter((_, i) => !inRow(i))).toEqual(clean.y.filter((_, i) => !inRow(i)));
  });

  it.each([1, 5])("multiply a large weight with %i rows, each as if alone", async (rows) => {
    const [K, N] = [300, 270];
    const [x, w] = [noise(9, 5 * K), noise(10, K * N)];
    const [some, first] = [x.slice(0, rows * K), x.slice(0, K)];
    const y = await expectSmallError(product(rows, K, N), some, w, "digits");
    expect(y.slice(0, N)).toEqual((await run(product(1, K, N), first, w, { isa })).y);
  });

  it("take zeros for zeros", async () => {
    const { y } = await run(
      product(rows, K, N),
      x.map((v, i) => (i < 5 * K ? 0 : v)),
      w.map((v, i) => (i % N === 11 ? 0 : v)),
      { isa },
    );
    expect(y.filter((v, i) => (i < 5 * N || i % N === 11) && v !== 0)).toEqual([]);
  });

  it.each([{}, { stride: 2 }] as Window[])(
    "give an image the same bits in any batch: %o",
    async (window) => {
      const [side, C, O] = [4, 192, 70];
      const [x, w] = [noise(3, 6 * side * side * C), noise(4, 9 * C * O)];
      const six = await run(convolution(6, side, C, O, window), x, w, { isa });
      const image = side * side * C;
      const fourth = x.slice(3 * image, 4 * image);
      const one = await run(convolution(1, side, C, O, window), fourth, w, { isa });
      expect(six.text).toContain("digits");
      expect(one.text).toContain("digits");
      const results = one.y.length;
      expect(six.y.slice(3 * results, 4 * results)).toEqual(one.y);
    },
  );

  it("keep an infinite pixel to its neighbours", async () => {
    const [side, C, O] = [8, 64, 33];
    const [x, w] = [noise(5, side * side * C), noise(6, 9 * C * O)];
    const spoilt = x.map((v, i) => (i === (3 * side + 7) * C + 5 ? Infinity : v));
    const clean = await run(convolution(1, side, C, O), x, w, { isa });
    const { y, text } = await run(convolution(1, side, C, O), spoilt, w, { isa });
    expect(text).toContain("digits");
    const isNear = (i: number) => {
      const pixel = Math.floor(i / O);
      return Math.abs(Math.floor(pixel / side) - 3) <= 1 && pixel % side >= 6;
    };
    expect(y.some((v, i) => isNear(i) && Number.isFinite(v))).toBe(false);
    expect(y.filter((_, i) => !isNear(i))).toEqual(clean.y.filter((_, i) => !isNear(i)));
  });
});
