// An attention with one head takes two products with weights instead of four, whose matrices are formed once for a session
// (docs/design/0029): q k^T = (x Wq + bq) (y Wk + bk)^T = (x Wq Wk^T + bq Wk^T) y^T + what is the same for all keys, which
// leaves no trace in a softmax; and with P = softmax(...), (P (z Wv + bv)) Wo = P (z Wv Wo + bv Wo).
import type { Graph, Node } from "../ir/graph.js";
import { prune } from "../ir/prune.js";
import { Projections, type Projection } from "./projections.js";
import { rewrite, type Now } from "./rewrite.js";
import type { Tensor } from "./tensor.js";

type Replacements = Map<Node, (now: Now) => Tensor>;

/** The graph with folded projections, wherever the folded matrix is square and in float32. */
export function foldProjections(graph: Graph): Graph {
  const projections = new Projections(graph);
  const replacements: Replacements = new Map();
  for (const node of graph.nodes) {
    const [q, k, v] = node.inputs as [number, number, number];
    const [out, lse] = node.outputs as [number, number];
    if (node.op !== "attention" || graph.values[out]!.dtype !== "f32") continue;
    if (projections.shapeOf(out)[2] !== 1) continue;
    if (!projections.isRead(lse)) foldScores(projections, q, k, replacements);
    foldValues(projections, v, out, replacements);
  }
  if (replacements.size === 0) return graph;
  return prune(
    rewrite(graph, (_, node, now) => {
      const made = replacements.get(node)?.(now);
      return made && [made];
    }),
  );
}

/** Keys are what they were a projection of. */
function foldScores(
  projections: Projections,
  queries: number,
  keys: number,
  replacements: Replacements,
): void {
  const q = projections.of(queries);
  const k = projections.of(keys);
  const [rows, weight] = k?.product.inputs ?? [];
  if (!q || !k || !isSquare(projections.shapeOf(weight!))) return;
  multiply(q, (now, x) => x.matmul(now(weight!), { transposeB: true }), replacements);
  replacements.set(k.sum ?? k.product, (now) => now(rows!));
}

/** The attention gives what was a projection of its result. */
function foldValues(
  projections: Projections,
  values: number,
  out: number,
  replacements: Replacements,
): void {
  const v = projections.of(values);
  const last = projections.after(out);
  const [rows, weight] = last?.inputs ?? [];
  if (!v || !last || !isSquare(projections.shapeOf(weight!))) return;
  multiply(v, (now, x) => x.matmul(now(weight!)), replacements);
  replacements.set(last, (now) => now(rows!));
}

const isSquare = ([rows, columns]: readonly number[]): boolean => rows === columns;

/** The weight and the bias of a projection times a matrix. */
function multiply(
  { product, sum, bias }: Projection,
  times: (now: Now, x: Tensor) => Tensor,
  replacements: Replacements,
): void {
  const [x, weight] = product.inputs as [number, number];
  replacements.set(product, (now) => now(x).matmul(times(now, now(weight))));
  if (!sum) return;
  replacements.set(sum, (now) => {
    const row = now(bias!).reshape([1, now(bias!).shape[0]!]);
    return now(product.outputs[0]!).add(times(now, row).reshape([row.shape[1]!]));
  });
}
