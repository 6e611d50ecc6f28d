// Mask-and-replace diffusion by explicit matrices: slow and obvious, to check kernels against.
// Gu et al. 2022, arXiv:2111.14822, equations 5 to 11. State K is the mask.

export interface Coefficients {
  /** Probability to stay, to become each code, to become the mask. */
  readonly alpha: number;
  readonly beta: number;
  readonly gamma: number;
}

/** q(to | from): column `from` of the transition matrix. */
export function transition(
  { alpha, beta, gamma }: Coefficients,
  K: number,
  to: number,
  from: number,
): number {
  if (from === K) return to === K ? 1 : 0;
  if (to === K) return gamma;
  return beta + (to === from ? alpha : 0);
}

/** Row of the coefficient table: cumulative at t, cumulative at s, from s to t. */
export function coefficientsOf(row: ArrayLike<number>): {
  atT: Coefficients;
  atS: Coefficients;
  step: Coefficients;
} {
  const three = (i: number): Coefficients => ({
    alpha: row[i]!,
    beta: row[i + 1]!,
    gamma: row[i + 2]!,
  });
  return { atT: three(0), atS: three(3), step: three(6) };
}

/** q(x_s | x_t, x_0) over K + 1 classes. */
export function posterior(row: ArrayLike<number>, K: number, xt: number, x0: number): number[] {
  const { atS, step } = coefficientsOf(row);
  const joint = Array.from(
    { length: K + 1 },
    (_, xs) => transition(step, K, xt, xs) * transition(atS, K, xs, x0),
  );
  const total = joint.reduce((sum, p) => sum + p, 0);
  return joint.map((p) => p / total);
}

/** p(x_s | x_t) = sum over x_0 of q(x_s | x_t, x_0) p(x_0 | x_t). */
export function reverseStep(
  row: ArrayLike<number>,
  K: number,
  xt: number,
  p0: readonly number[],
): number[] {
  const result = new Array<number>(K + 1).fill(0);
  p0.forEach((p, x0) => posterior(row, K, xt, x0).forEach((q, xs) => (result[xs]! += p * q)));
  return result;
}

export function softmaxOf(logits: ArrayLike<number>): number[] {
  const top = Math.max(...Array.from(logits));
  const weights = Array.from(logits, (x) => Math.exp(x - top));
  const total = weights.reduce((sum, w) => sum + w, 0);
  return weights.map((w) => w / total);
}

export const divergence = (q: readonly number[], p: readonly number[]): number =>
  q.reduce((sum, qi, i) => sum + (qi > 0 ? qi * Math.log(qi / p[i]!) : 0), 0);
