// What follows a group norm runs in its pass: against the same graph in float64, whatever hangs on it.
import { describe, expect, it } from "vitest";
import { uniformStream } from "../../lib/nn/random.js";
import { compile } from "../../lib/runtime/program.js";
import { groupNorm } from "../../lib/trace/functions.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace, type Trace } from "../../lib/trace/trace.js";
import { ownBackends, typedArray, type Real } from "./harness.js";

type Shape = [number, number, number, number];

const given = (t: Trace, name: string, shape: number[], dtype: Real): Tensor =>
  t.input(name, { shape, dtype });

/** From the normalised map y, its input x, numbers of each sample and channel s and t, of each channel u. */
const ends: Record<string, (y: Tensor, more: Record<"x" | "s" | "t" | "u", Tensor>) => Tensor[]> = {
  "scale, shift, SiLU": (y, { s, t }) => [y.mul(s.add(1)).add(t).silu()],
  "the same, turned round": (y, { s, t }) => [t.add(s.mul(y)).silu()],
  "scale of channels": (y, { u }) => [y.mul(u)],
  "shift, SiLU": (y, { t }) => [y.add(t).silu()],
  "SiLU alone": (y) => [y.silu()],
  "shift, then scale": (y, { s, u }) => [y.add(u).mul(s)],
  "two scales": (y, { s, u }) => [y.mul(s).mul(u)],
  "GELU and a residual": (y, { x, t }) => [y.add(t).gelu().add(x)],
  "its square": (y, { s }) => [y.mul(y).add(s)],
  "two results": (y, { s, t }) => [y.mul(s).add(t), y.mul(s).add(t).silu()],
  "another norm": (y, { u }) => [groupNorm(y, u, u, { groups: 1 })],
  "a cast": (y, { s }) => [y.mul(s).cast("f16").cast(y.dtype)],
};

async function run(
  [B, H, W, C]: Shape,
  groups: number,
  end: string,
  activation: "none" | "silu",
  isa: string,
) {
  const dtype = isa === "f64" ? "f64" : "f32";
  const graph = trace(
    (t) => {
      const x = given(t, "x", [B, H, W, C], dtype).mul(3).add(1);
      const channels = (name: string) => given(t, name, [C], dtype);
      const rows = (name: string) => given(t, name, [B, 1, 1, C], dtype);
      const y = groupNorm(x, channels("gamma"), channels("beta"), { groups, activation });
      const more = { x, s: rows("s"), t: rows("t"), u: channels("u") };
      ends[end]!(y, more).forEach((result, i) => t.output(`y${i}`, result));
    },
    { dtype },
  );
  using program = await compile(graph, { isa: isa === "f64" ? "ref" : isa });
  using session = await program.bind();
  const feeds = graph.inputs.map(({ name, value }) => {
    const size = graph.values[value]!.shape.reduce((n, m) => n * m, 1);
    return [
      name,
      typedArray(
        dtype,
        Array.from(uniformStream(7, name, size), (u) => 2 * u - 1),
      ),
    ];
  });
  const outputs = await session.run(Object.fromEntries(feeds) as Record<string, Float32Array>);
  const numbers = Object.keys(outputs).sort().flatMap((name) => Array.from(outputs[name] as Float32Array)); // prettier-ignore
  return { numbers, ops: program.plan().steps.map(({ op }) => op) };
}

const shapes: [Shape, number][] = [
  [[3, 5, 4, 18], 6],
  [[2, 1, 1, 16], 4],
  [[1, 7, 3, 33], 3],
  [[3, 20, 18, 250], 10], // in blocks of rows
  [[1, 80, 70, 48], 8],
];

describe.each(ownBackends)("%s", (isa) => {
  const rows = shapes.flatMap(([shape, groups]) =>
    Object.keys(ends).map((end) => [shape, groups, end] as const),
  );
  it.each(rows)("%j, %i groups: %s", async (shape, groups, end) => {
    for (const activation of ["none", "silu"] as const) {
      const exact = await run(shape, groups, end, activation, "f64");
      const ours = await run(shape, groups, end, activation, isa);
      const worst = Math.max(...chunked(ours.numbers.map((v, i) => Math.abs(v - exact.numbers[i]!) / (1 + Math.abs(exact.numbers[i]!))))); // prettier-ignore
      expect(worst).toBeLessThan(end === "a cast" ? 2e-3 : 2e-5);
      const joined = ours.ops.filter((op) => op.startsWith("groupNorm+"));
      expect(joined).toHaveLength(end === "another norm" ? 0 : 1);
    }
  });
});

/** The largest of each thousand: a call takes only so many arguments. */
function chunked(values: readonly number[]): number[] {
  const maxima: number[] = [];
  for (let i = 0; i < values.length; i += 1000) maxima.push(Math.max(...values.slice(i, i + 1000)));
  return maxima;
}
