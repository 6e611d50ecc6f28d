// Lowers the peak memory of a training graph: cheap forward values (activations, normalisations) that wait for the
// backward half are computed again next to their late readers instead of being kept. Graph in, graph out, same results.
// The idea: Chen et al. 2016, arXiv:1604.06174, section 3, restricted to ops whose cost is one pass over memory.
import { emptyGraph, producerOf } from "../ir/graph.js";
import type { Graph, Node, Value } from "../ir/graph.js";
import { dtypeBytes } from "../ir/dtype.js";
import { opDef } from "../ir/op-table.js";
import { sizeOf } from "../ir/shape.js";

export interface RematerialiseOptions {
  /** Values smaller than this are kept; default 16 KiB. */
  minBytes?: number;
}

const bytesOf = ({ dtype, shape }: Value): number => sizeOf(shape) * dtypeBytes(dtype);

/** One result and about one pass over memory: worth repeating. */
function isCheap(graph: Graph, node: Node): boolean {
  if (node.outputs.length !== 1 || node.inputs.length === 0) return false;
  const { traits } = opDef(node.op);
  if (traits.has("pointwise") || traits.has("movement")) return true;
  const size = (id: number): number => sizeOf(graph.values[id]!.shape);
  return traits.has("fused") && node.inputs.every((input) => size(input) <= size(node.outputs[0]!));
}

/** The same outputs in less memory, or the graph itself where nothing is gained. */
export function rematerialise(
  graph: Graph,
  { minBytes = 16384 }: RematerialiseOptions = {},
): Graph {
  const readers = readersOf(graph);
  const peak = peakOf(graph, readers);
  const dropped = chooseDropped(graph, readers, peak.node, minBytes);
  if (dropped.size === 0) return graph;
  const lighter = rebuild(graph, peak.node, dropped);
  return peakOf(lighter, readersOf(lighter)).bytes < peak.bytes ? lighter : graph;
}

/** Ids of the nodes that read each value; an output of the graph is read at the end. */
function readersOf(graph: Graph): number[][] {
  const readers: number[][] = graph.values.map(() => []);
  for (const node of graph.nodes) for (const input of node.inputs) readers[input]!.push(node.id);
  for (const output of graph.outputs) readers[output.value]!.push(graph.nodes.length);
  return readers;
}

const isSource = (graph: Graph, id: number): boolean => producerOf(graph, id).inputs.length === 0;

interface Peak {
  /** In a training graph this is the turn from forward to backward. */
  node: number;
  bytes: number;
}

/** Where most bytes of intermediates are alive at once. */
function peakOf(graph: Graph, readers: readonly number[][]): Peak {
  const change = new Array<number>(graph.nodes.length + 2).fill(0);
  for (const value of graph.values) {
    const last = readers[value.id]!.at(-1);
    if (last === undefined || isSource(graph, value.id)) continue;
    change[value.node]! += bytesOf(value);
    change[last + 1]! -= bytesOf(value);
  }
  let [alive, most, peak] = [0, 0, 0];
  change.forEach((bytes, id) => {
    alive += bytes;
    if (alive > most) [most, peak] = [alive, id];
  });
  return { node: Math.min(peak, graph.nodes.length - 1), bytes: most };
}

/** Longest chain that is computed again for one reader. */
const longestChain = 8;

/**
 * Values from before the turn, read after it, that can be computed again from values that are alive then anyway.
 * Oldest first, so that a chain can be rebuilt from its start.
 */
function chooseDropped(
  graph: Graph,
  readers: readonly number[][],
  turn: number,
  minBytes: number,
): Set<number> {
  const dropped = new Set<number>();
  const lastRead = (id: number): number => readers[id]!.at(-1) ?? -1;
  const isAvailable = (id: number, at: number, depth: number): boolean => {
    if (isSource(graph, id)) return true;
    if (!dropped.has(id)) return lastRead(id) >= at && at > turn;
    return depth < longestChain && areAvailable(producerOf(graph, id), at, depth + 1);
  };
  const areAvailable = (node: Node, at: number, depth: number): boolean =>
    node.inputs.every((input) => isAvailable(input, at, depth));
  for (const value of graph.values) {
    const node = producerOf(graph, value.id);
    const waits = node.id < turn && lastRead(value.id) > turn;
    if (!waits || lastRead(value.id) === graph.nodes.length) continue;
    if (bytesOf(value) < minBytes || !isCheap(graph, node)) continue;
    const firstLate = readers[value.id]!.find((reader) => reader > turn)!;
    if (areAvailable(node, firstLate, 0)) dropped.add(value.id);
  }
  return dropped;
}

/** The last part of a copy's scope: it keeps later passes from merging the copy with its original. */
const copyMark = "recompute";

const recomputeScope = (scope: string): string =>
  scope === "" ? copyMark : `${scope}.${copyMark}`;

/** Copies the graph; after the turn, readers of a dropped value read a copy made just before its first late reader. */
function rebuild(graph: Graph, turn: number, dropped: ReadonlySet<number>): Graph {
  const copy = emptyGraph();
  const renamed = new Map<number, number>();
  const recomputed = new Map<number, number>();

  const emit = (node: Node, inputs: number[], scope = node.scope): number[] => {
    const id = copy.nodes.length;
    const outputs = node.outputs.map((output, i) => {
      const { dtype, shape } = graph.values[output]!;
      return copy.values.push({ id: copy.values.length, dtype, shape, node: id, output: i }) - 1;
    });
    copy.nodes.push({ ...node, id, inputs, outputs, scope });
    return outputs;
  };
  const late = (id: number): number => {
    if (!dropped.has(id)) return renamed.get(id)!;
    const known = recomputed.get(id);
    if (known !== undefined) return known;
    const node = graph.nodes[graph.values[id]!.node]!;
    const [again] = emit(node, node.inputs.map(late), recomputeScope(node.scope));
    recomputed.set(id, again!);
    return again!;
  };

  for (const node of graph.nodes) {
    const read = node.id > turn ? late : (id: number) => renamed.get(id)!;
    const outputs = emit(node, node.inputs.map(read));
    node.outputs.forEach((output, i) => renamed.set(output, outputs[i]!));
  }
  copy.inputs.push(
    ...graph.inputs.map((input) => ({ ...input, value: renamed.get(input.value)! })),
  );
  copy.outputs.push(
    ...graph.outputs.map((output) => ({ ...output, value: renamed.get(output.value)! })),
  );
  return copy;
}
