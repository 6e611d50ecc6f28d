// Copies a graph node by node, with others instead of some.
import { DiffusionError } from "../errors.js";
import type { Graph, Node, Spec } from "../ir/graph.js";
import { formatSpecs } from "../ir/op.js";
import { sameShape } from "../ir/shape.js";
import type { Tensor } from "./tensor.js";
import { GraphTrace } from "./trace.js";

/** The tensor of the copy for a value of the graph; of inputs, and of what earlier nodes made. */
export type Now = (value: number) => Tensor;

/** What stands for the outputs of a node; undefined keeps the node. */
export type Replace = (t: GraphTrace, node: Node, now: Now) => readonly Tensor[] | undefined;

/** Throws "internal" for a replacement of another type or shape. */
export function rewrite(graph: Graph, replace: Replace): Graph {
  const t = new GraphTrace();
  const ids = new Int32Array(graph.values.length).fill(-1);
  const now: Now = (value) => t.tensor(ids[value]!);
  for (const { name, value, role } of graph.inputs)
    ids[value] = t.declare(name, role, graph.values[value]!).id;
  for (const node of graph.nodes) {
    if (ids[node.outputs[0]!] !== -1) continue;
    const specs = node.outputs.map((id) => graph.values[id]!);
    const made = t.scoped(node.scope, () => replace(t, node, now));
    const outputs = made
      ? replacementIds(node, made, specs)
      : t.copy(node, node.inputs.map((id) => ids[id]!), specs); // prettier-ignore
    node.outputs.forEach((id, i) => (ids[id] = outputs[i]!));
  }
  for (const { name, value, updates } of graph.outputs) {
    if (updates === undefined) t.output(name, now(value));
    else t.update(updates, now(value));
  }
  return t.graph;
}

function replacementIds({ op }: Node, made: readonly Tensor[], specs: readonly Spec[]): number[] {
  const isSame = ({ dtype, shape }: Tensor, i: number) =>
    dtype === specs[i]?.dtype && sameShape(shape, specs[i].shape);
  if (made.length === specs.length && made.every(isSame)) return made.map(({ id }) => id);
  throw new DiffusionError(
    "internal",
    `rewrite: expected ${formatSpecs(specs)} for ${op}, got ${formatSpecs(made)}`,
  );
}
