// Attention and its gradient with the scores of all pairs in memory.
import type { Attrs } from "../ir/graph.js";
import type { Decomposition, DecompositionTable } from "./decomposition.js";
import { logSumExp } from "./composites.js";
import { iota, lessEqual, where } from "./ops.js";
import type { Tensor } from "./tensor.js";

/** Score of a key that a query may not see: exp of it is 0 in every float type. */
const hidden = -1e30;

/** (B, N, H, D) <-> (B, H, N, D). */
const swapHeads = (x: Tensor): Tensor => x.transpose([0, 2, 1, 3]);

/** scale q k^T + mask, (B, H, N, M), from q and k with heads first. */
function scores(q: Tensor, k: Tensor, mask: Tensor | undefined, { scale, causal }: Attrs): Tensor {
  const product = q.matmul(k, { transposeB: true }).mul(scale as number);
  const masked = mask ? product.add(mask) : product;
  if (causal !== true) return masked;
  const [N, M] = masked.shape.slice(-2) as [number, number];
  const key = iota(q.trace, [1, M], 1);
  const query = iota(q.trace, [N, 1], 0);
  return where(lessEqual(key, query.add(M - N)), masked, hidden);
}

/** Vaswani et al. 2017, arXiv:1706.03762, eq. 1. */
const attention: Decomposition = ([q, k, v, mask], attrs) => {
  const s = scores(swapHeads(q!), swapHeads(k!), mask, attrs);
  const lse = logSumExp(s, -1, true); // (B, H, N, 1)
  const out = s.sub(lse).exp().matmul(swapHeads(v!));
  return [swapHeads(out), lse.reshape(lse.shape.slice(0, -1))];
};

/** Dao et al. 2022, arXiv:2205.14135, algorithm 4: P = exp(S - lse), dS = P (dP - rowsum(dO O)). */
const attentionGrad: Decomposition = (inputs, attrs) => {
  const [q, k, v, out, , dout] = inputs.slice(0, 6).map((x, i) => (i === 4 ? x : swapHeads(x))) as [
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
  ]; // prettier-ignore
  const lse = inputs[4]!;
  const weights = scores(q, k, inputs[6], attrs)
    .sub(lse.reshape([...lse.shape, 1]))
    .exp();
  const dWeights = dout.matmul(v, { transposeB: true });
  const rowSums = dout.mul(out).sum(-1, true);
  const dScores = weights.mul(dWeights.sub(rowSums)).mul(attrs.scale as number);
  const dq = dScores.matmul(k);
  const dk = dScores.matmul(q, { transposeA: true });
  const dv = weights.matmul(dout, { transposeA: true });
  return [dq, dk, dv].map(swapHeads);
};

export const attentionDecompositions: DecompositionTable = { attention, attentionGrad };
