// Foreign checkpoint names -> our parameter names, as data: ordered rules of renaming and layout.
// First match wins.
import { sizeOf } from "../ir/shape.js";

/** How a foreign tensor becomes ours. */
export type Layout =
  | "same"
  /** (out, in) -> (in, out). */
  | "linear"
  /** (out, in, kh, kw) -> (kh, kw, in, out). */
  | "conv"
  /** (out, in, 1, 1) or (out, in, 1) -> (in, out). */
  | "pointwise"
  /** Axes of extent 1 dropped, e.g. (1, C, 1, 1) -> (C). */
  | "squeeze"
  /** All axes after the first as one: (in, out, kh, kw) of a transposed convolution without overlap. */
  | "flatten";

/** A foreign tensor that is one of `of` equal parts of ours, side by side along our last axis. */
export interface Part {
  index: number;
  of: number;
}

export interface KeyRule {
  /** Matched against the whole foreign name. */
  from: RegExp;
  /** Our name, with $1 … of the match. */
  to: string;
  /** Only tensors with so many axes; default any. */
  rank?: number;
  /** Default "same". */
  layout?: Layout;
  /** Which part of ours it is, in our layout; default the whole. */
  part?: Part;
}

export interface KeyMap {
  /** Foreign names left out on purpose. */
  drop: readonly RegExp[];
  rules: readonly KeyRule[];
  /**
   * Foreign names left out because they repeat another: `of`, with $1 … of the match. Reading compares their values; `hint`
   * says what to do when they differ.
   */
  copies?: readonly { from: RegExp; of: string; hint: string }[];
}

export interface KeyMatch {
  name: string;
  layout: Layout;
  part?: Part;
}

/**
 * Our name, layout and part of a foreign tensor; "drop" when it is left out on purpose, undefined when no
 * rule knows it.
 */
export function mapKey(
  map: KeyMap,
  foreign: string,
  shape: readonly number[],
): KeyMatch | "drop" | undefined {
  const copies = map.copies?.map(({ from }) => from) ?? [];
  if ([...map.drop, ...copies].some((pattern) => pattern.test(foreign))) return "drop";
  const rule = map.rules.find(
    ({ from, rank = shape.length }) => rank === shape.length && from.test(foreign),
  );
  if (!rule) return undefined;
  const { to, layout = "same", part } = rule;
  return { name: foreign.replace(rule.from, to), layout, ...(part && { part }) };
}

/** Permutation that a layout applies to the axes, after dropping extents as said. */
interface Move {
  /** Shape in which the permutation acts. */
  source: (shape: readonly number[]) => number[];
  permutation: readonly number[] | undefined;
}

const moves: Readonly<Record<Layout, Move>> = {
  same: { source: (shape) => [...shape], permutation: undefined },
  linear: { source: (shape) => [...shape], permutation: [1, 0] },
  conv: { source: (shape) => [...shape], permutation: [2, 3, 1, 0] },
  pointwise: { source: (shape) => shape.slice(0, 2), permutation: [1, 0] },
  squeeze: { source: (shape) => shape.filter((extent) => extent !== 1), permutation: undefined },
  flatten: {
    source: (shape) => [shape[0]!, sizeOf(shape.slice(1))],
    permutation: undefined,
  },
};

/** Shape of a foreign tensor in our layout, or of the whole that it is a part of. */
export function shapeInLayout(shape: readonly number[], layout: Layout, part?: Part): number[] {
  const { source, permutation } = moves[layout];
  const from = source(shape);
  const ours = permutation ? permutation.map((axis) => from[axis]!) : from;
  if (part) ours[ours.length - 1]! *= part.of;
  return ours;
}

/** Copies a part, in our layout, to its place in the whole; `width` is the whole's last extent. */
export function placePart(
  whole: Float32Array,
  width: number,
  values: Float32Array,
  { index, of }: Part,
): void {
  const columns = width / of;
  for (let row = 0; row * columns < values.length; ++row) {
    const from = values.subarray(row * columns, (row + 1) * columns);
    whole.set(from, row * width + index * columns);
  }
}

function permute(
  values: Float32Array,
  shape: readonly number[],
  permutation: readonly number[],
): Float32Array {
  const strides = shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
  const target = permutation.map((axis) => shape[axis]!);
  const steps = permutation.map((axis) => strides[axis]!);
  const out = new Float32Array(values.length);
  const index = target.map(() => 0);
  let from = 0;
  for (let i = 0; i < out.length; ++i) {
    out[i] = values[from]!;
    for (let axis = target.length - 1; axis >= 0; --axis) {
      from += steps[axis]!;
      if (++index[axis]! < target[axis]!) break;
      from -= steps[axis]! * target[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}

/** Values of a foreign tensor in our layout. */
export function toLayout(
  values: Float32Array,
  shape: readonly number[],
  layout: Layout,
): Float32Array {
  const { source, permutation } = moves[layout];
  return permutation ? permute(values, source(shape), permutation) : values;
}

/** The inverse of toLayout: our values in the foreign layout of the given foreign shape. */
export function fromLayout(
  values: Float32Array,
  foreignShape: readonly number[],
  layout: Layout,
): Float32Array {
  const { source, permutation } = moves[layout];
  if (!permutation) return values;
  const from = source(foreignShape);
  const inverse = permutation.map((_, axis) => permutation.indexOf(axis));
  return permute(
    values,
    permutation.map((axis) => from[axis]!),
    inverse,
  );
}
