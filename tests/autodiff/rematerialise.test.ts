// Recomputation gives the same results in less memory.
import { describe, expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import { rematerialise } from "../../lib/autodiff/rematerialise.js";
import type { Graph } from "../../lib/ir/graph.js";
import { verify } from "../../lib/ir/verify.js";
import { compile } from "../../lib/runtime/program.js";
import { conv2d, groupNorm } from "../../lib/trace/functions.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace } from "../../lib/trace/trace.js";
import { noise } from "../ops/gradient-graph.js";
import { run } from "../ops/harness.js";
import type { Feeds } from "../ops/harness.js";

const [B, H, W, C] = [2, 16, 16, 16];
const depth = 4;

/** Residual blocks of norm, activation and convolution, and the gradient of every weight. */
function network(): Graph {
  return trace((t) => {
    const input = (name: string, shape: number[]): Tensor => t.input(name, { shape });
    const x = input("x", [B, H, W, C]);
    const weights = Array.from({ length: depth }, (_, i) => ({
      w: input(`w${i}`, [3, 3, C, C]),
      gamma: input(`gamma${i}`, [C]),
      beta: input(`beta${i}`, [C]),
    }));
    const y = weights.reduce((h, { w, gamma, beta }) => {
      const normed = groupNorm(h, gamma, beta, { groups: 4, eps: 1e-5, activation: "silu" });
      return conv2d(normed, w, { padding: [1, 1, 1, 1] });
    }, x);
    const loss = y.square().mean();
    const wrt = weights.flatMap(({ w, gamma, beta }) => [w, gamma, beta]);
    t.output("loss", loss);
    gradients(loss, wrt).forEach((g, i) => t.output(`g${i}`, g));
  });
}

/** Wide hidden layers, whose activations would fit into the epilogue of the product before them. */
function perceptron(): Graph {
  return trace((t) => {
    const x = t.input("x", { shape: [256, 64] });
    const up = Array.from({ length: depth }, (_, i) => t.input(`up${i}`, { shape: [64, 256] }));
    const down = Array.from({ length: depth }, (_, i) => t.input(`down${i}`, { shape: [256, 64] }));
    const y = up.reduce((h, w, i) => h.add(h.matmul(w).gelu().matmul(down[i]!)), x);
    gradients(y.square().mean(), [...up, ...down]).forEach((g, i) => t.output(`g${i}`, g));
  });
}

const feedsFor = (graph: Graph): Feeds =>
  Object.fromEntries(
    graph.inputs.map(({ name, value }) => {
      const size = graph.values[value]!.shape.reduce((n, m) => n * m, 1);
      return [name, Float32Array.from(noise(name, size))];
    }),
  );

describe("rematerialise", () => {
  const graph = network();
  const lighter = rematerialise(graph);

  it("makes a valid graph that computes some forward values again", () => {
    verify(lighter);
    const norms = ({ nodes }: Graph): number => nodes.filter(({ op }) => op === "groupNorm").length;
    expect(norms(graph)).toBe(depth);
    expect(norms(lighter)).toBe(2 * depth);
  });

  it("gives the same results", async () => {
    const feeds = feedsFor(graph);
    expect(await run(lighter, "", feeds)).toEqual(await run(graph, "", feeds));
  });

  it.each([
    ["normalisations", graph],
    ["activations", perceptron()],
  ])("needs less memory: %s", async (_, original) => {
    using heavy = await compile(original);
    using light = await compile(rematerialise(original));
    expect(light.plan().arenaBytes).toBeLessThan(0.8 * heavy.plan().arenaBytes);
  });

  it("leaves a graph without waiting values alone", () => {
    const forward = trace((t) =>
      t.output(
        "y",
        t
          .input("x", { shape: [64, 64] })
          .exp()
          .sum(),
      ),
    );
    expect(rematerialise(forward)).toBe(forward);
  });
});
