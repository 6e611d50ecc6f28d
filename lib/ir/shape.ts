// Arithmetic on shapes: broadcasting, axes, reductions and the output size of a convolution.
import { DiffusionError, formatShape } from "../errors.js";

/** Sizes of the axes, outermost first; `[]` is a scalar. */
export type Shape = readonly number[];

/** Number of axes that the native kernels can walk (native/kernels/args.h). */
export const maxRank = 8;

/** Number of elements. */
export const sizeOf = (shape: Shape): number => shape.reduce((size, n) => size * n, 1);

export const sameShape = (a: Shape, b: Shape): boolean =>
  a.length === b.length && a.every((n, i) => n === b[i]);

/** The common shape under numpy's rules (axes aligned at the end, size 1 stretches), or undefined. */
export function broadcastShapes(a: Shape, b: Shape): Shape | undefined {
  const rank = Math.max(a.length, b.length);
  const result: number[] = [];
  for (let i = 0; i < rank; i++) {
    const m = a[i - rank + a.length] ?? 1;
    const n = b[i - rank + b.length] ?? 1;
    if (m !== n && m !== 1 && n !== 1) return undefined;
    result.push(m === 1 ? n : m);
  }
  return result;
}

export function canBroadcastTo(shape: Shape, target: Shape): boolean {
  const common = broadcastShapes(shape, target);
  return common !== undefined && sameShape(common, target);
}

/** An axis counted from the front; negative ones count from the end. */
export function normalizeAxis(where: string, axis: number, rank: number): number {
  if (Number.isInteger(axis) && axis >= -rank && axis < rank) return axis < 0 ? axis + rank : axis;
  throw new DiffusionError(
    "shape",
    rank === 0
      ? `${where}: expected a tensor with an axis ${axis}, got a scalar`
      : `${where}: expected axis from ${-rank} to ${rank - 1}, got ${axis}`,
  );
}

/** Axes in increasing order without repeats; all of them when none are given. */
export function normalizeAxes(
  where: string,
  axes: number | readonly number[] | undefined,
  rank: number,
): number[] {
  if (axes === undefined) return Array.from({ length: rank }, (_, axis) => axis);
  const list = typeof axes === "number" ? [axes] : axes;
  const found = [...new Set(list.map((axis) => normalizeAxis(where, axis, rank)))];
  if (found.length !== list.length) {
    throw new DiffusionError("shape", `${where}: expected distinct axes, got ${formatShape(list)}`);
  }
  return found.sort((a, b) => a - b);
}

/** Increasing axes cut into runs of adjacent ones: [0, 1, 3] -> [[0, 1], [3]]. */
export function adjacentRuns(axes: readonly number[]): number[][] {
  const runs: number[][] = [];
  for (const axis of axes) {
    const run = runs.at(-1);
    if (run && run.at(-1) === axis - 1) run.push(axis);
    else runs.push([axis]);
  }
  return runs;
}

/** Shape after reducing `axes`, which stay with size 1 when `keepDims`. */
export const reducedShape = (shape: Shape, axes: readonly number[], keepDims: boolean): Shape =>
  keepDims
    ? shape.map((n, axis) => (axes.includes(axis) ? 1 : n))
    : shape.filter((_, axis) => !axes.includes(axis));

/** Output length of a convolution along one axis; below 1 when the kernel does not fit. */
export const convOutputSize = (
  input: number,
  kernel: number,
  stride: number,
  padLow: number,
  padHigh: number,
): number => Math.floor((input + padLow + padHigh - kernel) / stride) + 1;
