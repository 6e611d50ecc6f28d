// A plain interpreter of graphs in float64, slow and obvious: an oracle that needs no native code. Fused ops are not in
// it; what is under test here are their decompositions.
import type { Attrs, Graph, Node } from "../../lib/ir/graph.js";
import { sizeOf } from "../../lib/ir/shape.js";
import type { Shape } from "../../lib/ir/shape.js";

export interface Values {
  shape: Shape;
  data: number[];
}

type Rule = (inputs: Values[], attrs: Attrs, shape: Shape) => number[];

const list = (value: unknown): number[] => [...(value as readonly number[])];

const stridesOf = (shape: Shape): number[] => shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));

const indexOf = (flat: number, shape: Shape): number[] =>
  stridesOf(shape).map((stride, axis) => Math.floor(flat / stride) % shape[axis]!);

const flatOf = (index: readonly number[], shape: Shape): number =>
  stridesOf(shape).reduce((sum, stride, axis) => sum + stride * index[axis]!, 0);

/** result[i] = of(multi-index of i). */
const build = (shape: Shape, of: (index: number[]) => number): number[] =>
  Array.from({ length: sizeOf(shape) }, (_, i) => of(indexOf(i, shape)));

/** Element of x at an index of a shape it broadcasts to. */
function at(x: Values, index: readonly number[]): number {
  const tail = index.slice(index.length - x.shape.length);
  const clipped = tail.map((i, axis) => (x.shape[axis] === 1 ? 0 : i));
  return x.data[flatOf(clipped, x.shape)]!;
}

const pointwise =
  (f: (...args: number[]) => number): Rule =>
  (inputs, _, shape) =>
    build(shape, (index) => f(...inputs.map((x) => at(x, index))));

/** Abramowitz and Stegun 7.1.5, a series that is exact to rounding for the arguments of tests. */
function erf(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; n < 200; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

const elementwise: Record<string, (...args: number[]) => number> = {
  neg: (x) => -x!,
  abs: Math.abs as (x?: number) => number,
  exp: (x) => Math.exp(x!),
  log: (x) => Math.log(x!),
  sqrt: (x) => Math.sqrt(x!),
  rsqrt: (x) => 1 / Math.sqrt(x!),
  reciprocal: (x) => 1 / x!,
  square: (x) => x! * x!,
  tanh: (x) => Math.tanh(x!),
  sigmoid: (x) => sigmoid(x!),
  silu: (x) => x! * sigmoid(x!),
  gelu: (x) => 0.5 * x! * (1 + erf(x! / Math.SQRT2)),
  relu: (x) => Math.max(0, x!),
  softplus: (x) => Math.max(0, x!) + Math.log1p(Math.exp(-Math.abs(x!))),
  floor: (x) => Math.floor(x!),
  cast: (x) => x!,
  stopGradient: (x) => x!,
  add: (a, b) => a! + b!,
  sub: (a, b) => a! - b!,
  mul: (a, b) => a! * b!,
  div: (a, b) => a! / b!,
  maximum: (a, b) => Math.max(a!, b!),
  minimum: (a, b) => Math.min(a!, b!),
  equal: (a, b) => Number(a === b),
  less: (a, b) => Number(a! < b!),
  lessEqual: (a, b) => Number(a! <= b!),
  logicalNot: (x) => Number(!x),
  where: (c, a, b) => (c ? a! : b!),
};

const folds: Record<string, (values: number[]) => number> = {
  sum: (v) => v.reduce((a, b) => a + b, 0),
  mean: (v) => v.reduce((a, b) => a + b, 0) / v.length,
  max: (v) => Math.max(...v),
  min: (v) => Math.min(...v),
  prod: (v) => v.reduce((a, b) => a * b, 1),
  sumSquares: (v) => v.reduce((a, b) => a + b * b, 0),
};

const reduction =
  (fold: (values: number[]) => number): Rule =>
  ([x], attrs) => {
    const axes = list(attrs.axes);
    const groups = new Map<string, number[]>();
    x!.data.forEach((value, i) => {
      const key = indexOf(i, x!.shape)
        .filter((_, axis) => !axes.includes(axis))
        .join();
      groups.set(key, [...(groups.get(key) ?? []), value]);
    });
    return [...groups.values()].map(fold);
  };

const lastRows = (x: Values): number[][] => {
  const size = x.shape.at(-1)!;
  return Array.from({ length: x.data.length / size }, (_, r) =>
    x.data.slice(r * size, (r + 1) * size),
  );
};

const matmul: Rule = ([a, b], { transposeA, transposeB }, shape) => {
  const K = a!.shape.at(transposeA ? -2 : -1)!;
  return build(shape, (index) => {
    const lead = index.slice(0, -2);
    const [m, n] = index.slice(-2) as [number, number];
    let sum = 0;
    for (let k = 0; k < K; k++) {
      sum +=
        at(a!, [...lead, ...(transposeA ? [k, m] : [m, k])]) *
        at(b!, [...lead, ...(transposeB ? [n, k] : [k, n])]);
    }
    return sum;
  });
};

const conv2d: Rule = ([x, w], attrs, shape) => {
  const [sh, sw] = list(attrs.stride) as [number, number];
  const [top, , left] = list(attrs.padding) as [number, number, number];
  const groups = attrs.groups as number;
  const up = attrs.upsample as number;
  const [, H, W] = x!.shape as [number, number, number];
  const [KH, KW, depth, O] = w!.shape as [number, number, number, number];
  return build(shape, ([b, oh, ow, o]) => {
    const group = Math.floor((o! * groups) / O);
    let sum = 0;
    for (let kh = 0; kh < KH; kh++)
      for (let kw = 0; kw < KW; kw++) {
        const [ih, iw] = [oh! * sh + kh - top, ow! * sw + kw - left];
        if (ih < 0 || iw < 0 || ih >= H * up || iw >= W * up) continue;
        for (let c = 0; c < depth; c++)
          sum +=
            at(x!, [b!, Math.floor(ih / up), Math.floor(iw / up), group * depth + c]) *
            at(w!, [kh, kw, c, o!]);
      }
    return sum;
  });
};

const concat: Rule = (inputs, attrs, shape) =>
  build(shape, (index) => {
    const axis = attrs.axis as number;
    let place = index[axis]!;
    for (const x of inputs) {
      if (place < x.shape[axis]!) return at(x, index.with(axis, place));
      place -= x.shape[axis]!;
    }
    return NaN;
  });

const rules: Record<string, Rule> = {
  ...Object.fromEntries(Object.entries(elementwise).map(([op, f]) => [op, pointwise(f)])),
  ...Object.fromEntries(Object.entries(folds).map(([op, f]) => [op, reduction(f)])),
  constant: (_, attrs, shape) => {
    const values = list(attrs.values);
    return build(shape, (index) =>
      values.length === 1 ? values[0]! : values[flatOf(index, shape)]!,
    );
  },
  iota: (_, attrs, shape) => build(shape, (index) => index[attrs.axis as number]!),
  reshape: ([x]) => x!.data,
  broadcastTo: ([x], _, shape) => build(shape, (index) => at(x!, index)),
  transpose: ([x], attrs, shape) => {
    const permutation = list(attrs.permutation);
    return build(shape, (index) =>
      at(
        x!,
        permutation.map((_, axis) => index[permutation.indexOf(axis)]!),
      ),
    );
  },
  slice: ([x], attrs, shape) => {
    const [starts, strides] = [list(attrs.starts), list(attrs.strides)];
    return build(shape, (index) =>
      at(
        x!,
        index.map((i, axis) => starts[axis]! + i * strides[axis]!),
      ),
    );
  },
  pad: ([x], attrs, shape) => {
    const low = list(attrs.low);
    return build(shape, (index) => {
      const from = index.map((i, axis) => i - low[axis]!);
      const isInside = from.every((i, axis) => i >= 0 && i < x!.shape[axis]!);
      return isInside ? x!.data[flatOf(from, x!.shape)]! : (attrs.value as number);
    });
  },
  concat,
  gather: ([table, indices], attrs, shape) => {
    const axis = attrs.axis as number;
    const rank = indices!.shape.length;
    return build(shape, (index) => {
      const row = indices!.data[flatOf(index.slice(axis, axis + rank), indices!.shape)]!;
      return at(table!, [...index.slice(0, axis), row, ...index.slice(axis + rank)]);
    });
  },
  gatherLast: ([x, indices]) => lastRows(x!).map((row, r) => row[indices!.data[r]!]!),
  argMax: ([x]) => lastRows(x!).map((row) => row.indexOf(Math.max(...row))),
  argMin: ([x]) => lastRows(x!).map((row) => row.indexOf(Math.min(...row))),
  matmul,
  conv2d,
};

function topK(x: Values, attrs: Attrs): [number[], number[]] {
  const sign = attrs.descending ? -1 : 1;
  const orders = lastRows(x).map((row) =>
    row
      .map((value, index) => ({ value, index }))
      .sort((a, b) => sign * (a.value - b.value) || a.index - b.index)
      .slice(0, attrs.k as number),
  );
  return [
    orders.flatMap((row) => row.map(({ value }) => value)),
    orders.flatMap((row) => row.map(({ index }) => index)),
  ];
}

function run(node: Node, inputs: Values[], shape: Shape): number[][] {
  if (node.op === "topK") return topK(inputs[0]!, node.attrs);
  const rule = rules[node.op];
  if (!rule) throw new Error(`evaluate: expected a plain op, got ${node.op}`);
  return [rule(inputs, node.attrs, shape)];
}

/** Outputs by name. */
export function evaluate(
  graph: Graph,
  feeds: Record<string, readonly number[]>,
): Record<string, number[]> {
  const values: Values[] = [];
  for (const { name, value } of graph.inputs) {
    values[value] = { shape: graph.values[value]!.shape, data: [...feeds[name]!] };
  }
  for (const node of graph.nodes) {
    if (node.op === "input") continue;
    const results = run(
      node,
      node.inputs.map((id) => values[id]!),
      graph.values[node.outputs[0]!]!.shape,
    );
    node.outputs.forEach(
      (id, i) => (values[id] = { shape: graph.values[id]!.shape, data: results[i]! }),
    );
  }
  return Object.fromEntries(graph.outputs.map(({ name, value }) => [name, values[value]!.data]));
}
