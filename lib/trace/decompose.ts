// Decompositions of fused ops by name: what they mean, how they run where no kernel exists, and a way to differentiate
// what has no gradient rule.
import { DiffusionError } from "../errors.js";
import type { Attrs } from "../ir/graph.js";
import { attentionDecompositions } from "./decompose-attention.js";
import { normDecompositions } from "./decompose-norm.js";
import { tokenDecompositions } from "./decompose-tokens.js";
import type { DecompositionTable } from "./decomposition.js";
import type { Tensor } from "./tensor.js";

export const decompositions: DecompositionTable = {
  ...normDecompositions,
  ...attentionDecompositions,
  ...tokenDecompositions,
};

export const hasDecomposition = (op: string): boolean => Object.hasOwn(decompositions, op);

/** The op on these inputs, as smaller ops (which may have decompositions of their own). */
export function decompose(op: string, inputs: readonly Tensor[], attrs: Attrs): readonly Tensor[] {
  if (hasDecomposition(op)) return decompositions[op]!(inputs, attrs);
  throw new DiffusionError("internal", `decompose: expected an op with a decomposition, got ${op}`);
}
