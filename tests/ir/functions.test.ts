// Composite functions and the tracing API: what they compute, by the interpreter in doubles, and what they refuse.
import { describe, expect, it } from "vitest";
import { printGraph } from "../../lib/ir/print.js";
import { verify } from "../../lib/ir/verify.js";
import * as f from "../../lib/trace/functions.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { GraphTrace, trace } from "../../lib/trace/trace.js";
import { interpret } from "../ops/interpreter.js";

const count = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

/** fn of the numbers `x` in `shape`. */
function apply(
  x: number[],
  shape: number[],
  fn: (x: Tensor) => Tensor,
): { shape: readonly number[]; data: number[] } {
  let result: readonly number[] = [];
  const graph = trace((t) => {
    const y = fn(t.input("x", { shape }));
    result = y.shape;
    t.output("y", y);
  });
  verify(graph);
  return { shape: result, data: interpret(graph, { x }).y! };
}

const expectClose = (got: readonly number[], want: readonly number[]): void => {
  expect(got.length).toBe(want.length);
  got.forEach((x, i) => expect(x).toBeCloseTo(want[i]!, 9));
};

describe("reductions", () => {
  it("over axes that are not adjacent are split", () => {
    const { shape, data } = apply(count(24), [2, 3, 4], (x) => x.sum([0, -1]));
    expect(shape).toEqual([3]);
    expect(data).toEqual([0, 1, 2].map((r) => 8 * 4 * r + 2 * 6 + 48));
  });

  it("keep axes when asked, and take all without a list", () => {
    expect(apply(count(6), [2, 3], (x) => x.mean([1], true))).toEqual({
      shape: [2, 1],
      data: [1, 4],
    });
    expect(apply(count(6), [2, 3], (x) => x.max())).toEqual({ shape: [], data: [5] });
  });

  it("sum of squares squares once", () => {
    expect(apply(count(8), [2, 2, 2], (x) => x.sumSquares([0, 2])).data).toEqual([
      0 + 1 + 16 + 25,
      4 + 9 + 36 + 49,
    ]);
    expect(apply([3], [], (x) => x.sumSquares()).data).toEqual([9]);
  });

  it("of a scalar is the scalar", () => {
    expect(apply([3], [], (x) => x.sum()).data).toEqual([3]);
  });
});

describe("composites", () => {
  it("logSumExp", () => {
    expectClose(apply([1000, 1000], [1, 2], (x) => f.logSumExp(x)).data, [1000 + Math.log(2)]);
    expect(apply(count(6), [2, 3], (x) => f.logSumExp(x, 0, true)).shape).toEqual([1, 3]);
  });

  it("split, stack and unstack are inverses", () => {
    const swapped = apply(count(12), [2, 3, 2], (x) => f.stack(f.unstack(x, 1), 1));
    expect(swapped).toEqual({ shape: [2, 3, 2], data: count(12) });
    expect(apply(count(5), [5], (x) => f.split(x, [2, 3], 0)[1]!).data).toEqual([2, 3, 4]);
    expect(() => apply(count(5), [5], (x) => f.split(x, 2, 0)[1]!)).toThrow(
      "split: expected parts that fill the 5 elements of axis 0, got 2 equal parts",
    );
  });

  it("repeat, reverse, sort and one-hot", () => {
    expect(apply(count(4), [2, 2], (x) => f.repeat(x, 2, 1)).data).toEqual([
      0, 0, 1, 1, 2, 2, 3, 3,
    ]);
    expect(apply(count(3), [3], (x) => f.reverse(x, 0)).data).toEqual([2, 1, 0]);
    expect(apply([2, 1, 3], [3], (x) => f.sort(x).values).data).toEqual([1, 2, 3]);
    expect(apply([2, 0], [2], (x) => f.oneHot(x.cast("i32"), 3)).data).toEqual([0, 0, 1, 1, 0, 0]);
  });

  it("batch norm by the batch and by stored statistics", () => {
    const affine = (x: Tensor) => [x.trace.constant([2]), x.trace.constant([1])] as const;
    expectClose(
      apply([1, 3], [2, 1], (x) => f.batchNorm(x, ...affine(x), { eps: 0 })).data,
      [-1, 3],
    );
    const stored = apply([1, 3], [2, 1], (x) =>
      f.batchNorm(x, ...affine(x), {
        eps: 0,
        statistics: { mean: x.trace.constant([1]), variance: x.trace.constant([4]) },
      }),
    );
    expectClose(stored.data, [1, 3]);
  });

  it("standardise", () => {
    expectClose(apply([1, 3], [2], (x) => f.standardise(x, 0, { eps: 0 })).data, [-1, 1]);
  });

  it("pixel shuffle has PyTorch's order and an inverse", () => {
    const shuffled = apply(count(8), [1, 1, 1, 8], (x) => f.pixelShuffle(x, 2));
    expect(shuffled).toEqual({ shape: [1, 2, 2, 2], data: [0, 4, 1, 5, 2, 6, 3, 7] });
    expect(
      apply(count(48), [1, 2, 2, 12], (x) => f.pixelUnshuffle(f.pixelShuffle(x, 2), 2)).data,
    ).toEqual(count(48));
  });

  it("pooling with windows side by side and overlapping", () => {
    const map = [1, 3, 3, 1];
    expect(apply(count(9), map, (x) => f.maxPool2d(x, { kernel: 2, stride: 1 })).data).toEqual([
      4, 5, 7, 8,
    ]);
    expect(apply(count(9), map, (x) => f.avgPool2d(x, { kernel: 2 })).data).toEqual([2]);
    expectClose(
      apply(count(9), map, (x) => f.avgPool2d(x, { kernel: 3, stride: 2, padding: 1 })).data,
      [8, 12, 20, 24].map((v) => v / 9),
    );
    expect(
      apply([-5], [1, 1, 1, 1], (x) => f.maxPool2d(x, { kernel: 3, stride: 2, padding: 1 })).data,
    ).toEqual([-5]);
  });
});

describe("conv2dGradInput", () => {
  it("with unequal strides equals the op, which has no kernel", () => {
    const options = { stride: [2, 1], padding: [1, 0, 2, 1], inputSize: [8, 6] } as const;
    const gradient = (viaOp: boolean): number[] =>
      apply(count(84).map(Math.sin), [1, 4, 7, 3], (dy) => {
        const w = dy.trace.constant(count(108).map(Math.cos), [3, 3, 4, 3]);
        if (!viaOp) return f.conv2dGradInput(dy, w, options);
        return dy.trace.append("conv2dGradInput", [dy, w], { ...options, groups: 1 })[0]!;
      }).data;
    expectClose(gradient(false), gradient(true));
  });
});

describe("resize", () => {
  const row = [0, 1, 2, 3];
  const resized = (size: number, options: Omit<f.ResizeOptions, "size">): number[] =>
    apply(row, [1, 1, 4, 1], (x) => f.resize(x, { size: [1, size], ...options })).data;

  // PyTorch 2: interpolate(arange(4.)[None, None, None], (1, size), mode, align_corners=False, antialias)
  it("has half-pixel centres", () => {
    expect(resized(8, { method: "nearest" })).toEqual([0, 0, 1, 1, 2, 2, 3, 3]);
    expectClose(resized(8, {}), [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]);
    expectClose(resized(2, {}), [0.5, 2.5]);
  });

  it("bicubic has a = -0.75 and reads the border outside", () => {
    expectClose(resized(2, { method: "bicubic" }), [0.40625, 2.59375]);
  });

  it("antialiasing widens the kernel and leaves outside taps out", () => {
    // weights 0.75, 0.75, 0.25 (taps 0, 1, 2) for centre 0.5 and stretch 2
    expectClose(resized(2, { antialias: true }), [(0.75 + 0.5) / 1.75, 3 - (0.75 + 0.5) / 1.75]);
  });

  it("keeps constants and both axes", () => {
    const { shape, data } = apply(count(12).fill(5), [1, 2, 3, 2], (x) =>
      f.resize(x, { size: [5, 2], method: "bicubic", antialias: true }),
    );
    expect(shape).toEqual([1, 5, 2, 2]);
    expectClose(data, count(20).fill(5));
  });
});

describe("trace", () => {
  it("prints one line for each node", () => {
    const graph = trace((t) => {
      const x = t.input("x", { shape: [2, 3] });
      const w = t.parameter({ name: "out.weight", shape: [3, 4], init: { kind: "zeros" } });
      t.output(
        "y",
        t.scoped("out", () => t.scoped("act", () => x.matmul(w).add(0.5).silu())),
      );
    });
    expect(printGraph(graph)).toMatchInlineSnapshot(`
      "%0 = input {name="x", role="input"} : f32[2,3]
      %1 = input {name="out.weight", role="weight"} : f32[3,4]
      %2 = matmul %0 %1 {transposeA=false, transposeB=false} : f32[2,4] # out.act
      %3 = constant {dtype="f32", shape=[], values=[0.5]} : f32[] # out.act
      %4 = add %2 %3 : f32[2,4] # out.act
      %5 = silu %4 : f32[2,4] # out.act
      return y=%5"
    `);
  });

  it("prints several outputs, updates and lists", () => {
    const graph = trace((t) => {
      const s = t.state("s", { shape: [4] });
      const { values, indices } = f.topK(s, { k: 2 });
      t.output("indices", indices);
      t.update("s", f.concat([values, values.mul(1e-7)], 0));
    });
    expect(printGraph(graph)).toMatchInlineSnapshot(`
      "%0 = input {name="s", role="state"} : f32[4]
      %1, %2 = topK %0 {descending=true, k=2} : f32[2], i32[2]
      %3 = constant {dtype="f32", shape=[], values=[1e-7]} : f32[]
      %4 = mul %1 %3 : f32[2]
      %5 = concat %1 %4 {axis=0} : f32[4]
      return indices=%2, s=%5 -> s"
    `);
  });

  it("in f64 makes every f32 an f64", () => {
    const graph = trace(
      (t) => {
        const x = t.input("x", { shape: [2], dtype: "f32" });
        const draws = f.randomUniform(t.input("key", { shape: [2, 4], dtype: "i32" }), {
          shape: [2],
          purpose: 1,
        });
        const ids = t.input("ids", { shape: [2], dtype: "i32" }).cast("f32");
        t.output(
          "y",
          x
            .add(draws)
            .mul(ids)
            .add(f.iota(t, [2], 0, "f32"))
            .add(t.constant([1, 2])),
        );
      },
      { dtype: "f64" },
    );
    verify(graph);
    expect(new Set(graph.values.map(({ dtype }) => dtype))).toEqual(new Set(["f64", "i32"]));
  });

  it("hands out one tensor for each name and each constant", () => {
    const t = new GraphTrace();
    expect(t.state("s", { shape: [2] })).toBe(t.state("s", { shape: [2] }));
    expect(t.constant(0)).toBe(t.constant(0));
    expect(t.constant(-0)).not.toBe(t.constant(0));
    expect(t.constant(0, [], "i32").dtype).toBe("i32");
    expect(() => t.state("s", { shape: [3] })).toThrow(
      "state s: expected state f32[2] as declared before, got state f32[3]",
    );
    expect(() => t.input("s", { shape: [2] })).toThrow(
      "input s: expected state f32[2] as declared before, got input f32[2]",
    );
  });

  it("refuses tensors of another trace, repeated outputs and bad updates", () => {
    const [t, other] = [new GraphTrace(), new GraphTrace()];
    const [x, y] = [t.input("x", { shape: [2] }), other.input("y", { shape: [2] })];
    expect(() => x.add(y)).toThrow("add: expected tensors of one trace, got f32[2] of another");
    t.output("x", x);
    expect(() => t.output("x", x)).toThrow('output: expected a new name, got "x" again');
    expect(() => t.update("x", x)).toThrow(
      'update: expected the name of a state, got "x", which is input',
    );
    t.state("s", { shape: [3] });
    expect(() => t.update("s", x)).toThrow("update: expected f32[3] for s, got f32[2]");
  });

  it("drops dead nodes, merges equal ones, keeps inputs", () => {
    const graph = trace((t) => {
      const x = t.input("x", { shape: [2] });
      t.input("unused", { shape: [1] });
      x.exp().log();
      t.output("y", x.exp().add(x.exp()));
    });
    expect(graph.nodes.map(({ op }) => op)).toEqual(["input", "input", "exp", "add"]);
    verify(graph);
  });

  it("records taps by name and restores scopes after an error", () => {
    const t = new GraphTrace();
    const x = t.input("x", { shape: [2] });
    t.record("a.b", x);
    expect(t.recorded.get("a.b")).toBe(x);
    expect(() => t.scoped("bad", () => x.matmul(x))).toThrow("matmul");
    x.neg();
    expect(t.graph.nodes.at(-1)!.scope).toBe("");
  });

  it("reshape infers one size", () => {
    expect(new GraphTrace().input("x", { shape: [2, 6] }).reshape([4, -1]).shape).toEqual([4, 3]);
  });
});
