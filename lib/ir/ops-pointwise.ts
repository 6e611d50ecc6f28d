// Elementwise ops: one row each. Inputs broadcast against each other by numpy's rules.
import { numericTypes, realTypes, dtypes } from "./dtype.js";
import type { DType } from "./dtype.js";
import type { Spec } from "./graph.js";
import type { AttrType, OpDef, Trait } from "./op.js";
import { defineOp, dtypeAttr, realAttr, requireSameType, requireTypes, shapeError } from "./op.js";
import { broadcastShapes } from "./shape.js";
import type { Shape } from "./shape.js";

const traits: readonly Trait[] = ["pointwise", "inPlaceOk"];
const boolType: readonly DType[] = ["bool"];

/** Common shape of all inputs, or an error that shows them. */
function commonShape(op: string, specs: readonly Spec[]): Shape {
  let shape: Shape | undefined = [];
  for (const spec of specs) {
    shape = broadcastShapes(shape, spec.shape);
    if (!shape) throw shapeError(op, "shapes that broadcast", specs);
  }
  return shape;
}

/** One input of one of `allowed` types; the output has its shape. */
function unary(name: string, allowed: readonly DType[] = realTypes, result?: DType): OpDef {
  return defineOp({
    name,
    traits,
    inputs: ["x"],
    infer: (inputs) => {
      requireTypes(name, allowed, inputs);
      return [{ dtype: result ?? inputs[0]!.dtype, shape: inputs[0]!.shape }];
    },
  });
}

/** Two inputs of one type. */
function binary(name: string, allowed: readonly DType[], result?: DType): OpDef {
  return defineOp({
    name,
    traits,
    inputs: ["a", "b"],
    infer: (inputs) => {
      requireTypes(name, allowed, inputs);
      requireSameType(name, inputs);
      return [{ dtype: result ?? inputs[0]!.dtype, shape: commonShape(name, inputs) }];
    },
  });
}

/** One input and numbers as attributes. */
const withNumbers = (
  name: string,
  attrs: Record<string, AttrType<number>>,
  allowed: readonly DType[],
): OpDef =>
  defineOp({
    name,
    traits,
    inputs: ["x"],
    attrs,
    infer: (inputs) => {
      requireTypes(name, allowed, inputs);
      return inputs.slice(0, 1);
    },
  });

const where = defineOp({
  name: "where",
  traits,
  inputs: ["condition", "a", "b"],
  infer: ([condition, a, b]) => {
    const all = [condition!, a!, b!];
    if (condition!.dtype !== "bool") requireTypes("where (condition)", boolType, [condition!]);
    requireSameType("where", [a!, b!]);
    return [{ dtype: a!.dtype, shape: commonShape("where", all) }];
  },
});

const cast = defineOp({
  name: "cast",
  traits,
  inputs: ["x"],
  attrs: { dtype: dtypeAttr },
  infer: ([x], { dtype }) => [{ dtype, shape: x!.shape }],
});

export const pointwiseOps: readonly OpDef[] = [
  ...["neg", "abs", "square", "sign"].map((name) => unary(name, numericTypes)),
  ...["exp", "log", "log1p", "sqrt", "rsqrt", "reciprocal"].map((name) => unary(name)),
  ...["sin", "cos", "tanh", "sigmoid", "silu", "gelu", "geluTanh", "quickGelu"].map((name) =>
    unary(name),
  ),
  ...["siluSlope", "geluTanhSlope"].map((name) => unary(name)), // derivatives
  ...["relu", "softplus", "erf", "floor", "ceil", "round"].map((name) => unary(name)),
  unary("isFinite", realTypes, "bool"),
  unary("logicalNot", boolType),
  unary("stopGradient", dtypes),
  withNumbers("leakyRelu", { slope: realAttr }, realTypes),
  withNumbers("clamp", { min: realAttr, max: realAttr }, numericTypes),
  cast,
  ...["add", "sub", "mul", "div", "pow", "maximum", "minimum", "mod"].map((name) =>
    binary(name, numericTypes),
  ),
  ...["equal", "less", "lessEqual"].map((name) => binary(name, dtypes, "bool")),
  ...["logicalAnd", "logicalOr"].map((name) => binary(name, boolType)),
  where,
];
