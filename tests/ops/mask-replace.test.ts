// The variational term of mask-and-replace diffusion and its gradient, against explicit matrices.
import { expect, it } from "vitest";
import { opCases } from "./cases.js";
import { feedsOf, forwardGraph, run } from "./harness.js";
import { divergence, posterior, reverseStep, softmaxOf } from "./mask-replace-oracle.js";

const rows = opCases.filter(({ op }) => op === "maskReplaceLoss");

it.each(rows.map((c) => [c.inputs[0]!.shape.join(" x "), c] as const))("%s", async (_, c) => {
  const feeds = feedsOf(c, "f64");
  const { y0: kl, y1: nll } = await run(forwardGraph(c, "f64"), "ref", feeds);
  const [B, N, K] = c.inputs[0]!.shape as [number, number, number];
  const [logits, x0, xt, coeffs] = [feeds.x0!, feeds.x1!, feeds.x2!, feeds.x3!];
  for (let b = 0; b < B; b++) {
    const row = coeffs.slice(9 * b, 9 * b + 9);
    for (let i = b * N; i < (b + 1) * N; i++) {
      const p0 = softmaxOf(logits.slice(i * K, (i + 1) * K));
      const q = posterior(row, K, xt[i]!, x0[i]!);
      const p = reverseStep(row, K, xt[i]!, p0);
      // the coefficients are rounded to f32, so columns of the explicit matrices sum to one only that closely
      expect(Math.abs(kl![i]! - divergence(q, p))).toBeLessThan(1e-5 * (1 + kl![i]!));
      expect(Math.abs(nll![i]! + Math.log(p0[x0[i]!]!))).toBeLessThan(1e-9);
    }
  }
});
