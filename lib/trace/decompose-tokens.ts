// Nearest codes and the loss of mask-and-replace diffusion as smaller ops.
//
// With p = softmax(logits), v = x_t and r = bbar_t / (bbar_t + abar_t), the posterior of Gu et al. 2021, arXiv:2111.14822,
// eq. 5 and 11, is P(x_s = k) = F_k m_k with m_k = abar_s w_k + bbar_s S, S = sum w, where
//   x_t = MASK: w = p, F_k = c_ts / cbar_t; what is left is P(x_s = MASK) = cbar_s / cbar_t, the same for every p;
//   x_t = v:    w_k = p_k, but r p_v for k = v; F_k = (b_ts + a_ts [k = v]) / bbar_t, and P(x_s = MASK) = 0.
// The true posterior is the same with a one-hot p: w is 1 (r if x0 = v) at x0, so its m_k is
// (abar_s [k = x0] + bbar_s) rho with rho = r if x0 = v, else 1. The factors F cancel in the ratio, which leaves
//   KL = sum_k G_k (log true m_k - log m_k),  G = F true m.
import type { Decomposition, DecompositionTable } from "./decomposition.js";
import { logSumExp, split } from "./composites.js";
import { argMax, argMin, gatherLast, iota, logSoftmax, where } from "./ops.js";
import type { Tensor } from "./tensor.js";

/** Stands for 0 under a logarithm or below a fraction: close to the least normal f32. */
const tiny = 1e-37;

/** |z - e|^2 = |z|^2 - 2 z.e + |e|^2, of which |z|^2 is the same for every code. */
const nearestCodes: Decomposition = ([latents, codebook], { metric }) => {
  const products = latents!.matmul(codebook!, { transposeB: true }); // (N, K)
  const squares = codebook!.square().sum(-1); // (K)
  if (metric === "cosine") return [argMax(products.mul(squares.maximum(tiny).rsqrt()))];
  return [argMin(squares.sub(products.mul(2)))];
};

/** Columns of the coefficient table that the mask-and-replace ops read (native/kernels/args.h). */
export const coefficientNames = [
  "abarT",
  "bbarT",
  "cbarT",
  "abarS",
  "bbarS",
  "cbarS",
  "aTS",
  "bTS",
  "cTS",
] as const;

/** Those columns, each (B, 1, 1). */
function columns(coeffs: Tensor) {
  const parts = split(coeffs, coefficientNames.length, 1).map((x) =>
    x.reshape([x.shape[0]!, 1, 1]),
  );
  return Object.fromEntries(coefficientNames.map((name, i) => [name, parts[i]!])) as Record<
    (typeof coefficientNames)[number],
    Tensor
  >;
}

const safeLog = (x: Tensor): Tensor => x.maximum(tiny).log();

/** log(exp(a) + exp(b)), exact where a is the larger one by far. */
const logAdd = (a: Tensor, b: Tensor): Tensor => a.add(b.sub(a).softplus());

interface LossTerms {
  /** log p(x0 = k | x_t), (B, N, K). */
  logP: Tensor;
  /** log w_k and its log-sum S, (B, N, K) and (B, N, 1). */
  logW: Tensor;
  logS: Tensor;
  /** log m_k of the model. */
  logM: Tensor;
  /** log m_k of the true posterior, and the weights G_k. */
  logTrue: Tensor;
  G: Tensor;
  logAbarS: Tensor;
  logBbarS: Tensor;
}

function lossTerms(logits: Tensor, x0: Tensor, xt: Tensor, coeffs: Tensor): LossTerms {
  const c = columns(coeffs);
  const [B, N, K] = logits.shape as [number, number, number];
  const classes = iota(logits.trace, [K], 0);
  const is = (tokens: Tensor): Tensor => tokens.reshape([B, N, 1]).equal(classes);
  const [isX0, isV] = [is(x0), is(xt)];
  const isMask = xt.reshape([B, N, 1]).equal(K);
  const one = logits.trace.constant(1, [], logits.dtype);
  const r = c.bbarT.div(c.bbarT.add(c.abarT).maximum(tiny));
  const rho = where(x0.equal(xt).reshape([B, N, 1]), r, one);

  const logP = logSoftmax(logits);
  const logW = where(isV, logP.add(safeLog(r)), logP);
  const logS = logSumExp(logW, -1, true);
  const logAbarS = safeLog(c.abarS);
  const logBbarS = safeLog(c.bbarS);
  const logM = logAdd(logAbarS.add(logW), logBbarS.add(logS));

  const trueM = where(isX0, c.abarS.add(c.bbarS), c.bbarS).mul(rho);
  const visible = where(isV, c.bTS.add(c.aTS), c.bTS).div(c.bbarT.maximum(tiny));
  const F = where(isMask, c.cTS.div(c.cbarT.maximum(tiny)), visible);
  return { logP, logW, logS, logM, logTrue: safeLog(trueM), G: F.mul(trueM), logAbarS, logBbarS };
}

const maskReplaceLoss: Decomposition = ([logits, x0, xt, coeffs]) => {
  const { logP, logM, logTrue, G } = lossTerms(logits!, x0!, xt!, coeffs!);
  const kl = G.mul(logTrue.sub(logM)).sum(-1);
  return [kl, gatherLast(logP, x0!).neg()];
};

/**
 * dKL / d log w_j = -(G_j abar_s w_j / m_j + w_j / S sum_k G_k bbar_s S / m_k); both fractions are at most 1. Then through
 * the log-softmax: dlogits = g - p sum(g).
 */
const maskReplaceLossGrad: Decomposition = ([logits, x0, xt, coeffs, dkl, dnll]) => {
  const { logP, logW, logS, logM, G, logAbarS, logBbarS } = lossTerms(logits!, x0!, xt!, coeffs!);
  const own = G.mul(logAbarS.add(logW).sub(logM).exp());
  const spread = G.mul(logBbarS.add(logS).sub(logM).exp()).sum(-1, true);
  const g = own.add(logW.sub(logS).exp().mul(spread)).neg();
  const perPosition = (x: Tensor): Tensor => x.reshape([...x.shape, 1]);
  const p = logP.exp();
  const K = logits!.shape.at(-1)!;
  const isX0 = perPosition(x0!).equal(iota(logits!.trace, [K], 0));
  const throughKl = g.sub(p.mul(g.sum(-1, true))).mul(perPosition(dkl!));
  const throughNll = p.sub(isX0.cast(logits!.dtype)).mul(perPosition(dnll!));
  return [throughKl.add(throughNll)];
};

export const tokenDecompositions: DecompositionTable = {
  nearestCodes,
  maskReplaceLoss,
  maskReplaceLossGrad,
};
