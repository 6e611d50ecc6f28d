// Numbers of each sample, handed to a loss as one table (B, columns).
import type { Tensor } from "../trace/tensor.js";

/** Columns of a table by name, each (B, 1, …) for samples of a rank. */
export function columnsOf<Name extends string>(
  names: readonly Name[],
  table: Tensor,
  rank: number,
): Record<Name, Tensor> {
  const B = table.shape[0]!;
  const shape = [B, ...Array.from({ length: rank - 1 }, () => 1)];
  const columns = names.map((name, i) => [name, table.slice([0, i], [B, 1]).reshape(shape)]);
  return Object.fromEntries(columns) as Record<Name, Tensor>;
}
