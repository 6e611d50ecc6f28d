// Ops that fold axes: sums and extremes over one run of adjacent axes, and scans and selections along the last axis.
import { numericTypes, realTypes } from "./dtype.js";
import type { DType } from "./dtype.js";
import type { OpDef } from "./op.js";
import {
  countAttr,
  defineOp,
  flagAttr,
  integersAttr,
  requireRank,
  requireTypes,
  shapeError,
} from "./op.js";
import { reducedShape } from "./shape.js";

const reduction = (name: string, allowed: readonly DType[]): OpDef =>
  defineOp({
    name,
    traits: ["reduction"],
    inputs: ["x"],
    attrs: { axes: integersAttr, keepDims: flagAttr },
    infer: ([x], { axes, keepDims }) => {
      requireTypes(name, allowed, [x!]);
      const isRun = axes.every((axis, i) => i === 0 || axis === axes[i - 1]! + 1);
      const inRange = axes.length > 0 && axes[0]! >= 0 && axes.at(-1)! < x!.shape.length;
      if (!isRun || !inRange) {
        throw shapeError(
          name,
          "one run of adjacent axes of the input",
          `axes [${axes.join(", ")}] of [${x!.shape.join(", ")}]`,
        );
      }
      return [{ dtype: x!.dtype, shape: reducedShape(x!.shape, axes, keepDims) }];
    },
  });

const argReduction = (name: string): OpDef =>
  defineOp({
    name,
    traits: ["reduction"],
    inputs: ["x"],
    infer: ([x]) => {
      requireTypes(name, numericTypes, [x!]);
      requireRank(name, "a tensor", 1, x!, true);
      return [{ dtype: "i32", shape: x!.shape.slice(0, -1) }];
    },
  });

const cumulativeSum = defineOp({
  name: "cumulativeSum",
  inputs: ["x"],
  attrs: { reverse: flagAttr },
  infer: ([x]) => {
    requireTypes("cumulativeSum", numericTypes, [x!]);
    requireRank("cumulativeSum", "a tensor", 1, x!, true);
    return [x!];
  },
});

const topK = defineOp({
  name: "topK",
  inputs: ["x"],
  attrs: { k: countAttr, descending: flagAttr },
  infer: ([x], { k }) => {
    requireTypes("topK", numericTypes, [x!]);
    requireRank("topK", "a tensor", 1, x!, true);
    const size = x!.shape.at(-1)!;
    if (k > size)
      throw shapeError(
        "topK",
        `k from 1 to ${size} for the last axis`,
        `k = ${k} of [${x!.shape.join(", ")}]`,
      );
    const shape = [...x!.shape.slice(0, -1), k];
    return [
      { dtype: x!.dtype, shape },
      { dtype: "i32", shape },
    ];
  },
});

export const reduceOps: readonly OpDef[] = [
  ...["sum", "max", "min", "prod"].map((name) => reduction(name, numericTypes)),
  ...["mean", "sumSquares"].map((name) => reduction(name, realTypes)),
  argReduction("argMax"),
  argReduction("argMin"),
  cumulativeSum,
  topK,
];
