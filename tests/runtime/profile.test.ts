// The time of each instruction of a run, in the order of the plan's steps.
import { expect, it } from "vitest";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import { trace } from "../../lib/trace/trace.js";

it("gives one time an instruction, and names what it timed", async () => {
  const graph = trace((t) => {
    const x = t.input("x", { shape: [64, 64] });
    const w = t.parameter({ name: "w", shape: [64, 64], init: { kind: "zeros" } });
    t.output("y", x.matmul(w.neg()).exp().sum([1]));
  });
  using program = await compile(graph);
  using w = Buffer.fromArray(new Float32Array(64 * 64), "f32", [64, 64]);
  using session = await program.bind({ w });
  const { steps, instructions, flops } = program.plan();
  expect(steps.map(({ op }) => op)).toEqual(["matmul+(exp)", "sum"]);
  expect(steps.reduce((sum, step) => sum + step.flops, 0)).toBe(flops);
  const times = await session.profile({ x: new Float32Array(64 * 64) });
  expect(times).toHaveLength(instructions);
  expect(times.every((ms) => ms > 0 && ms < 1000)).toBe(true);
});
