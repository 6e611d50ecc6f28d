// Ops that make or move elements without arithmetic on them: inputs, constants, views, gathers and their adjoints.
import { DiffusionError, formatShape } from "../errors.js";
import { numericTypes } from "./dtype.js";
import type { OpDef, Trait } from "./op.js";
import {
  choiceAttr, countAttr, defineOp, dtypeAttr, integerAttr, integersAttr, realAttr, realsAttr, requireIndices, requireSameType, requireTypes, shapeAttr, shapeError, textAttr,
} from "./op.js"; // prettier-ignore
import { canBroadcastTo, sameShape, sizeOf } from "./shape.js";
import type { Shape } from "./shape.js";

const movement: readonly Trait[] = ["movement"];

function requireAxis(op: string, axis: number, shape: Shape): void {
  if (axis >= 0 && axis < shape.length) return;
  throw shapeError(
    op,
    `axis from 0 to ${shape.length - 1}`,
    `axis ${axis} of ${formatShape(shape)}`,
  );
}

function requireOnePerAxis(op: string, what: string, list: readonly number[], shape: Shape): void {
  if (list.length === shape.length) return;
  throw shapeError(
    op,
    `${what} with one number for each axis of ${formatShape(shape)}`,
    formatShape(list),
  );
}

/** Its spec is the declaration's, not inferred. */
const input = defineOp({
  name: "input",
  traits: ["source"],
  inputs: [],
  attrs: { name: textAttr, role: choiceAttr("input", "weight", "state") },
  infer: () => [],
});

const constant = defineOp({
  name: "constant",
  inputs: [],
  attrs: { dtype: dtypeAttr, shape: shapeAttr, values: realsAttr },
  infer: (_, { dtype, shape, values }) => {
    if (values.length !== 1 && values.length !== sizeOf(shape)) {
      throw shapeError(
        "constant",
        `1 or ${sizeOf(shape)} values for shape ${formatShape(shape)}`,
        `${values.length} values`,
      );
    }
    return [{ dtype, shape }];
  },
});

const iota = defineOp({
  name: "iota",
  inputs: [],
  attrs: { dtype: dtypeAttr, shape: shapeAttr, axis: integerAttr },
  infer: (_, { dtype, shape, axis }) => {
    requireAxis("iota", axis, shape);
    if (!numericTypes.includes(dtype)) {
      throw new DiffusionError(
        "dtype",
        `iota: expected ${numericTypes.join(" or ")}, got ${dtype}`,
      );
    }
    return [{ dtype, shape }];
  },
});

const reshape = defineOp({
  name: "reshape",
  traits: movement,
  inputs: ["x"],
  attrs: { shape: shapeAttr },
  infer: ([x], { shape }) => {
    if (sizeOf(shape) !== sizeOf(x!.shape)) {
      throw shapeError(
        "reshape",
        `a shape of ${sizeOf(x!.shape)} elements for ${formatShape(x!.shape)}`,
        formatShape(shape),
      );
    }
    return [{ dtype: x!.dtype, shape }];
  },
});

const transpose = defineOp({
  name: "transpose",
  traits: movement,
  inputs: ["x"],
  attrs: { permutation: integersAttr },
  infer: ([x], { permutation }) => {
    const order = [...permutation].sort((a, b) => a - b);
    if (order.length !== x!.shape.length || order.some((axis, i) => axis !== i)) {
      throw shapeError(
        "transpose",
        `a permutation of the ${x!.shape.length} axes of ${formatShape(x!.shape)}`,
        formatShape(permutation),
      );
    }
    return [{ dtype: x!.dtype, shape: permutation.map((axis) => x!.shape[axis]!) }];
  },
});

const slice = defineOp({
  name: "slice",
  traits: movement,
  inputs: ["x"],
  attrs: { starts: integersAttr, sizes: shapeAttr, strides: shapeAttr },
  infer: ([x], { starts, sizes, strides }) => {
    requireOnePerAxis("slice", "starts", starts, x!.shape);
    requireOnePerAxis("slice", "sizes", sizes, x!.shape);
    requireOnePerAxis("slice", "strides", strides, x!.shape);
    x!.shape.forEach((n, axis) => {
      const last = starts[axis]! + (sizes[axis]! - 1) * strides[axis]!;
      if (starts[axis]! >= 0 && last < n) return;
      throw shapeError(
        "slice",
        `elements 0 to ${n - 1} of axis ${axis} of ${formatShape(x!.shape)}`,
        `${starts[axis]} to ${last}`,
      );
    });
    return [{ dtype: x!.dtype, shape: sizes }];
  },
});

const concat = defineOp({
  name: "concat",
  traits: movement,
  inputs: ["x..."],
  attrs: { axis: integerAttr },
  infer: (inputs, { axis }) => {
    const first = inputs[0]!;
    requireAxis("concat", axis, first.shape);
    requireSameType("concat", inputs);
    const others = (shape: Shape): Shape => shape.map((n, i) => (i === axis ? 1 : n));
    if (!inputs.every(({ shape }) => sameShape(others(shape), others(first.shape)))) {
      throw shapeError("concat", `equal shapes apart from axis ${axis}`, inputs);
    }
    const total = inputs.reduce((sum, { shape }) => sum + shape[axis]!, 0);
    return [{ dtype: first.dtype, shape: first.shape.map((n, i) => (i === axis ? total : n)) }];
  },
});

const pad = defineOp({
  name: "pad",
  traits: movement,
  inputs: ["x"],
  attrs: { low: integersAttr, high: integersAttr, value: realAttr },
  infer: ([x], { low, high }) => {
    requireOnePerAxis("pad", "low", low, x!.shape);
    requireOnePerAxis("pad", "high", high, x!.shape);
    if ([...low, ...high].some((n) => n < 0)) {
      throw shapeError(
        "pad",
        "padding of at least 0",
        `low ${formatShape(low)}, high ${formatShape(high)}`,
      );
    }
    return [{ dtype: x!.dtype, shape: x!.shape.map((n, i) => low[i]! + n + high[i]!) }];
  },
});

const broadcastTo = defineOp({
  name: "broadcastTo",
  traits: movement,
  inputs: ["x"],
  attrs: { shape: shapeAttr },
  infer: ([x], { shape }) => {
    if (!canBroadcastTo(x!.shape, shape)) {
      throw shapeError(
        "broadcastTo",
        `a shape that ${formatShape(x!.shape)} broadcasts to`,
        formatShape(shape),
      );
    }
    return [{ dtype: x!.dtype, shape }];
  },
});

/** table.shape[:axis] ++ indices.shape ++ table.shape[axis+1:]. */
const gather = defineOp({
  name: "gather",
  traits: movement,
  inputs: ["table", "indices"],
  attrs: { axis: integerAttr },
  infer: ([table, indices], { axis }) => {
    requireIndices("gather", "indices", indices!);
    requireAxis("gather", axis, table!.shape);
    const shape = [
      ...table!.shape.slice(0, axis),
      ...indices!.shape,
      ...table!.shape.slice(axis + 1),
    ];
    return [{ dtype: table!.dtype, shape }];
  },
});

/** The adjoint of gather: `values` has the shape of gather's result. */
const scatterAdd = defineOp({
  name: "scatterAdd",
  inputs: ["values", "indices"],
  attrs: { axis: integerAttr, size: countAttr },
  infer: ([values, indices], { axis, size }) => {
    requireTypes("scatterAdd", numericTypes, [values!]);
    requireIndices("scatterAdd", "indices", indices!);
    const rank = indices!.shape.length;
    const middle = values!.shape.slice(axis, axis + rank);
    if (axis < 0 || !sameShape(middle, indices!.shape)) {
      throw shapeError("scatterAdd", `values with the shape of indices at axis ${axis}`, [
        values!,
        indices!,
      ]);
    }
    const shape = [...values!.shape.slice(0, axis), size, ...values!.shape.slice(axis + rank)];
    return [{ dtype: values!.dtype, shape }];
  },
});

const gatherLast = defineOp({
  name: "gatherLast",
  traits: movement,
  inputs: ["x", "indices"],
  infer: ([x, indices]) => {
    requireIndices("gatherLast", "indices", indices!);
    if (x!.shape.length === 0 || !sameShape(x!.shape.slice(0, -1), indices!.shape)) {
      throw shapeError("gatherLast", "indices with the shape of x without its last axis", [
        x!,
        indices!,
      ]);
    }
    return [{ dtype: x!.dtype, shape: indices!.shape }];
  },
});

const scatterLast = defineOp({
  name: "scatterLast",
  traits: movement,
  inputs: ["values", "indices"],
  attrs: { size: countAttr },
  infer: ([values, indices], { size }) => {
    requireIndices("scatterLast", "indices", indices!);
    if (!sameShape(values!.shape, indices!.shape)) {
      throw shapeError("scatterLast", "values and indices of one shape", [values!, indices!]);
    }
    return [{ dtype: values!.dtype, shape: [...values!.shape, size] }];
  },
});

export const movementOps: readonly OpDef[] = [
  input,
  constant,
  iota,
  reshape,
  transpose,
  slice,
  concat,
  pad,
  broadcastTo,
  gather,
  scatterAdd,
  gatherLast,
  scatterLast,
];
