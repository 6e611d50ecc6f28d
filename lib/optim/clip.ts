// Gradient clipping by the norm of all gradients together. Pascanu et al. 2013, arXiv:1211.5063.
import type { Tensor } from "../trace/tensor.js";

/** Keeps the quotient finite when all gradients are zero; the constant of PyTorch. */
const kNormEps = 1e-6;

/** Scalar Euclidean norm over all elements of all gradients. */
export function globalNorm(grads: readonly Tensor[]): Tensor {
  // By rows first: a sum of all elements is the work of one thread.
  const squares = grads.map((g) => (g.rank > 1 ? g.square().sum([-1]).sum() : g.square().sum()));
  return squares.reduce((sum, square) => sum.add(square)).sqrt();
}

/** Gradients scaled so that their global norm is at most `largest`; `norm` is theirs, when it is known already. */
export function clipByGlobalNorm(
  grads: readonly Tensor[],
  largest: number,
  norm = globalNorm(grads),
): Tensor[] {
  const factor = norm.add(kNormEps).reciprocal().mul(largest).minimum(1);
  return grads.map((g) => g.mul(factor));
}
