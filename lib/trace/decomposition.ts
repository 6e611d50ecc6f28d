// What a decomposition is: an op written as smaller ops on tensors.
import type { Attrs } from "../ir/graph.js";
import type { Tensor } from "./tensor.js";

export type Decomposition = (inputs: readonly Tensor[], attrs: Attrs) => readonly Tensor[];

export type DecompositionTable = Readonly<Record<string, Decomposition>>;

/** x[:, None, ..., None, :]: (B, D) against (B, ..., D) of `rank`. */
export const betweenBatchAndLast = (x: Tensor, rank: number): Tensor =>
  x.reshape([x.shape[0]!, ...new Array<number>(rank - 2).fill(1), x.shape[1]!]);

/** Derivative of silu: s (1 + x (1 - s)) with s = sigmoid(x). */
export function siluSlope(x: Tensor): Tensor {
  const s = x.sigmoid();
  return s.mul(x.mul(s.neg().add(1)).add(1));
}
