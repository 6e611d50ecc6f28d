// Products on 8-bit integers and on weights that are stored narrow: the documented arithmetic on every instruction set (of
// integers to the last bit), a small error against floats, and only where it was asked for.
import { describe, expect, it } from "vitest";

import { Buffer } from "../../lib/runtime/buffer.js";
import {
  compile,
  type CompileOptions,
  type Program,
  type Quantize,
} from "../../lib/runtime/program.js";
import { conv2d } from "../../lib/trace/functions.js";
import type { Graph } from "../../lib/ir/graph.js";
import { trace } from "../../lib/trace/trace.js";
import { backendsOf } from "./harness.js";

const isas = backendsOf("conv2d").filter((isa) => isa !== "ref");

/** Numbers of both signs, about normal; the same in every run. */
function numbers(count: number, seed: number): Float32Array {
  let state = seed;
  const next = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  return Float32Array.from({ length: count }, () => next() + next() + next() - 1.5);
}

interface ConvCase {
  x: readonly [number, number, number, number];
  w: readonly [number, number, number, number];
  stride?: number;
  upsample?: number;
}

const weight = (shape: readonly number[]) =>
  ({ name: "w", shape, init: { kind: "zeros" } }) as const;

const convGraph = ({ x, w, stride = 1, upsample = 1 }: ConvCase): Graph =>
  trace((t) => {
    const padding = (w[0] - 1) / 2;
    const input = t.input("x", { shape: x });
    t.output("y", conv2d(input, t.parameter(weight(w)), { stride, padding, upsample }));
  });

const matmulGraph = (rows: number, inner: number, columns: number, transposeB = false): Graph =>
  trace((t) => {
    const w = t.parameter(weight(transposeB ? [columns, inner] : [inner, columns]));
    const product = t.input("x", { shape: [rows, inner] }).matmul(w, { transposeB });
    t.output("y", product.mul(2).add(1));
  });

async function run(program: Program, x: Float32Array, w: Float32Array): Promise<Float32Array> {
  const { shape } =
    program.graph.values[program.graph.inputs.find(({ name }) => name === "w")!.value]!;
  const buffer = Buffer.fromArray(w, "f32", shape);
  const session = await program.bind({ w: buffer });
  const { y } = await session.run({ x });
  session.dispose();
  buffer.dispose();
  return y as Float32Array;
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const f = Math.fround;
const roundEven = (x: number): number => {
  const nearest = Math.round(x);
  return Math.abs(x - Math.trunc(x)) === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
};

/** 8-bit weights (K, N) with a scale a column. */
function quantiseWeight(w: Float32Array, columns: number): { q: Int8Array; scales: Float32Array } {
  const q = new Int8Array(w.length);
  const scales = new Float32Array(columns);
  for (let n = 0; n < columns; ++n) {
    let largest = 0;
    for (let i = n; i < w.length; i += columns) largest = Math.max(largest, Math.abs(w[i]!));
    scales[n] = largest > 0 ? f(largest / 127) : 1;
    for (let i = n; i < w.length; i += columns) q[i] = roundEven(f(w[i]! / scales[n]!));
  }
  return { q, scales };
}

/** Each of `images` equal parts with its own scale and zero point. */
function quantiseInput(x: Float32Array, images: number): { q: Int32Array; scales: number[] } {
  const size = x.length / images;
  const q = new Int32Array(x.length);
  const scales = Array.from({ length: images }, (_, b) => {
    const image = x.subarray(b * size, (b + 1) * size);
    const low = Math.min(0, ...image);
    const scale = f(f(Math.max(0, ...image) - low) / 255);
    const inverse = f(1 / scale);
    const zero = roundEven(f(-low * inverse));
    image.forEach((value, i) => {
      const byte = Math.min(255, Math.max(0, roundEven(f(value * inverse)) + zero));
      q[b * size + i] = byte - zero;
    });
    return scale;
  });
  return { q, scales };
}

/** A map that is doubled first: each parity of the results is a convolution of 2x2 of the map, with taps that meet one pixel summed. */
function expectedDoubled(
  { x: shape, w: [, , C, O] }: ConvCase,
  x: Float32Array,
  w: Float32Array,
): Float32Array {
  const [B, H, W] = shape;
  const y = new Float32Array(B * 4 * H * W * O);
  const spans = [[[0], [1, 2]], [[0, 1], [2]]]; // prettier-ignore
  for (const [py, px] of [
    [0, 0],
    [0, 1],
    [1, 0],
    [1, 1],
  ] as const) {
    // prettier-ignore
    const sums = new Float32Array(4 * C * O);
    for (let i = 0; i < sums.length; ++i) {
      const [tap, rest] = [Math.floor(i / (C * O)), i % (C * O)];
      for (const kh of spans[py]![tap >> 1]!)
        for (const kw of spans[px]![tap & 1]!) sums[i]! += w[(kh * 3 + kw) * C * O + rest]!;
    }
    const part = expectedConv({ x: shape, w: [2, 2, C, O] }, x, sums, [1 - py, 1 - px]);
    part.forEach((value, i) => {
      const [o, column, row] = [i % O, Math.floor(i / O) % W, Math.floor(i / O / W)];
      y[((2 * row + py) * 2 * W + 2 * column + px) * O + o] = value;
    });
  }
  return y;
}

/** The sums of products of whole numbers, scaled. */
function expectedConv(
  c: ConvCase,
  x: Float32Array,
  w: Float32Array,
  pads?: readonly [number, number],
): Float32Array {
  // prettier-ignore
  if (c.upsample === 2) return expectedDoubled(c, x, w);
  const [B, H, W, C] = c.x;
  const [KH, KW, , O] = c.w;
  const { stride = 1 } = c;
  const [top, left] = pads ?? [(KH - 1) / 2, (KW - 1) / 2];
  const inputs = quantiseInput(x, B);
  const weights = quantiseWeight(w, O);
  const [OH, OW] = pads ? [H, W] : [Math.ceil(H / stride), Math.ceil(W / stride)];
  const y = new Float32Array(B * OH * OW * O);
  for (let i = 0; i < y.length; ++i) {
    const [o, ow, oh, b] = [
      i % O,
      Math.floor(i / O) % OW,
      Math.floor(i / O / OW) % OH,
      Math.floor(i / O / OW / OH),
    ];
    let sum = 0;
    for (let kh = 0; kh < KH; ++kh) {
      for (let kw = 0; kw < KW; ++kw) {
        const [h, v] = [oh * stride + kh - top, ow * stride + kw - left];
        if (h < 0 || v < 0 || h >= H || v >= W) continue;
        const from = ((b * H + h) * W + v) * C;
        for (let k = 0; k < C; ++k)
          sum += inputs.q[from + k]! * weights.q[((kh * KW + kw) * C + k) * O + o]!;
      }
    }
    y[i] = f(f(sum) * f(inputs.scales[b]! * weights.scales[o]!));
  }
  return y;
}

const cases: ConvCase[] = [
  { x: [3, 5, 7, 37], w: [3, 3, 37, 45] },
  { x: [1, 12, 12, 64], w: [3, 3, 64, 64], stride: 2 },
  { x: [2, 4, 4, 16], w: [3, 3, 16, 32], upsample: 2 },
  { x: [2, 5, 7, 37], w: [3, 3, 37, 70], upsample: 2 },
  { x: [2, 9, 9, 130], w: [1, 1, 130, 33] },
  { x: [1, 4, 4, 300], w: [3, 3, 300, 40] }, // more words than pass at once
  { x: [2, 3, 35, 32], w: [3, 3, 32, 136] }, // 16 pixels side by side; a work item more of columns
  { x: [1, 4, 5, 68], w: [3, 3, 68, 32] }, // words that no tile divides
];

const relativeError = (y: Float32Array, exact: Float32Array): number => {
  const square = (sum: number, value: number): number => sum + value * value;
  return Math.sqrt(
    y.map((value, i) => value - exact[i]!).reduce(square, 0) / exact.reduce(square, 0),
  );
};

describe.each(isas)("8-bit products on %s", (isa) => {
  const options: CompileOptions = { isa, quantize: "int8" };

  it.each(cases)("sum whole numbers exactly: %o", async (c) => {
    const [x, w] = [numbers(sizeOf(c.x), 1), numbers(sizeOf(c.w), 2)];
    const program = await compile(convGraph(c), options);
    expect(program.print()).toContain(" int8 ");
    expect(await run(program, x, w)).toEqual(expectedConv(c, x, w));
  });

  it("take rows of matrices as pictures, and an epilogue", async () => {
    const [rows, inner, columns] = [19, 200, 70];
    const [x, w] = [numbers(rows * inner, 3), numbers(inner * columns, 4)];
    const c: ConvCase = { x: [rows, 1, 1, inner], w: [1, 1, inner, columns] };
    const y = await run(await compile(matmulGraph(rows, inner, columns), options), x, w);
    expectedConv(c, x, w).forEach((value, i) => expect(y[i]).toBeCloseTo(value * 2 + 1, 5));
  });

  it.each(cases)("end as a sum: %o", async (c) => {
    const list = (count: number, seed: number): number[] => [...numbers(count, seed)];
    const graph = trace((t) => {
      const bias = t.constant(list(c.w[3], 9), [c.w[3]]);
      const input = t.input("x", { shape: c.x });
      const padding = (c.w[0] - 1) / 2;
      const product = conv2d(input, t.parameter(weight(c.w)), { padding, stride: c.stride ?? 1, upsample: c.upsample ?? 1 }); // prettier-ignore
      const [B, , , O] = product.shape as [number, number, number, number];
      const other = t.constant(list(B * O, 10), [B, 1, 1, O]);
      t.output("y", product.add(bias).add(other).add(t.constant(list(sizeOf(product.shape), 11), product.shape))); // prettier-ignore
    });
    const [x, w] = [numbers(sizeOf(c.x), 1), numbers(sizeOf(c.w), 2)];
    const y = await run(await compile(graph, options), x, w);
    const O = c.w[3];
    const others = numbers(c.x[0] * O, 10);
    const [bias, last] = [numbers(O, 9), numbers(y.length, 11)];
    expectedConv(c, x, w).forEach((value, i) => {
      const other = others[Math.floor((i * c.x[0]) / y.length) * O + (i % O)]!;
      expect(Math.abs(y[i]! - (value + bias[i % O]! + other + last[i]!))).toBeLessThan(1e-5);
    });
  });

  it("lose less than a hundredth against floats", async () => {
    const c: ConvCase = { x: [2, 8, 8, 96], w: [3, 3, 96, 96] };
    const [x, w] = [numbers(sizeOf(c.x), 5), numbers(sizeOf(c.w), 6)];
    const exact = await run(await compile(convGraph(c), { isa }), x, w);
    const y = await run(await compile(convGraph(c), options), x, w);
    expect(relativeError(y, exact)).toBeLessThan(0.01);
    expect(relativeError(y, exact)).toBeGreaterThan(0.001); // 8 bits did run
  });

  it("keep what is not finite in its picture, and zeros zero", async () => {
    const c: ConvCase = { x: [3, 4, 4, 32], w: [3, 3, 32, 32] };
    const x = numbers(sizeOf(c.x), 7);
    x[5] = NaN;
    x.fill(0, 512, 1024);
    const y = await run(await compile(convGraph(c), options), x, numbers(sizeOf(c.w), 8));
    expect(y.subarray(0, 512).every(Number.isNaN)).toBe(true);
    expect(y.subarray(512, 1024).every((value) => value === 0)).toBe(true);
    expect(y.subarray(1024).every(Number.isFinite)).toBe(true);
  });
});

/** Weights (K, N) as they are stored narrow, in floats again. */
function narrowed(way: Quantize, w: Float32Array, columns: number): Float64Array {
  if (way === "int8-weights") {
    const { q, scales } = quantiseWeight(w, columns);
    return Float64Array.from(q, (value, i) => value * scales[i % columns]!);
  }
  const largest = new Float64Array(columns);
  w.forEach(
    (value, i) => (largest[i % columns] = Math.max(largest[i % columns]!, Math.abs(value))),
  );
  return Float64Array.from(w, (value, i) => {
    const top = Math.floor(Math.log2(largest[i % columns]!)); // 10 bits below, 14 exponents down
    const power = Math.max(Math.floor(Math.log2(Math.abs(value))), top - 14);
    return value === 0 ? 0 : roundEven(value / 2 ** (power - 10)) * 2 ** (power - 10);
  });
}

function product(x: Float32Array, w: Float64Array, columns: number): Float64Array {
  const inner = w.length / columns;
  const y = new Float64Array((x.length / inner) * columns);
  x.forEach((value, i) => {
    const [row, k] = [Math.floor(i / inner), i % inner];
    for (let n = 0; n < columns; ++n) y[row * columns + n]! += value * w[k * columns + n]!;
  });
  return y;
}

const ways: Quantize[] = ["int8-weights", "f16-weights"];

describe.each(isas.flatMap((isa) => ways.map((quantize) => ({ isa, quantize }))))(
  "products with $quantize on $isa",
  ({ isa, quantize }) => {
    const options: CompileOptions = { isa, quantize };

    it.each([
      [1, 200, 70],
      [9, 131, 257],
      [101, 1024, 96],
    ])("multiply %i x %i by %i, whichever way the weight lies", async (rows, inner, columns) => {
      const [x, w] = [numbers(rows * inner, 3), numbers(inner * columns, 4)];
      const turned = w.map((_, i) => w[(i % inner) * columns + Math.floor(i / inner)]!);
      const exact = product(x, narrowed(quantize, w, columns), columns);
      const expected = Float32Array.from(exact, (value) => value * 2 + 1);
      for (const isTurned of [false, true]) {
        const program = await compile(matmulGraph(rows, inner, columns, isTurned), options);
        expect(program.print()).toContain(` ${quantize} `);
        const y = await run(program, x, isTurned ? turned : w);
        expect(relativeError(y, expected)).toBeLessThan(5e-7);
      }
      const one = await run(await compile(matmulGraph(1, inner, columns), options), x.slice(0, inner), w); // prettier-ignore
      const all = await run(await compile(matmulGraph(rows, inner, columns), options), x, w);
      expect(one).toEqual(all.subarray(0, columns)); // the same bits beside other rows
    });

    it("serve 1x1 convolutions, no others", async () => {
      const c: ConvCase = { x: [2, 9, 7, 130], w: [1, 1, 130, 33] };
      const [x, w] = [numbers(sizeOf(c.x), 5), numbers(sizeOf(c.w), 6)];
      const y = await run(await compile(convGraph(c), options), x, w);
      const exact = Float32Array.from(product(x, narrowed(quantize, w, 33), 33));
      expect(relativeError(y, exact)).toBeLessThan(1e-6);
      expect(relativeError(y, Float32Array.from(product(x, Float64Array.from(w), 33)))).toBeGreaterThan(1e-5); // prettier-ignore
      for (const other of [cases[0]!, { ...c, stride: 2 }, { ...c, upsample: 2 }])
        expect((await compile(convGraph(other), options)).print()).not.toContain("-weights ");
    });

    it("keep large and small columns, and what is not finite in its own", async () => {
      const [inner, columns] = [80, 40];
      const [x, w] = [numbers(inner, 7), numbers(inner * columns, 8)];
      const factors = [1e30, 1e-30, 0, 1];
      const scaled = w.map((value, i) => value * factors[i % 4]!);
      scaled[5 * columns + 7] = Infinity;
      scaled[9 * columns + 11] = NaN;
      const y = await run(await compile(matmulGraph(1, inner, columns), options), x, scaled);
      const exact = product(x, Float64Array.from(scaled), columns);
      for (let n = 0; n < columns; ++n) {
        if (n === 7 || n === 11) expect(Number.isFinite(y[n])).toBe(false);
        else expect(Math.abs((y[n]! - 1) / 2 - exact[n]!)).toBeLessThanOrEqual(0.1 * factors[n % 4]! + 1e-6); // prettier-ignore
      }
    });
  },
);

describe("quantize", () => {
  it("stores matrices in a quarter and half of the memory, not for the reference", async () => {
    const graph = matmulGraph(2, 1024, 256);
    const bytes = async (options: CompileOptions): Promise<number> =>
      (await compile(graph, options)).plan().weightBytes;
    const floats = await bytes({ winograd: false }); // digits take less than floats
    expect(await bytes({ quantize: "int8-weights" })).toBeLessThan(floats * 0.26);
    expect(await bytes({ quantize: "f16-weights" })).toBeLessThan(floats * 0.51);
    const exact = await compile(graph, { quantize: "int8-weights", isa: "ref" });
    expect(exact.print()).not.toContain("-weights ");
  });

  it("leaves narrow layers, the reference and other products alone, and packs a quarter", async () => {
    const narrow = convGraph({ x: [1, 8, 8, 3], w: [3, 3, 3, 64] });
    expect((await compile(narrow, { quantize: "int8" })).print()).not.toContain(" int8 ");
    const wide = convGraph(cases[1]!);
    expect((await compile(wide, { quantize: "int8", isa: "ref" })).print()).not.toContain(" int8 ");
    const [floats, bytes] = [
      await compile(wide, { winograd: false }),
      await compile(wide, { quantize: "int8" }),
    ];
    expect(bytes.plan().weightBytes).toBeLessThan(floats.plan().weightBytes * 0.27);
  });

  it("is refused with another word", async () => {
    const options = { quantize: "int4" } as unknown as CompileOptions;
    await expect(compile(convGraph(cases[0]!), options)).rejects.toThrow(
      'compile: expected quantize "int8", "int8-weights", "f16-weights" or none, got "int4"',
    );
  });
});
