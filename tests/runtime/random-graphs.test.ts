// Random graphs, compiled with all fusion, aliasing and in-place writing, against an evaluator in plain JavaScript.
import fc from "fast-check";
import { describe, it } from "vitest";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace, type Trace } from "../../lib/trace/trace.js";
import { interpret } from "../ops/interpreter.js";
import { uniformStream } from "../ops/operand.js";

type Choice = { kind: number; a: number; b: number; c: number };

const choice = fc.record({ kind: fc.nat(19), a: fc.nat(63), b: fc.nat(63), c: fc.nat(63) });
const programs = fc.record({
  choices: fc.array(choice, { minLength: 3, maxLength: 40 }),
  outputs: fc.array(fc.nat(63), { minLength: 1, maxLength: 4 }),
  updates: fc.array(fc.nat(63), { minLength: 3, maxLength: 3 }),
});
type RandomProgram = typeof programs extends fc.Arbitrary<infer T> ? T : never;

const B = 2;
const N = 3;
const C = 16;
const full = [B, N, C];
const stateNames = ["p", "q", "r"];

/** Appends one bounded operation; every result has the full shape, or none is added. */
function append(t: Trace, pool: Tensor[], { kind, a, b, c }: Choice): Tensor {
  const x = pool[a % pool.length]!;
  const y = pool[b % pool.length]!;
  const weight = t.parameter({ name: `w${c % 2}`, shape: [C, C], init: { kind: "zeros" } });
  const vector = t.parameter({ name: "v", shape: [C], init: { kind: "zeros" } });
  const makers: (() => Tensor)[] = [
    () => x.add(y),
    () => x.sub(y),
    () => x.mul(y.tanh()),
    () => x.tanh(),
    () => x.sigmoid().mul(0.5),
    () => x.silu(),
    () => x.neg(),
    () => x.add(vector),
    () => x.mul(0.5).add(y.mul(0.25)),
    () => x.tanh().matmul(weight),
    () =>
      x
        .reshape([B * N, C])
        .matmul(weight, { transposeB: true })
        .reshape(full)
        .tanh(),
    () => x.sum([1], true).mul(0.1).add(y),
    () => x.mean([2], true).broadcastTo(full),
    () => x.reshape([N, B, C]).transpose([1, 0, 2]).add(y),
    () => x.slice([c % B, 0, 0], [1, N, C]).add(y),
    () => x.slice([0, 0, 0], [1, N, C]).tanh().broadcastTo(full),
    () =>
      x
        .less(y)
        .cast("f32")
        .mul(0.5)
        .add(x.dtype === "f32" ? x : x.mul(0)),
    () => x.transpose([0, 2, 1]).reshape([B, C, N]).transpose([0, 2, 1]),
    () => x.matmul(y.tanh(), { transposeB: true }).tanh().matmul(x),
    () => x.abs().sqrt(),
  ];
  const made = makers[kind]!();
  return kind === 18 ? made.tanh() : made;
}

function build({ choices, outputs, updates }: RandomProgram, dtype: "f32" | "f64") {
  return trace(
    (t) => {
      const states = stateNames.map((name) => t.state(name, { shape: full }));
      const pool = [t.input("x", { shape: full }), t.input("y", { shape: full }), ...states];
      for (const one of choices) {
        if (dtype === "f64" && one.kind === 16) continue; // casts to f32
        pool.push(append(t, pool, one));
      }
      outputs.forEach((pick, i) => t.output(`o${i}`, pool[pick % pool.length]!));
      updates.forEach((pick, i) => {
        if (pick % 4 > 0) t.update(stateNames[i]!, pool[pick % pool.length]!);
      });
    },
    { dtype },
  );
}

const arrayOf = (dtype: "f32" | "f64", values: number[]) =>
  dtype === "f32" ? Float32Array.from(values) : Float64Array.from(values);

async function check(program: RandomProgram, dtype: "f32" | "f64", isa: string): Promise<void> {
  const graph = build(program, dtype);
  const draw = uniformStream(7);
  const feeds = Object.fromEntries(
    graph.inputs.map(({ name, value }) => {
      const count = graph.values[value]!.shape.reduce((n, m) => n * m, 1);
      return [
        name,
        arrayOf(
          dtype,
          Array.from({ length: count }, () => draw() - 0.5),
        ),
      ];
    }),
  );
  const exact = interpret(graph, feeds);
  const compiled = await compile(graph, { isa });
  const buffers = Object.fromEntries(
    graph.inputs
      .filter(({ role }) => role !== "input")
      .map(({ name, value }) => [
        name,
        Buffer.fromArray(feeds[name]!, dtype, graph.values[value]!.shape),
      ]),
  );
  const session = await compiled.bind(buffers);
  const inputs = Object.fromEntries(
    graph.inputs.filter(({ role }) => role === "input").map(({ name }) => [name, feeds[name]!]),
  );
  const ours = await session.run(inputs);
  const tolerance = dtype === "f32" ? 2e-4 : 1e-11;
  const results = new Map<string, ArrayLike<number>>(Object.entries(ours));
  for (const { name, updates } of graph.outputs) {
    if (updates !== undefined) results.set(name, buffers[updates]!.read());
  }
  for (const [name, values] of results) {
    exact[name]!.forEach((e, i) => {
      const off = Math.abs(values[i]! - e);
      if (!(off <= tolerance * Math.max(1, Math.abs(e)))) {
        throw new Error(
          `${name} element ${i}: expected ${e}, got ${values[i]}\n${compiled.print()}`,
        );
      }
    });
  }
  session.dispose();
  compiled.dispose();
  Object.values(buffers).forEach((buffer) => buffer.dispose());
}

describe("random graphs", () => {
  it("agree with the evaluator in f64 on ref", async () => {
    await fc.assert(
      fc.asyncProperty(programs, (program) => check(program, "f64", "ref")),
      { numRuns: 150 },
    );
  });

  it("agree with the evaluator in f32 on the best instruction set", async () => {
    await fc.assert(
      fc.asyncProperty(programs, (program) => check(program, "f32", "")),
      { numRuns: 150 },
    );
  });
});
