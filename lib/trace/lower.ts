// Rewrites a graph into the ops that a backend has kernels for.
import type { Graph, Node } from "../ir/graph.js";
import { prune } from "../ir/prune.js";
import { decompose, hasDecomposition } from "./decompose.js";
import type { Tensor } from "./tensor.js";
import { GraphTrace } from "./trace.js";

/**
 * The graph without stopGradient, and with every op outside `kernels` that has a decomposition replaced by it.
 * Decompositions may hold ops that must be replaced in turn, so passes repeat until nothing is left to replace.
 */
export function lower(graph: Graph, kernels: ReadonlySet<string>): Graph {
  const isReplaced = ({ op }: Node): boolean => !kernels.has(op) && hasDecomposition(op);
  const goes = (node: Node): boolean => isTransparent(node) || isReplaced(node);
  let current = graph;
  while (current.nodes.some(goes)) current = onePass(current, isReplaced);
  return prune(current);
}

const isTransparent = ({ op }: Node): boolean => op === "stopGradient";

function onePass(graph: Graph, isReplaced: (node: Node) => boolean): Graph {
  const t = new GraphTrace();
  const now = new Map<number, Tensor>(); // old value id -> its tensor in the new graph
  for (const { name, value, role } of graph.inputs)
    now.set(value, t.declare(name, role, graph.values[value]!));
  for (const node of graph.nodes) {
    if (now.has(node.outputs[0]!)) continue;
    const inputs = node.inputs.map((id) => now.get(id)!);
    const outputs = t.scoped(node.scope, () => replaced(t, node, inputs, isReplaced));
    node.outputs.forEach((id, i) => now.set(id, outputs[i]!));
  }
  for (const { name, value, updates } of graph.outputs) {
    const x = now.get(value)!;
    if (updates === undefined) t.output(name, x);
    else t.update(updates, x);
  }
  return t.graph;
}

function replaced(
  t: GraphTrace,
  node: Node,
  inputs: readonly Tensor[],
  isReplaced: (node: Node) => boolean,
): readonly Tensor[] {
  if (isTransparent(node)) return inputs;
  return isReplaced(node)
    ? decompose(node.op, inputs, node.attrs)
    : t.append(node.op, inputs, node.attrs);
}
