// Projections of one input to the queries, keys and values of an attention become one product, whose columns the attention
// reads where they lie. The core packs the weights one by one, so that none exists twice (docs/design/0026).
import { GraphBuilder } from "./builder.js";
import { producerOf, type Graph, type Node } from "./graph.js";

/** Weights of such widths fill whole panels of every instruction set. */
const wholeColumns = 64;

interface Projection {
  /** Which input of the attention it makes. */
  operand: number;
  product: Node;
  bias: number | undefined;
  reshape: Node;
}

/** Projections that an attention alone reads and that can be one product with that of its values; of a graph's attentions. */
function findProjections(graph: Graph): Map<Node, Projection[]> {
  const weights = new Set(graph.inputs.filter(({ role }) => role === "weight").map(({ value }) => value)); // prettier-ignore
  const readers = new Uint32Array(graph.values.length);
  for (const value of graph.nodes.flatMap(({ inputs }) => inputs)) readers[value]!++;
  for (const { value } of graph.outputs) readers[value]!++;
  const made = (value: number | undefined, op: string): Node | undefined => {
    const node = value === undefined || readers[value] !== 1 ? undefined : producerOf(graph, value);
    return node?.op === op ? node : undefined;
  };
  const shapeOf = (value: number): readonly number[] => graph.values[value]!.shape;
  const projection = (heads: number, operand: number): Projection | undefined => {
    const reshape = made(heads, "reshape");
    const sum = made(reshape?.inputs[0], "add");
    const bias = sum?.inputs.find((id) => weights.has(id) && shapeOf(id).length === 1);
    const product = made(sum ? sum.inputs.find((id) => id !== bias) : reshape?.inputs[0], "matmul");
    if (!reshape || !product || (sum && bias === undefined)) return undefined;
    const { dtype, shape } = graph.values[product.outputs[0]!]!;
    const [, , H, D] = shapeOf(heads);
    const fits =
      dtype === "f32" &&
      shape.length === 3 &&
      shape[2] === H! * D! &&
      shape[2] % wholeColumns === 0;
    const isPlain = weights.has(product.inputs[1]!) && !product.attrs["transposeA"] && !product.attrs["transposeB"]; // prettier-ignore
    return fits && isPlain && (!sum || shapeOf(bias!)[0] === shape[2])
      ? { operand, product, bias, reshape }
      : undefined;
  };
  const groups = new Map<Node, Projection[]>();
  for (const node of graph.nodes.filter(({ op }) => op === "attention")) {
    const all = node.inputs.slice(0, 3).map(projection);
    const group = all.filter(
      (p): p is Projection =>
        p?.product.inputs[0] === all[2]?.product.inputs[0] &&
        (p?.bias === undefined) === (all[2]?.bias === undefined),
    );
    if (all[2] && group.length > 1) groups.set(node, group);
  }
  return groups;
}

/** The graph with one product for such projections; what they were made of stays, and nobody reads it. */
export function joinProjections(graph: Graph): Graph {
  const groups = findProjections(graph);
  if (groups.size === 0) return graph;
  const builder = new GraphBuilder();
  const renumbered = new Map<number, number>();
  const now = (value: number): number => renumbered.get(value)!;
  const inputOf = new Map(graph.inputs.map((input) => [input.value, input]));
  for (const node of graph.nodes) {
    const inputs = node.inputs.map(now);
    const group = groups.get(node) ?? [];
    if (group.length > 0) {
      join(builder, group, now).forEach((heads, i) => (inputs[group[i]!.operand] = heads));
    }
    const input = inputOf.get(node.outputs[0]!);
    const made = input
      ? [builder.declare(input.name, input.role, graph.values[input.value]!)]
      : builder.append(node.op, inputs, node.attrs, node.scope);
    node.outputs.forEach((id, i) => renumbered.set(id, made[i]!));
  }
  for (const { name, value, updates } of graph.outputs)
    builder.addOutput(name, now(value), updates);
  return builder.graph;
}

/** Appends the joined product; returns the heads of each projection. */
function join(
  builder: GraphBuilder,
  group: Projection[],
  now: (value: number) => number,
): number[] {
  const { product, bias } = group[0]!;
  const append: GraphBuilder["append"] = (op, inputs, attrs) =>
    builder.append(op, inputs, attrs, product.scope);
  const weights = group.map((p) => now(p.product.inputs[1]!));
  let [whole] = append("matmul", [now(product.inputs[0]!), append("concat", weights, { axis: 1 })[0]!], product.attrs); // prettier-ignore
  if (bias !== undefined)
    [whole] = append("add", [whole!, append("concat", group.map((p) => now(p.bias!)), { axis: 0 })[0]!]); // prettier-ignore
  const [B, N] = builder.spec(whole!).shape as [number, number];
  let start = 0;
  return weights.map((weight, i) => {
    const width = builder.spec(weight).shape[1]!;
    const [part] = append("slice", [whole!], { starts: [0, 0, start], sizes: [B, N, width], strides: [1, 1, 1] }); // prettier-ignore
    start += width;
    return append("reshape", [part!], group[i]!.reshape.attrs)[0]!;
  });
}
