// All ops by name.
import { DiffusionError, nearestName } from "../errors.js";
import type { OpDef } from "./op.js";
import { fusedOps } from "./ops-fused.js";
import { linearOps } from "./ops-linear.js";
import { movementOps } from "./ops-movement.js";
import { pointwiseOps } from "./ops-pointwise.js";
import { randomOps } from "./ops-random.js";
import { reduceOps } from "./ops-reduce.js";
import { tokenOps } from "./ops-tokens.js";

const rows = [
  pointwiseOps,
  reduceOps,
  movementOps,
  linearOps,
  fusedOps,
  tokenOps,
  randomOps,
].flat();

export const opTable: ReadonlyMap<string, OpDef> = new Map(rows.map((row) => [row.name, row]));

/** The row of an op; throws for an unknown name. */
export function opDef(name: string): OpDef {
  const row = opTable.get(name);
  if (row) return row;
  const near = nearestName(name, opTable.keys());
  throw new DiffusionError(
    "internal",
    `opDef: expected a known op, got "${name}"${near ? `; did you mean "${near}"?` : ""}`,
  );
}
