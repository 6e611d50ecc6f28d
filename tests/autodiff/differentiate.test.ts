// The walk itself: sums of paths, tensors that do not matter, second derivatives, mistakes.
import { describe, expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import { stopGradient } from "../../lib/trace/functions.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace } from "../../lib/trace/trace.js";
import { run } from "../ops/harness.js";

/** Values of the tensors that `build` makes from x = [1, 2, 3]. */
async function valuesAt123(build: (x: Tensor) => Tensor[]): Promise<number[][]> {
  let count = 0;
  const graph = trace(
    (t) => {
      const results = build(t.input("x", { shape: [3] }));
      count = results.length;
      results.forEach((y, i) => t.output(`y${i}`, y));
    },
    { dtype: "f64" },
  );
  const outputs = await run(graph, "ref", { x: Float64Array.of(1, 2, 3) });
  return Array.from({ length: count }, (_, i) => Array.from(outputs[`y${i}`]!));
}

describe("gradients", () => {
  it("adds up all paths", async () => {
    const [g] = await valuesAt123((x) => gradients(x.mul(x).add(x.mul(3)).sum(), [x]));
    expect(g).toEqual([5, 7, 9]);
  });

  it("is zero where nothing depends on the tensor", async () => {
    const [g] = await valuesAt123((x) => gradients(x.trace.constant(1), [x]));
    expect(g).toEqual([0, 0, 0]);
  });

  it("stops at stopGradient", async () => {
    const [g] = await valuesAt123((x) => gradients(x.mul(stopGradient(x)).sum(), [x]));
    expect(g).toEqual([1, 2, 3]);
  });

  it("does not flow through whole numbers", async () => {
    const [g] = await valuesAt123((x) => gradients(x.cast("i32").cast("f32").mul(x).sum(), [x]));
    expect(g).toEqual([1, 2, 3]);
  });

  it("flows through 16-bit storage", async () => {
    const [g] = await valuesAt123((x) => {
      const stored = x.cast("bf16");
      const twice = stored.reshape([3, 1]).reshape([3]);
      return gradients(stored.cast("f32").square().add(twice.cast("f32")).sum(), [x]);
    });
    expect(g).toEqual([3, 5, 7]);
  });

  it("counts a path through another tensor that was asked for", async () => {
    const [gx, gy] = await valuesAt123((x) => {
      const y = x.square();
      return gradients(y.mul(x).sum(), [x, y]);
    });
    expect(gx).toEqual([3, 12, 27]);
    expect(gy).toEqual([1, 2, 3]);
  });

  it("takes an upstream gradient", async () => {
    const [g] = await valuesAt123((x) => gradients(x.square(), [x], { upstream: x }));
    expect(g).toEqual([2, 8, 18]);
  });

  it("differentiates its own output", async () => {
    const [g] = await valuesAt123((x) => {
      const [first] = gradients(x.square().mul(x).sum(), [x]);
      const [second] = gradients(first!.sum(), [x]);
      return gradients(second!.sum(), [x]);
    });
    expect(g).toEqual([6, 6, 6]);
  });

  it("asks for a scalar, or an upstream of the right shape", () => {
    const build = (use: (x: Tensor) => void) => () =>
      trace((t) => use(t.input("x", { shape: [2, 3] })));
    expect(build((x) => gradients(x, [x]))).toThrow("gradients: expected a scalar, got [2, 3]");
    expect(build((x) => gradients(x, [x], { upstream: x.sum() }))).toThrow(
      "gradients: expected upstream of shape [2, 3], got []",
    );
  });
});
