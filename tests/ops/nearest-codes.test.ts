// Nearest codes where rounding decides: equal and almost equal codes in different groups, codes of very different length,
// codes that are no numbers, every width; each backend against the reference in double.
import { describe, expect, it } from "vitest";
import { compile } from "../../lib/runtime/program.js";
import { nearestCodes } from "../../lib/trace/functions.js";
import { trace } from "../../lib/trace/trace.js";
import { uniformStream } from "../../lib/nn/random.js";
import { ownBackends } from "./harness.js";

const metrics = ["euclidean", "cosine"] as const;

interface Search {
  z: Float32Array;
  e: Float32Array;
  width: number;
  metric: (typeof metrics)[number];
}

async function search({ z, e, width, metric }: Search, isa: string, dtype: "f32" | "f64") {
  const graph = trace(
    (t) =>
      t.output(
        "i",
        nearestCodes(
          t.input("z", { shape: [z.length / width, width], dtype }),
          t.input("e", { shape: [e.length / width, width], dtype }),
          { metric },
        ),
      ),
    { dtype },
  );
  using program = await compile(graph, { isa });
  using session = await program.bind();
  const feed = (x: Float32Array) => (dtype === "f64" ? Float64Array.from(x) : x);
  return Array.from((await session.run({ z: feed(z), e: feed(e) }))["i"]!);
}

const floats = (name: string, count: number): Float32Array =>
  Float32Array.from(uniformStream(3, name, count), (u) => 2 * u - 1);

async function expectExact(given: Search): Promise<number[]> {
  const exact = await search(given, "ref", "f64");
  for (const isa of ownBackends) expect(await search(given, isa, "f32"), isa).toEqual(exact);
  return exact;
}

describe.each(metrics)("%s", (metric) => {
  it.each([1, 2, 3, 4, 5, 8, 15, 16, 17, 33, 64, 100, 255, 512])("width %i", async (width) => {
    await expectExact({ z: floats("z", 131 * width), e: floats("e", 77 * width), width, metric });
  });

  it("takes the lowest of equal codes, wherever they are", async () => {
    const width = 8;
    const some = floats("some", 19 * width);
    const e = new Float32Array(19 * 6 * width);
    for (let copy = 0; copy < 6; ++copy) e.set(some, copy * some.length);
    const found = await expectExact({ z: floats("z", 200 * width), e, width, metric });
    expect(Math.max(...found)).toBeLessThan(19);
  });

  it("tells codes apart that differ in the last place", async () => {
    const width = 16;
    const one = floats("one", width);
    const e = Float32Array.from({ length: 100 * width }, (_, i) => one[i % width]!);
    for (let k = 0; k < 100; ++k) e[k * width + (k % width)]! *= 1 + ((k * 37) % 100) * 2 ** -23;
    const z = Float32Array.from({ length: 40 * width }, (_, i) => one[i % width]! * (1 + 1e-6));
    await expectExact({ z, e, width, metric });
  });

  it("serves codes of very different length", async () => {
    const width = 12;
    const e = floats("e", 150 * width).map((x, i) => x * 10 ** ((Math.floor(i / width) % 9) - 4));
    await expectExact({ z: floats("z", 140 * width), e, width, metric });
  });

  it("passes over codes that are no numbers", async () => {
    const width = 4;
    const e = floats("e", 50 * width);
    e.fill(NaN, 7 * width, 9 * width).fill(NaN, 20 * width, 21 * width);
    const found = await expectExact({ z: floats("z", 60 * width), e, width, metric });
    expect(found.some((k) => k === 7 || k === 8 || k === 20)).toBe(false);
  });

  it.each([
    [8, 1],
    [30, 0.1],
    [64, 1],
    [64, 0.02],
    [256, 0.3],
  ])("finds one of many codes of width %i, %f from them", async (width, distance) => {
    const K = 700;
    const e = floats("e", K * width);
    const noise = floats("z", 150 * width);
    const z = noise.map((x, i) => distance * x + e[((Math.floor(i / width) * 37) % K) * width + (i % width)]!); // prettier-ignore
    await expectExact({ z, e, width, metric });
  });

  it("serves what is far from zero, and copies of codes", async () => {
    const [width, K] = [64, 600];
    const e = floats("e", K * width);
    const z = floats("z", 50 * width);
    const away = (x: Float32Array, by: number): Float32Array => x.map((v) => v + by);
    await expectExact({ z: away(z, 10), e: away(e, 10), width, metric });
    e.copyWithin(300 * width, 0, 300 * width);
    const found = await expectExact({ z, e, width, metric });
    expect(Math.max(...found)).toBeLessThan(300);
    await expectExact({ z, e: new Float32Array(K * width).fill(0.5), width, metric });
  });

  it("serves rows of zeros, of tiny and huge numbers, and of what is none", async () => {
    const [width, K] = [48, 400];
    const spoil = (x: Float32Array, step: number, huge: number): Float32Array => {
      const factors = [0, 1e-20, 1e-12, 1e12, huge];
      for (const [i, factor] of factors.entries())
        x.subarray(i * step * width, (i * step + 1) * width).forEach((v, j, row) => (row[j] = v * factor)); // prettier-ignore
      return x;
    };
    const huge = metric === "cosine" ? 1e17 : 1e12; // all codes are as far from a longer latent, in double
    await expectExact({ z: spoil(floats("z", 40 * width), 3, huge), e: floats("e", K * width), width, metric }); // prettier-ignore
    const e = spoil(floats("e", K * width), 70, 1e17);
    e[33 * width + 5] = NaN;
    e[99 * width] = Infinity;
    await expectExact({ z: floats("z", 40 * width), e, width, metric });
    const z = floats("z", 40 * width);
    z[7 * width + 3] = NaN;
    await expectExact({ z, e: floats("e", K * width), width, metric });
  });
});
