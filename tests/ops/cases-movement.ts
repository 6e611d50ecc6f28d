// Cases of ops that move elements.
import type { OpCase } from "./cases.js";
import { real, truth, whole } from "./operand.js";
import type { Operand } from "./operand.js";

const row = (op: string, inputs: Operand[], attrs: OpCase["attrs"] = {}): OpCase => ({
  op,
  inputs,
  attrs,
});

const transposes: OpCase[] = [
  row("transpose", [real([7, 33])], { permutation: [1, 0] }),
  row("transpose", [real([2, 5, 3, 17])], { permutation: [0, 2, 1, 3] }),
  row("transpose", [real([2, 5, 3, 17])], { permutation: [0, 3, 1, 2] }),
  row("transpose", [real([2, 3, 1, 4, 5])], { permutation: [4, 2, 0, 3, 1] }),
  row("transpose", [whole([9, 20], -9, 9)], { permutation: [1, 0] }),
  row("transpose", [truth([9, 20])], { permutation: [1, 0] }),
];

const slices: OpCase[] = [
  row("slice", [real([6, 9])], { starts: [1, 0], sizes: [3, 9], strides: [1, 1] }),
  row("slice", [real([6, 9])], { starts: [0, 2], sizes: [6, 5], strides: [1, 1] }),
  row("slice", [real([7, 2, 9])], { starts: [1, 1, 1], sizes: [3, 1, 4], strides: [2, 1, 2] }),
  row("slice", [whole([8], 0, 99)], { starts: [1], sizes: [3], strides: [3] }),
];

const pads: OpCase[] = [
  row("pad", [real([3, 5])], { low: [1, 0], high: [0, 3], value: 0 }),
  row("pad", [real([2, 3, 4, 3])], { low: [0, 1, 2, 0], high: [0, 0, 1, 0], value: -1.5 }),
  row("pad", [whole([4], 0, 9)], { low: [2], high: [2], value: 7 }),
];

const concats: OpCase[] = [
  row("concat", [real([2, 3]), real([2, 5]), real([2, 1])], { axis: 1 }),
  row("concat", [real([2, 3, 7]), real([1, 3, 7])], { axis: 0 }),
  row("concat", [real([2, 3, 3, 16]), real([2, 3, 3, 5])], { axis: 3 }),
  row("concat", [whole([3], 0, 9), whole([4], 0, 9)], { axis: 0 }),
];

const broadcastsAndShapes: OpCase[] = [
  row("reshape", [real([4, 15])], { shape: [2, 2, 3, 5] }),
  row("reshape", [real([1])], { shape: [] }),
  row("broadcastTo", [real([5, 1])], { shape: [3, 5, 7] }),
  row("broadcastTo", [real([])], { shape: [3, 4] }),
  row("broadcastTo", [real([2, 1, 1, 9])], { shape: [2, 3, 4, 9] }),
];

const gathers: OpCase[] = [
  row("gather", [real([11, 5]), whole([4], 0, 11)], { axis: 0 }),
  row("gather", [real([11, 19]), whole([2, 3], 0, 11)], { axis: 0 }),
  row("gather", [real([2, 7, 3]), whole([5], 0, 7)], { axis: 1 }),
  row("gather", [real([3, 6]), whole([2, 2], 0, 6)], { axis: 1 }),
  row("gather", [real([5, 1]), whole([], 0, 5)], { axis: 0 }),
  row("gather", [whole([7, 2], 0, 99), whole([6], 0, 7)], { axis: 0 }),
];

const scatters: OpCase[] = [
  row("scatterAdd", [real([6, 5]), whole([6], 0, 4)], { axis: 0, size: 4 }),
  row("scatterAdd", [real([2, 3, 19]), whole([2, 3], 0, 4)], { axis: 0, size: 9 }),
  row("scatterAdd", [real([2, 8, 3]), whole([8], 0, 5)], { axis: 1, size: 5 }),
  row("scatterAdd", [whole([9], -9, 9), whole([9], 0, 4)], { axis: 0, size: 4 }),
];

const lastAxis: OpCase[] = [
  row("gatherLast", [real([3, 4, 9]), whole([3, 4], 0, 9)]),
  row("gatherLast", [real([7]), whole([], 0, 7)]),
  row("gatherLast", [whole([5, 6], 0, 99), whole([5], 0, 6)]),
  row("scatterLast", [real([3, 4]), whole([3, 4], 0, 9)], { size: 9 }),
  row("scatterLast", [whole([5], 0, 99), whole([5], 0, 6)], { size: 6 }),
];

const sources: OpCase[] = [
  row("iota", [], { dtype: "i32", shape: [3, 7, 2], axis: 1 }),
  row("iota", [], { dtype: "f32", shape: [5], axis: 0 }),
  row("constant", [], { dtype: "f32", shape: [2, 3], values: [1, -2, 3.5, 0, 1e-3, 6] }),
  row("constant", [], { dtype: "i32", shape: [4, 5], values: [-3] }),
  row("constant", [], { dtype: "bool", shape: [3], values: [1, 0, 1] }),
];

export const movementCases: readonly OpCase[] = [
  ...transposes,
  ...slices,
  ...pads,
  ...concats,
  ...broadcastsAndShapes,
  ...gathers,
  ...scatters,
  ...lastAxis,
  ...sources,
];
