// Nearest codes where rounding decides: equal and almost equal codes in different groups, codes of very different length,
// codes that are no numbers, every width; each backend against the reference in double.
import { describe, expect, it } from "vitest";
import { compile } from "../../lib/runtime/program.js";
import { nearestCodes } from "../../lib/trace/functions.js";
import { trace } from "../../lib/trace/trace.js";
import { uniformStream } from "../../lib/nn/random.js";
import { backends } from "./harness.js";

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
  for (const isa of backends) expect(await search(given, isa, "f32"), isa).toEqual(exact);
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
});
