// Weights of linear multistep methods on uneven grids: the integral of the polynomial through the
// last values.

/** Gauss-Legendre nodes and weights on [-1, 1] for degree up to 7. */
const kNodes = [-0.8611363115940526, -0.33998104358485626, 0.33998104358485626, 0.8611363115940526];
const kWeights = [0.34785484513745385, 0.6521451548625461, 0.6521451548625461, 0.34785484513745385];

/**
 * Integral from `from` to `to` of each Lagrange polynomial of up to 8 nodes: factors of the values at
 * the nodes.
 */
export function adamsBashforth(nodes: readonly number[], from: number, to: number): number[] {
  const half = (to - from) / 2;
  return nodes.map((node, j) =>
    kNodes.reduce((total, place, i) => {
      const x = from + half * (1 + place);
      const value = nodes.reduce(
        (product, other, k) => (k === j ? product : (product * (x - other)) / (node - other)),
        1,
      );
      return total + half * kWeights[i]! * value;
    }, 0),
  );
}
