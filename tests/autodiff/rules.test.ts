// Every op has a gradient rule or a decomposition to differentiate through.
import { expect, it } from "vitest";
import { rules } from "../../lib/autodiff/rules.js";
import { opTable } from "../../lib/ir/op-table.js";
import { hasDecomposition } from "../../lib/trace/decompose.js";

it.each([...opTable.keys()])("%s", (op) => {
  expect(op in rules || hasDecomposition(op)).toBe(true);
});

it("has no rule for an unknown op", () => {
  expect(Object.keys(rules).filter((op) => !opTable.has(op))).toEqual([]);
});
