// Arrays of plain numbers for the interpreter: a shape, row-major data, and how to address them.
import type { Attrs, Spec } from "../../lib/ir/graph.js";

export interface Grid {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

/** What an op computes, from its inputs and the spec of each output. */
export type Meaning = (inputs: readonly Grid[], attrs: Attrs, specs: readonly Spec[]) => Grid[];

export const sizeOf = (shape: readonly number[]): number => shape.reduce((n, m) => n * m, 1);

/** Row-major place of an index. */
export const placeOf = (index: readonly number[], shape: readonly number[]): number =>
  index.reduce((place, i, axis) => place * shape[axis]! + i, 0);

/** Index of a row-major place. */
export function indexOf(place: number, shape: readonly number[]): number[] {
  const index = shape.map(() => 0);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = place % shape[axis]!;
    place = Math.floor(place / shape[axis]!);
  }
  return index;
}

/** A grid from the value at each index. */
export const gridOf = (
  shape: readonly number[],
  at: (index: number[], place: number) => number,
): Grid => ({
  shape,
  data: Array.from({ length: sizeOf(shape) }, (_, place) => at(indexOf(place, shape), place)),
});

export const at = (x: Grid, index: readonly number[]): number => x.data[placeOf(index, x.shape)]!;

/** Element of x where it is stretched to a larger index. */
export function broadcastAt(x: Grid, index: readonly number[]): number {
  const own = index.slice(index.length - x.shape.length);
  return at(x, own.map((i, axis) => (x.shape[axis] === 1 ? 0 : i))); // prettier-ignore
}
