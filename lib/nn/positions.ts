// Fixed positions of a grid of tokens, as constants of the graph: one row of sinusoids a coordinate,
// so that a table of h w positions costs h + w rows.
import { concat } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { sinusoidRows } from "./embedding.js";

const count = (size: number): number[] => Array.from({ length: size }, (_, i) => i);

/** Joins a table of rows (h, E) and one of columns (w, E) to (h w, 2 E). */
export function joinAxes(rows: Tensor, columns: Tensor, first: "row" | "column"): Tensor {
  const [h, E] = rows.shape as [number, number];
  const w = columns.shape[0]!;
  const byRow = rows.reshape([h, 1, E]).broadcastTo([h, w, E]);
  const byColumn = columns.reshape([1, w, E]).broadcastTo([h, w, E]);
  return concat(first === "row" ? [byRow, byColumn] : [byColumn, byRow], 2).reshape([h * w, 2 * E]);
}

export interface GridSinusoidOptions {
  /** Rows and columns of tokens. */
  grid: readonly [number, number];
  /** Divisible by 4. */
  width: number;
  /** The coordinate in the first half of the features; default "column" (MAE, DiT). */
  first?: "row" | "column";
}

/**
 * (h w, width): half of the features say the column, half the row, each as sines and then cosines.
 * He et al. 2022, arXiv:2111.06377, appendix A.1; order of facebookresearch/DiT models.py.
 */
export function gridSinusoids(
  t: Trace,
  { grid: [h, w], width, first = "column" }: GridSinusoidOptions,
): Tensor {
  const table = (size: number): Tensor =>
    t.constant(sinusoidRows(count(size), { width: width / 2, first: "sin" }), [size, width / 2]);
  return joinAxes(table(h), table(w), first);
}
