// An evaluator of graphs in plain JavaScript doubles: slow, obvious, independent of all native code. It knows the ops that
// have no decomposition; fused ones are decomposed first.
import type { Attrs, Graph, Node } from "../../lib/ir/graph.js";
import { lower } from "../../lib/trace/lower.js";
import { at, broadcastAt, gridOf, indexOf, placeOf, sizeOf } from "./grid.js";
import type { Grid, Meaning } from "./grid.js";
import { linearMeaning } from "./interpreter-linear.js";
import { elementwise, halfBits } from "./interpreter-pointwise.js";

const list = (value: unknown): number[] => value as number[];

/** A reduction along the listed axes, by folding the elements of each group. */
const reduction =
  (fold: (group: number[]) => number): Meaning =>
  ([x], { axes }, [spec]) => {
    const groups: number[][] = Array.from({ length: sizeOf(spec!.shape) }, () => []);
    x!.data.forEach((value, place) => {
      const index = indexOf(place, x!.shape).map((i, axis) => (list(axes).includes(axis) ? 0 : i));
      const kept = x!.shape.map((n, axis) => (list(axes).includes(axis) ? 1 : n));
      groups[placeOf(index, kept)]!.push(value);
    });
    return [{ shape: spec!.shape, data: groups.map(fold) }];
  };

const total = (group: number[]): number => group.reduce((a, b) => a + b, 0);

/** An op on each row along the last axis. */
const byRow =
  (...results: ((row: number[], attrs: Attrs) => number[])[]): Meaning =>
  ([x], attrs, specs) => {
    const size = x!.shape.at(-1)!;
    const rows = Array.from({ length: x!.data.length / size }, (_, r) =>
      x!.data.slice(r * size, (r + 1) * size),
    );
    return results.map((result, i) => ({
      shape: specs[i]!.shape,
      data: rows.flatMap((row) => result(row, attrs)),
    }));
  };

function ranking(row: number[], { k, descending }: Attrs): number[] {
  const order = row.map((_, i) => i);
  order.sort((a, b) => (descending ? row[b]! - row[a]! : row[a]! - row[b]!) || a - b);
  return order.slice(0, k as number);
}

function cumulative(row: number[], { reverse }: Attrs): number[] {
  return row.map((_, i) => total(reverse ? row.slice(i) : row.slice(0, i + 1)));
}

const reductions: Record<string, Meaning> = {
  sum: reduction(total),
  mean: reduction((group) => total(group) / group.length),
  max: reduction((group) => Math.max(...group)),
  min: reduction((group) => Math.min(...group)),
  prod: reduction((group) => group.reduce((a, b) => a * b, 1)),
  sumSquares: reduction((group) => total(group.map((x) => x * x))),
  argMax: byRow((row) => [row.indexOf(Math.max(...row))]),
  argMin: byRow((row) => [row.indexOf(Math.min(...row))]),
  cumulativeSum: byRow(cumulative),
  topK: byRow((row, attrs) => ranking(row, attrs).map((i) => row[i]!), ranking),
};

const clamped = (index: number, size: number): number => Math.min(Math.max(index, 0), size - 1);

/** Index into gather's table of an index of its result. */
function tableIndex(index: number[], indices: Grid, axis: number, size: number): number[] {
  const rank = indices.shape.length;
  const picked = at(indices, index.slice(axis, axis + rank));
  return [...index.slice(0, axis), clamped(picked, size), ...index.slice(axis + rank)];
}

function accumulated(
  shape: readonly number[],
  source: Grid,
  target: (index: number[]) => number[],
): Grid {
  const data = new Array<number>(sizeOf(shape)).fill(0);
  source.data.forEach((value, place) => {
    data[placeOf(target(indexOf(place, source.shape)), shape)]! += value;
  });
  return { shape, data };
}

const movements: Record<string, Meaning> = {
  reshape: ([x], _, [spec]) => [{ shape: spec!.shape, data: x!.data }],
  transpose: ([x], { permutation }, [spec]) => [
    gridOf(spec!.shape, (index) => {
      const source = x!.shape.map(() => 0);
      list(permutation).forEach((from, i) => (source[from] = index[i]!));
      return at(x!, source);
    }),
  ],
  slice: ([x], { starts, strides }, [spec]) => [
    gridOf(spec!.shape, (index) =>
      at(
        x!,
        index.map((i, axis) => list(starts)[axis]! + i * list(strides)[axis]!),
      ),
    ),
  ],
  pad: ([x], { low, value }, [spec]) => [
    gridOf(spec!.shape, (index) => {
      const source = index.map((i, axis) => i - list(low)[axis]!);
      const isInside = source.every((i, axis) => i >= 0 && i < x!.shape[axis]!);
      return isInside ? at(x!, source) : (value as number);
    }),
  ],
  concat: (parts, { axis }, [spec]) => [
    gridOf(spec!.shape, (index) => {
      let offset = index[axis as number]!;
      const part = parts.find(({ shape }) => {
        const size = shape[axis as number]!;
        if (offset < size) return true;
        offset -= size;
        return false;
      });
      return at(part!, index.with(axis as number, offset));
    }),
  ],
  broadcastTo: ([x], _, [spec]) => [gridOf(spec!.shape, (index) => broadcastAt(x!, index))],
  gather: ([table, indices], { axis }, [spec]) => [
    gridOf(spec!.shape, (index) =>
      at(table!, tableIndex(index, indices!, axis as number, table!.shape[axis as number]!)),
    ),
  ],
  scatterAdd: ([values, indices], { axis, size }, [spec]) => [
    accumulated(spec!.shape, values!, (index) =>
      tableIndex(index, indices!, axis as number, size as number),
    ),
  ],
  gatherLast: ([x, indices], _, [spec]) => [
    gridOf(spec!.shape, (index) => at(x!, [...index, at(indices!, index)])),
  ],
  scatterLast: ([values, indices], _, [spec]) => [
    accumulated(spec!.shape, values!, (index) => [...index, at(indices!, index)]),
  ],
  iota: (_, { axis }, [spec]) => [gridOf(spec!.shape, (index) => index[axis as number]!)],
  constant: (_, { values }, [spec]) => [
    gridOf(spec!.shape, (_index, place) => list(values)[list(values).length === 1 ? 0 : place]!),
  ],
};

const meanings: Record<string, Meaning> = { ...reductions, ...movements, ...linearMeaning };

function evaluateNode(graph: Graph, node: Node, inputs: Grid[]): Grid[] {
  const specs = node.outputs.map((id) => graph.values[id]!);
  const scalar = elementwise(node.op, node.attrs, specs[0]!.dtype);
  if (scalar) {
    return [
      gridOf(specs[0]!.shape, (index) => scalar(...inputs.map((x) => broadcastAt(x, index)))),
    ];
  }
  const meaning = meanings[node.op];
  if (!meaning) throw new Error(`interpreter: no meaning of ${node.op}`);
  return meaning(inputs, node.attrs, specs);
}

/** Outputs of the graph by name. */
export function interpret(
  original: Graph,
  feeds: Record<string, ArrayLike<number>>,
): Record<string, number[]> {
  const graph = lower(original, new Set());
  const grids = new Map<number, Grid>();
  for (const { name, value } of graph.inputs) {
    grids.set(value, { shape: graph.values[value]!.shape, data: Array.from(feeds[name]!) });
  }
  for (const node of graph.nodes) {
    if (node.op === "input") continue;
    const results = evaluateNode(graph, node, node.inputs.map((id) => grids.get(id)!)); // prettier-ignore
    node.outputs.forEach((id, i) => grids.set(id, results[i]!));
  }
  return Object.fromEntries(
    graph.outputs.map(({ name, value }) => {
      const { data } = grids.get(value)!;
      const { dtype } = graph.values[value]!;
      const isHalf = dtype === "f16" || dtype === "bf16";
      return [name, data.map((x) => (isHalf ? halfBits(x, dtype) : x))];
    }),
  );
}

/** Whether every op has a meaning here: random draws and draws of tokens have none. */
export const canInterpret = (graph: Graph): boolean =>
  graph.nodes.every(
    ({ op }) => op === "input" || op in meanings || elementwise(op, {}, "f64") !== undefined,
  );
