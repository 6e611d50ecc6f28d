// What the compiler makes of typical pieces of networks: how many passes, and how much memory.
import { describe, expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import { compile } from "../../lib/runtime/program.js";
import { attention, conv2d, split, sumSquares } from "../../lib/trace/functions.js";
import { trace, type Trace } from "../../lib/trace/trace.js";
import { backends } from "../ops/harness.js";

const zeros = { kind: "zeros" } as const;
const parameter = (t: Trace, name: string, shape: number[]) =>
  t.parameter({ name, shape, init: zeros });

/** Instruction names of the run, in order. */
async function passes(fn: (t: Trace) => void): Promise<string[]> {
  const program = await compile(trace(fn));
  const lines = program.print().split("\nrun\n")[1]!.split("\n");
  program.dispose();
  return lines.filter((line) => line.trim()).map((line) => line.trim().replace(/ \[.*/, ""));
}

describe("passes", () => {
  it("hangs bias, activation and residual on a convolution, and packs its weight once", async () => {
    const names = await passes((t) => {
      const x = t.input("x", { shape: [1, 8, 8, 16] });
      const y = conv2d(x, parameter(t, "w", [3, 3, 16, 16]), { padding: 1 });
      t.output(
        "y",
        y
          .add(parameter(t, "b", [16]))
          .silu()
          .add(x),
      );
    });
    expect(names).toEqual(["conv2d+(add silu add)"]);
  });

  it("hangs an epilogue on a product behind a reshape", async () => {
    const names = await passes((t) => {
      const x = t.input("x", { shape: [6, 16] });
      const y = x.matmul(parameter(t, "w", [16, 32])).reshape([2, 3, 32]);
      t.output("y", y.add(parameter(t, "b", [32])).gelu());
    });
    expect(names).toEqual(["matmul+(add gelu)"]);
  });

  it("computes what depends on weights only when binding", async () => {
    const names = await passes((t) => {
      const scale = parameter(t, "s", [16]).exp().add(1);
      t.output("y", t.input("x", { shape: [4, 16] }).mul(scale));
    });
    expect(names).toEqual(["pointwise(mul)"]);
  });

  it("joins the gradient of a split into one tensor", async () => {
    const names = await passes((t) => {
      const x = t.input("x", { shape: [1, 4, 48] });
      const [q, k, v] = split(x, [16, 16, 16], 2).map((part) => part.reshape([1, 4, 2, 8]));
      const loss = attention(q!, k!, v!).out.sum();
      t.output("dx", gradients(loss, [x])[0]!);
    });
    expect(names).toContain("concat");
    expect(names).not.toContain("pad");
  });

  it("sums squares without writing them", async () => {
    const names = await passes((t) => {
      const x = t.input("x", { shape: [64] });
      t.output("y", x.square().sum());
      t.output("z", sumSquares(x));
    });
    expect(names).toEqual(["sumSquares"]);
  });

  it("keeps one pass for values that two outputs share", async () => {
    const names = await passes((t) => {
      const x = t.input("x", { shape: [8, 8] }).tanh();
      t.output("a", x.add(1));
      t.output("b", x.mul(2).exp());
    });
    expect(names).toEqual(["pointwise(tanh add mul exp)"]);
  });

  it("splits chains that exceed the registers", async () => {
    const names = await passes((t) => {
      const inputs = Array.from({ length: 40 }, (_, i) => t.input(`x${i}`, { shape: [8] }));
      t.output(
        "y",
        inputs.map((x) => x.tanh()).reduceRight((a, b) => b.sub(a)),
      );
    });
    expect(names.length).toBeGreaterThan(1);
    expect(names.length).toBeLessThan(8);
  });
});

describe("memory", () => {
  it("runs a chain in two tensors, and views in none", async () => {
    const program = await compile(
      trace((t) => {
        const w = parameter(t, "w", [64, 64]);
        let x = t.input("x", { shape: [32, 64] });
        for (let i = 0; i < 10; i++) x = x.matmul(w).tanh();
        t.output("y", x.reshape([64, 32]).slice([8, 0], [16, 32]));
      }),
    );
    const plan = program.plan();
    expect(plan.arenaBytes).toBe(2 * 32 * 64 * 4);
    expect(plan.lowerBoundBytes).toBe(plan.arenaBytes);
    expect(plan.weightBytes).toBe(64 * 64 * 4);
    expect(plan.flops).toBeGreaterThan(10 * 2 * 32 * 64 * 64);
  });
});

describe("time estimates", () => {
  it.each(backends.filter((isa) => isa !== "ref"))("know the rate of %s", async (isa) => {
    const graph = trace((t) => {
      const x = t.input("x", { shape: [1024, 512] });
      t.output("y", x.matmul(parameter(t, "w", [512, 512])));
    });
    using program = await compile(graph, { isa });
    const gigaflops = (2 * 1024 * 512 * 512) / 1e6 / program.plan().estimateMs;
    expect(gigaflops).toBeGreaterThan(5); // of one slow core
    expect(gigaflops).toBeLessThan(1e5);
  });
});
