// Drops nodes that no output needs, and merges nodes that compute the same thing. Inputs always stay: they are the
// graph's interface. Merging would undo a recomputation made on purpose, so it belongs before rematerialisation.
import type { Graph, Node } from "./graph.js";
import { emptyGraph } from "./graph.js";
import { opDef } from "./op-table.js";
import { sortedAttrs } from "./print.js";

const isSource = ({ op }: Node): boolean => opDef(op).traits.has("source");

/** The graph without nodes that no output needs; itself where all are needed. */
export function prune(graph: Graph): Graph {
  const needed = new Set(graph.outputs.map(({ value }) => graph.values[value]!.node));
  for (let id = graph.nodes.length - 1; id >= 0; id--) {
    if (!needed.has(id)) continue;
    for (const input of graph.nodes[id]!.inputs) needed.add(graph.values[input]!.node);
  }
  const isKept = (node: Node): boolean => needed.has(node.id) || isSource(node);
  return graph.nodes.every(isKept)
    ? graph
    : rebuilt(graph, (node) => (isKept(node) ? undefined : []));
}

/** The graph with one node for each distinct (op, inputs, attributes). */
export function mergeDuplicates(graph: Graph): Graph {
  const firstOf = new Map<string, readonly number[]>();
  return rebuilt(graph, (node, inputs, outputs) => {
    if (isSource(node)) return undefined;
    const key = JSON.stringify([
      node.op,
      inputs,
      sortedAttrs(node.attrs).map(([k, v]) => [k, exactly(v)]),
    ]);
    const first = firstOf.get(key);
    if (!first) firstOf.set(key, outputs);
    return first;
  });
}

/** JSON has no infinities, NaN or minus zero. */
const exactly = (value: unknown): unknown => {
  if (typeof value === "number") return Object.is(value, -0) ? "-0" : String(value);
  return Array.isArray(value) ? value.map(exactly) : value;
};

/**
 * Copies a graph node by node with fresh ids. `replace` sees a node with its renumbered inputs and the ids its outputs
 * would get, and returns undefined to keep it, or the ids that stand for its outputs instead (none: nobody reads them).
 */
function rebuilt(
  graph: Graph,
  replace: (
    node: Node,
    inputs: readonly number[],
    outputs: readonly number[],
  ) => readonly number[] | undefined,
): Graph {
  const result = emptyGraph();
  const renumbered = new Map<number, number>();
  for (const node of graph.nodes) {
    const inputs = node.inputs.map((id) => renumbered.get(id)!);
    const fresh = node.outputs.map((_, i) => result.values.length + i);
    const instead = replace(node, inputs, fresh);
    if (!instead) {
      const id = result.nodes.length;
      result.nodes.push({ ...node, id, inputs, outputs: fresh });
      node.outputs.forEach((old, output) => {
        const { dtype, shape } = graph.values[old]!;
        result.values.push({ id: fresh[output]!, dtype, shape, node: id, output });
      });
    }
    node.outputs.forEach((old, i) => {
      const now = (instead ?? fresh)[i];
      if (now !== undefined) renumbered.set(old, now);
    });
  }
  const moved = <T extends { value: number }>(entry: T): T => ({
    ...entry,
    value: renumbered.get(entry.value)!,
  });
  result.inputs.push(...graph.inputs.map(moved));
  result.outputs.push(...graph.outputs.map(moved));
  return result;
}
