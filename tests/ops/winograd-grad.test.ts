// The gradient of a 3x3 weight by Winograd's algorithm against the definition: the error it may have, odd shapes.
import { describe, expect, it } from "vitest";
import type { Graph } from "../../lib/ir/graph.js";
import { compile, type CompileOptions } from "../../lib/runtime/program.js";
import { trace } from "../../lib/trace/trace.js";
import { backends } from "./harness.js";
import { gaussian, uniformStream } from "./operand.js";

interface Shape {
  readonly x: readonly [number, number, number, number];
  readonly O: number;
  /** Top, bottom, left, right. */
  readonly padding?: readonly [number, number, number, number];
  readonly upsample?: number;
}

const noise = (seed: number, size: number): Float32Array => {
  const draw = uniformStream(seed);
  return Float32Array.from({ length: size }, (_, i) => gaussian(draw, i, size));
};

function gradShape({ x, O, padding = [1, 1, 1, 1], upsample = 1 }: Shape): number[] {
  const [top, bottom, left, right] = padding;
  return [x[0], x[1] * upsample + top + bottom - 2, x[2] * upsample + left + right - 2, O];
}

function graphOf(shape: Shape, dtype: "f32" | "f64"): Graph {
  const { padding = [1, 1, 1, 1], upsample = 1 } = shape;
  return trace(
    (t) => {
      const x = t.input("x", { shape: [...shape.x], dtype });
      const dy = t.input("dy", { shape: gradShape(shape), dtype });
      const attributes = { kernel: [3, 3], stride: [1, 1], padding, groups: 1, upsample };
      t.output("dw", t.append("conv2dGradWeight", [x, dy], attributes)[0]!);
    },
    { dtype },
  );
}

async function run(shape: Shape, dtype: "f32" | "f64", options: CompileOptions) {
  using program = await compile(graphOf(shape, dtype), options);
  using session = await program.bind();
  const as = (data: Float32Array) => (dtype === "f64" ? Float64Array.from(data) : data);
  const elements = (sizes: readonly number[]): number => sizes.reduce((n, m) => n * m, 1);
  const given = {
    x: as(noise(1, elements(shape.x))),
    dy: as(noise(2, elements(gradShape(shape)))),
  };
  const { dw } = await session.run(given);
  return { dw: Array.from(dw as ArrayLike<number>), text: program.print() };
}

const rms = (a: readonly number[], exact: readonly number[]): number =>
  Math.sqrt(a.reduce((sum, value, i) => sum + (value - exact[i]!) ** 2, 0) / exact.length);

const shapes: readonly Shape[] = [
  { x: [3, 16, 16, 48], O: 48 },
  { x: [3, 13, 18, 20], O: 33 },
  { x: [1, 32, 33, 70], O: 97 },
  { x: [2, 20, 20, 64], O: 40, padding: [0, 0, 0, 0] },
  { x: [2, 18, 19, 49], O: 64, padding: [2, 0, 1, 2] },
  { x: [3, 9, 8, 64], O: 70, upsample: 2 },
];

describe.each(backends.filter((isa) => isa !== "ref"))("%s", (isa) => {
  it.each(shapes.map((shape) => [JSON.stringify(shape), shape] as const))(
    "errs at most four times as much as the direct kernel: %s",
    async (_, shape) => {
      const exact = await run(shape, "f64", { isa: "ref" });
      const direct = await run(shape, "f32", { isa, winograd: false });
      const ours = await run(shape, "f32", { isa });
      expect(direct.text).not.toContain("F(");
      expect(ours.text).toContain("F(4x4,3x3)");
      expect(rms(ours.dw, exact.dw)).toBeLessThan(4 * rms(direct.dw, exact.dw));
    },
  );
});

describe("the choice", () => {
  it("leaves few tiles and few channels to the direct kernel", async () => {
    const direct: Shape[] = [
      { x: [2, 8, 8, 64], O: 64 },
      { x: [4, 16, 16, 8], O: 64 },
      { x: [4, 16, 16, 64], O: 3 },
    ];
    for (const shape of direct) expect((await run(shape, "f32", {})).text).not.toContain("F(");
  });
});
