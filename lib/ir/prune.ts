// Drops nodes that no output needs, and merges nodes that compute the same thing. Inputs always stay: they are the
// graph's interface. Merging would undo a recomputation made on purpose, so it belongs before rematerialisation.
import type { Graph, Node } from "./graph.js";
import { emptyGraph } from "./graph.js";
import { opDef } from "./op-table.js";
import { sortedAttrs } from "./print.js";

const isSource = ({ op }: Node): boolean => opDef(op).traits.has("source");

/** The graph without nodes that no output needs; itself where all are needed. Readers of a key of `instead` read its value. */
export function prune(graph: Graph, instead: ReadonlyMap<number, number> = new Map()): Graph {
  const read = (value: number): number => instead.get(value) ?? value;
  const needed = new Uint8Array(graph.nodes.length);
  const need = (value: number): void => void (needed[graph.values[read(value)]!.node] = 1);
  graph.outputs.forEach(({ value }) => need(value));
  for (let id = graph.nodes.length - 1; id >= 0; id--) {
    const node = graph.nodes[id]!;
    if (isSource(node)) needed[id] = 1;
    if (needed[id]) node.inputs.forEach(need);
  }
  return needed.every(Boolean) ? graph : kept(graph, (id) => needed[id] === 1, read);
}

/** The graph with one node for each distinct (op, inputs, attributes), and without nodes that no output needs. */
export function mergeDuplicates(graph: Graph): Graph {
  const firstOf = new Map<string, readonly number[]>();
  const instead = new Map<number, number>();
  for (const node of graph.nodes) {
    if (isSource(node)) continue;
    const key = JSON.stringify([
      node.op,
      node.inputs.map((id) => instead.get(id) ?? id),
      sortedAttrs(node.attrs).map(([k, v]) => [k, exactly(v)]),
    ]);
    const first = firstOf.get(key);
    if (first) node.outputs.forEach((id, i) => instead.set(id, first[i]!));
    else firstOf.set(key, node.outputs);
  }
  return prune(graph, instead);
}

/** JSON has no infinities, NaN or minus zero. */
const exactly = (value: unknown): unknown => {
  if (typeof value === "number") return Object.is(value, -0) ? "-0" : String(value);
  return Array.isArray(value) ? value.map(exactly) : value;
};

/** A copy of some nodes with fresh ids; `read` gives the value that is read for one. */
function kept(
  graph: Graph,
  isKept: (node: number) => boolean,
  read: (value: number) => number,
): Graph {
  const result = emptyGraph();
  const renumbered = new Int32Array(graph.values.length);
  const now = (value: number): number => renumbered[read(value)]!;
  for (const node of graph.nodes) {
    if (!isKept(node.id)) continue;
    const id = result.nodes.length;
    const outputs = node.outputs.map((old, output) => {
      const { dtype, shape } = graph.values[old]!;
      return result.values.push({ id: result.values.length, dtype, shape, node: id, output }) - 1;
    });
    node.outputs.forEach((old, i) => (renumbered[old] = outputs[i]!));
    result.nodes.push({ ...node, id, inputs: node.inputs.map(now), outputs });
  }
  const moved = <T extends { value: number }>(entry: T): T => ({
    ...entry,
    value: now(entry.value),
  });
  result.inputs.push(...graph.inputs.map(moved));
  result.outputs.push(...graph.outputs.map(moved));
  return result;
}
