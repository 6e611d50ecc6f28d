// Weights of linear multistep methods on uneven grids: integrals of the polynomials through the last
// values.

/** Gauss-Legendre nodes and weights on [-1, 1], exact for degree up to 7. */
const kNodes = [-0.8611363115940526, -0.33998104358485626, 0.33998104358485626, 0.8611363115940526];
const kWeights = [0.34785484513745385, 0.6521451548625461, 0.6521451548625461, 0.34785484513745385];

/** Integral of a function; exact for polynomials of degree up to 7 on each of the panels. */
export function integral(f: (x: number) => number, from: number, to: number, panels = 1): number {
  const half = (to - from) / (2 * panels);
  let total = 0;
  for (let panel = 0; panel < panels; ++panel) {
    const middle = from + half * (2 * panel + 1);
    kNodes.forEach((node, i) => (total += half * kWeights[i]! * f(middle + half * node)));
  }
  return total;
}

/** The polynomial that is 1 at place `j` and 0 at the others. */
export const lagrange =
  (places: readonly number[], j: number) =>
  (x: number): number =>
    places.reduce(
      (product, other, k) => (k === j ? product : (product * (x - other)) / (places[j]! - other)),
      1,
    );

/** Factors of the values at up to 8 places in the integral of the polynomial through them. */
export const adamsBashforth = (places: readonly number[], from: number, to: number): number[] =>
  places.map((_, j) => integral(lagrange(places, j), from, to));
