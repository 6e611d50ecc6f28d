// Copies a graph node by node, with others instead of some.
import type { Graph, Node } from "../ir/graph.js";
import type { Tensor } from "./tensor.js";
import { GraphTrace } from "./trace.js";

/** The tensor of the copy for a value of the graph; of inputs, and of what earlier nodes made. */
export type Now = (value: number) => Tensor;

/** What stands for the outputs of a node; undefined keeps the node. */
export type Replace = (t: GraphTrace, node: Node, now: Now) => readonly Tensor[] | undefined;

export function rewrite(graph: Graph, replace: Replace): Graph {
  const t = new GraphTrace();
  const tensors = new Map<number, Tensor>();
  const now: Now = (value) => tensors.get(value)!;
  for (const { name, value, role } of graph.inputs)
    tensors.set(value, t.declare(name, role, graph.values[value]!));
  for (const node of graph.nodes) {
    if (tensors.has(node.outputs[0]!)) continue;
    const outputs = t.scoped(
      node.scope,
      () => replace(t, node, now) ?? t.append(node.op, node.inputs.map(now), node.attrs),
    );
    node.outputs.forEach((id, i) => tensors.set(id, outputs[i]!));
  }
  for (const { name, value, updates } of graph.outputs) {
    if (updates === undefined) t.output(name, now(value));
    else t.update(updates, now(value));
  }
  return t.graph;
}
