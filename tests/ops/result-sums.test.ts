// Group norms take mean and variance from sums that the kernel before gathered (docs/design/0022): close to float64 for
// each kernel that gathers them, the same for any number of threads.
import { afterAll, describe, expect, it } from "vitest";
import { uniformStream } from "../../lib/nn/random.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { configureBackend } from "../../lib/runtime/device.js";
import { compile, type CompileOptions } from "../../lib/runtime/program.js";
import { concat, conv2d, groupNorm } from "../../lib/trace/functions.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace, type Trace } from "../../lib/trace/trace.js";
import { backends, typedArray } from "./harness.js";

afterAll(() => configureBackend({ threads: 2 }));

const isas = backends.filter((isa) => isa !== "ref");

type Map = readonly [batch: number, height: number, width: number, channels: number];

interface Case {
  readonly x: Map;
  readonly O: number;
  readonly groups: number;
  /** Of a convolution; a matrix product without. */
  readonly kernel?: number;
  readonly stride?: number;
  readonly upsample?: number;
  readonly end?: "bias" | "residual" | "program";
  readonly options?: CompileOptions;
  /** The kernel leaves its sums to the norm, as all do for small samples. */
  readonly isLeft?: boolean;
}

const cases: Record<string, Case> = {
  "tiles in stages": { x: [1, 32, 32, 64], O: 96, groups: 32, kernel: 3, end: "residual" },
  "rows of tiles that are not whole": { x: [1, 33, 31, 64], O: 70, groups: 7, kernel: 3 },
  "few tiles": { x: [1, 16, 16, 64], O: 288, groups: 16, kernel: 3, end: "program" },
  "tiles of an upsampled map": { x: [1, 16, 16, 64], O: 96, groups: 32, kernel: 3, upsample: 2, end: "bias" }, // prettier-ignore
  "blocks of tiles of two samples": { x: [3, 39, 38, 48], O: 48, groups: 12, kernel: 3, end: "residual" }, // prettier-ignore
  "tiles in digits, by their blocks on one thread": { x: [1, 24, 23, 128], O: 128, groups: 32, kernel: 3, end: "bias" }, // prettier-ignore
  "blocks of tiles in digits": {
    x: [1, 40, 38, 96],
    O: 132,
    groups: 33,
    kernel: 3,
    end: "program",
  },
  "blocks of them of two samples": { x: [3, 29, 27, 128], O: 96, groups: 12, kernel: 3, end: "residual" }, // prettier-ignore
  "blocks of few of them": { x: [5, 41, 37, 48], O: 48, groups: 8, kernel: 3, end: "program" },
  "stride 2": { x: [3, 67, 62, 64], O: 64, groups: 32, kernel: 3, stride: 2, end: "bias" },
  "as defined": { x: [3, 39, 37, 24], O: 50, groups: 10, kernel: 3, options: { winograd: false } },
  "4x4 taps": { x: [2, 85, 82, 20], O: 40, groups: 8, kernel: 4, stride: 2, end: "residual" },
  "a first layer": { x: [3, 35, 32, 3], O: 72, groups: 8, kernel: 3, end: "bias" },
  "a small map": { x: [1, 4, 4, 64], O: 64, groups: 32, kernel: 3, end: "bias", isLeft: true }, // prettier-ignore
  "1x1 taps": { x: [3, 31, 31, 40], O: 72, groups: 24, kernel: 1, end: "residual" },
  "a product": { x: [3, 31, 31, 40], O: 72, groups: 24, end: "residual" },
  "a product of one pixel": { x: [3, 1, 1, 40], O: 64, groups: 4, isLeft: true },
  "a product by Strassen's algorithm": { x: [3, 14, 10, 512], O: 512, groups: 32, end: "residual" },
  "a large product": { x: [3, 70, 41, 24], O: 96, groups: 32, end: "bias" },
  "weights stored narrow": { x: [3, 29, 20, 128], O: 128, groups: 32, end: "bias", options: { quantize: "f16-weights" } }, // prettier-ignore
};

/** The producer's result, far from zero, its norm, and the norm of it beside another tensor. */
function producer(t: Trace, c: Case): void {
  const { x: shape, O, groups, kernel, stride = 1, upsample = 1, end } = c;
  const input = (name: string, of: readonly number[]): Tensor => t.input(name, { shape: [...of] });
  const weight = (of: number[]): Tensor =>
    t.parameter({ name: "w", shape: of, init: { kind: "zeros" } });
  const x = input("x", shape);
  const C = shape[3];
  const padding = Array<number>(4).fill(kernel === 1 ? 0 : 1) as [number, number, number, number];
  let y = kernel
    ? conv2d(x, weight([kernel, kernel, C, O]), { padding, stride, upsample })
    : x.reshape([shape[0], shape[1] * shape[2], C]).matmul(weight([C, O]));
  if (end === "bias" || end === "residual") y = y.add(input("bias", [O]).add(20));
  if (end === "residual") y = y.add(input("residual", y.shape));
  if (end === "program") y = y.mul(3).silu().add(5);
  const norm = (z: Tensor, channels: number, n: number, name: string): Tensor =>
    groupNorm(z, input(`gamma ${name}`, [channels]), input(`beta ${name}`, [channels]), { groups: n, activation: "silu" }); // prettier-ignore
  t.output("y", norm(y, O, groups, "y"));
  const other = input("other", [...y.shape.slice(0, -1), O / 2]).mul(2);
  t.output("both", norm(concat([y, other], y.rank - 1), O + O / 2, O / 2, "both"));
}

async function run(c: Case, isa: string, threads = 2, spoil?: number) {
  configureBackend({ threads });
  const dtype = isa === "f64" ? "f64" : "f32";
  const graph = trace((t) => producer(t, c), { dtype });
  using program = await compile(graph, isa === "f64" ? { isa: "ref" } : { ...c.options, isa });
  const numbers = (name: string, shape: readonly number[]) => {
    const size = shape.reduce((n, m) => n * m, 1);
    const data = Array.from(uniformStream(5, name, size), (u) => (2 * u - 1) / (name === "w" ? 8 : 1)); // prettier-ignore
    if (name === "x" && spoil !== undefined) data[data.length >> 1] = spoil;
    return typedArray(dtype, data);
  };
  const feeds: Record<string, ReturnType<typeof typedArray>> = {};
  const weights: Record<string, Buffer> = {};
  for (const { name, value, role } of graph.inputs) {
    const shape = graph.values[value]!.shape;
    if (role === "input") feeds[name] = numbers(name, shape);
    else weights[name] = Buffer.fromArray(numbers(name, shape), dtype, [...shape]);
  }
  using session = await program.bind(weights);
  const outputs = (await session.run(feeds)) as Record<string, Float32Array>;
  const norms = program.plan().steps.filter(({ op }) => op.startsWith("groupNorm"));
  return { outputs, norms };
}

describe.each(isas)("%s", (isa) => {
  it.each(Object.keys(cases))("sums of %s", async (name) => {
    const c = cases[name]!;
    const exact = await run(c, "f64");
    const ours = await run(c, isa);
    const alone = await run(c, isa, 1);
    const sums = `,${3 * c.O + 16}]`;
    expect(ours.norms.filter(({ text }) => text.includes(sums))).toHaveLength(c.isLeft ? 0 : 2);
    for (const [output, y] of Object.entries(ours.outputs)) {
      const worst = y.reduce((most, v, i) => {
        const distance = Math.abs(v - exact.outputs[output]![i]!);
        return distance <= most ? most : distance;
      }, 0);
      expect(worst).toBeLessThan(c.options?.quantize ? 3e-2 : 2e-4);
      expect(y.every((v, i) => v === alone.outputs[output]![i])).toBe(true);
    }
  });

  it("keeps what is not a number in its groups and samples", async () => {
    for (const name of ["tiles in stages", "blocks of tiles of two samples", "a product"]) {
      const exact = await run(cases[name]!, "f64", 2, NaN);
      const ours = await run(cases[name]!, isa, 2, NaN);
      for (const [output, y] of Object.entries(ours.outputs)) {
        const places = Array.from(y, Number.isNaN);
        expect(places.includes(true)).toBe(true);
        expect(places).toEqual(Array.from(exact.outputs[output]!, Number.isNaN));
      }
    }
  });
});
