// Rewrites a graph into the ops that a backend has kernels for.
import type { Graph, Node } from "../ir/graph.js";
import { prune } from "../ir/prune.js";
import { decompose, hasDecomposition } from "./decompose.js";
import { rewrite, type Replace } from "./rewrite.js";

/**
 * The graph without stopGradient, and with every op outside `kernels` that has a decomposition replaced by it.
 * Decompositions may hold ops that must be replaced in turn, so passes repeat until nothing is left to replace.
 */
export function lower(graph: Graph, kernels: ReadonlySet<string>): Graph {
  const isReplaced = ({ op }: Node): boolean => !kernels.has(op) && hasDecomposition(op);
  const goes = (node: Node): boolean => isTransparent(node) || isReplaced(node);
  const replace: Replace = (_, node, now) => {
    if (!goes(node)) return undefined;
    const inputs = node.inputs.map(now);
    return isTransparent(node) ? inputs : decompose(node.op, inputs, node.attrs);
  };
  let current = graph;
  while (current.nodes.some(goes)) current = rewrite(current, replace);
  return prune(current);
}

const isTransparent = ({ op }: Node): boolean => op === "stopGradient";
