// Projections of one input to the queries, keys and values of an attention become one product, whose columns the attention
// reads where they lie. The core packs the weights one by one, so that none exists twice (docs/design/0026).
import type { Graph, Node } from "../ir/graph.js";
import { concat, split } from "./functions.js";
import { Projections, type Projection } from "./projections.js";
import { rewrite, type Now } from "./rewrite.js";
import type { Tensor } from "./tensor.js";

/** Weights of such widths fill whole panels of every instruction set. */
const wholeColumns = 64;

interface Operand extends Projection {
  /** Which input of the attention it makes. */
  operand: number;
}

/** Projections that an attention alone reads and that can be one product with that of its values; of a graph's attentions. */
function findGroups(graph: Graph): Map<Node, Operand[]> {
  const projections = new Projections(graph);
  const operandOf = (heads: number, operand: number): Operand | undefined => {
    const found = projections.of(heads);
    if (!found) return undefined;
    const { dtype, shape } = graph.values[found.product.outputs[0]!]!;
    const fits = dtype === "f32" && shape.length === 3 && shape[2]! % wholeColumns === 0;
    return fits ? { ...found, operand } : undefined;
  };
  const groups = new Map<Node, Operand[]>();
  for (const node of graph.nodes.filter(({ op }) => op === "attention")) {
    const all = node.inputs.slice(0, 3).map(operandOf);
    const group = all.filter(
      (p): p is Operand =>
        p?.product.inputs[0] === all[2]?.product.inputs[0] &&
        (p?.bias === undefined) === (all[2]?.bias === undefined),
    );
    if (all[2] && group.length > 1) groups.set(node, group);
  }
  return groups;
}

/** The graph with one product for such projections; what they were made of stays, and nobody reads it. */
export function joinProjections(graph: Graph): Graph {
  const groups = findGroups(graph);
  if (groups.size === 0) return graph;
  return rewrite(graph, (t, node, now) => {
    const group = groups.get(node);
    if (!group) return undefined;
    const inputs = node.inputs.map(now);
    const heads = t.scoped(group[0]!.product.scope, () => join(group, now));
    heads.forEach((part, i) => (inputs[group[i]!.operand] = part));
    return t.append(node.op, inputs, node.attrs);
  });
}

/** The heads of each projection, out of the joined product. */
function join(group: readonly Operand[], now: Now): Tensor[] {
  const { product, bias } = group[0]!;
  const weights = group.map((p) => now(p.product.inputs[1]!));
  let whole = now(product.inputs[0]!).matmul(concat(weights, 1));
  if (bias !== undefined) whole = whole.add(concat(group.map((p) => now(p.bias!)), 0)); // prettier-ignore
  const parts = split(whole, weights.map(({ shape }) => shape[1]!), 2); // prettier-ignore
  return parts.map((part, i) => part.reshape(now(group[i]!.reshape.outputs[0]!).shape));
}
