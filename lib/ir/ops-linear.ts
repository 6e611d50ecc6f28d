// Matrix products and convolutions. Tensors are channels last; weights are (in, out) and (KH, KW, C / groups, O).
import { formatShape } from "../errors.js";
import { realTypes } from "./dtype.js";
import type { Spec } from "./graph.js";
import type { OpDef } from "./op.js";
import {
  countAttr, defineOp, flagAttr, paddingAttr, pairAttr, requireRank, requireSameType, requireTypes, shapeError,
} from "./op.js"; // prettier-ignore
import { convOutputSize, sameShape } from "./shape.js";

type Four = readonly [number, number, number, number];
const four = (spec: Spec): Four => spec.shape as unknown as Four;

function requireReal(op: string, inputs: readonly Spec[]): void {
  requireTypes(op, realTypes, inputs);
  requireSameType(op, inputs);
}

const matmul = defineOp({
  name: "matmul",
  inputs: ["a", "b"],
  attrs: { transposeA: flagAttr, transposeB: flagAttr },
  infer: ([a, b], { transposeA, transposeB }) => {
    const both = [a!, b!];
    requireReal("matmul", both);
    both.forEach((spec) => requireRank("matmul", "matrices", 2, spec, true));
    const [M, K] = lastTwo(a!, transposeA);
    const [rows, N] = lastTwo(b!, transposeB);
    if (K !== rows) {
      const shown = `${formatShape([M, K])} x ${formatShape([rows, N])} (transposed as asked)`;
      throw shapeError("matmul", `inner sizes that agree, not ${shown}`, both);
    }
    const [leadA, leadB] = [a!.shape.slice(0, -2), b!.shape.slice(0, -2)];
    if (leadA.length > 0 && leadB.length > 0 && !sameShape(leadA, leadB)) {
      throw shapeError("matmul", "equal leading axes, or none on one side", both);
    }
    return [{ dtype: a!.dtype, shape: [...(leadA.length > 0 ? leadA : leadB), M, N] }];
  },
});

function lastTwo({ shape }: Spec, transposed: boolean): [number, number] {
  const [rows, columns] = shape.slice(-2) as [number, number];
  return transposed ? [columns, rows] : [rows, columns];
}

interface Window {
  stride: readonly [number, number];
  padding: Four;
}

/** Output height and width, or an error when the kernel does not fit. */
function convOutput(
  op: string,
  H: number,
  W: number,
  kernel: readonly [number, number],
  { stride, padding }: Window,
): [number, number] {
  const OH = convOutputSize(H, kernel[0], stride[0], padding[0], padding[1]);
  const OW = convOutputSize(W, kernel[1], stride[1], padding[2], padding[3]);
  if (OH >= 1 && OW >= 1) return [OH, OW];
  throw shapeError(
    op,
    `an input that holds the ${formatShape(kernel)} kernel`,
    `${formatShape([H, W])} with padding ${formatShape(padding)}`,
  );
}

const convAttrs = { stride: pairAttr, padding: paddingAttr, groups: countAttr };

const conv2d = defineOp({
  name: "conv2d",
  inputs: ["x", "w"],
  attrs: { ...convAttrs, upsample: countAttr },
  infer: ([x, w], { groups, upsample, ...window }) => {
    requireReal("conv2d", [x!, w!]);
    requireRank("conv2d", "x (B, H, W, C)", 4, x!);
    requireRank("conv2d", "w (KH, KW, C / groups, O)", 4, w!);
    const [B, H, W, C] = four(x!);
    const [KH, KW, depth, O] = four(w!);
    if (depth * groups !== C || O % groups !== 0) {
      throw shapeError(
        "conv2d",
        `weight (KH, KW, ${C / groups}, a multiple of ${groups}) for ${C} channels in ${groups} groups`,
        [x!, w!],
      );
    }
    const [OH, OW] = convOutput("conv2d", H * upsample, W * upsample, [KH, KW], window);
    return [{ dtype: x!.dtype, shape: [B, OH, OW, O] }];
  },
});

const conv2dGradInput = defineOp({
  name: "conv2dGradInput",
  inputs: ["dy", "w"],
  attrs: { ...convAttrs, inputSize: pairAttr },
  infer: ([dy, w], { groups, inputSize, ...window }) => {
    requireReal("conv2dGradInput", [dy!, w!]);
    requireRank("conv2dGradInput", "dy (B, OH, OW, O)", 4, dy!);
    requireRank("conv2dGradInput", "w (KH, KW, C / groups, O)", 4, w!);
    const [B, OH, OW, O] = four(dy!);
    const [KH, KW, depth, columns] = four(w!);
    const expected = convOutput("conv2dGradInput", ...inputSize, [KH, KW], window);
    if (columns !== O || O % groups !== 0 || !sameShape(expected, [OH, OW])) {
      throw shapeError(
        "conv2dGradInput",
        `dy (B, ${expected[0]}, ${expected[1]}, ${columns}) for this weight and input size ${formatShape(inputSize)}`,
        [dy!, w!],
      );
    }
    return [{ dtype: dy!.dtype, shape: [B, ...inputSize, depth * groups] }];
  },
});

const conv2dGradWeight = defineOp({
  name: "conv2dGradWeight",
  inputs: ["x", "dy"],
  attrs: { ...convAttrs, kernel: pairAttr, upsample: countAttr },
  infer: ([x, dy], { groups, kernel, upsample, ...window }) => {
    requireReal("conv2dGradWeight", [x!, dy!]);
    requireRank("conv2dGradWeight", "x (B, H, W, C)", 4, x!);
    requireRank("conv2dGradWeight", "dy (B, OH, OW, O)", 4, dy!);
    const [B, H, W, C] = four(x!);
    const [batch, OH, OW, O] = four(dy!);
    const expected = convOutput("conv2dGradWeight", H * upsample, W * upsample, kernel, window);
    if (batch !== B || C % groups !== 0 || O % groups !== 0 || !sameShape(expected, [OH, OW])) {
      throw shapeError(
        "conv2dGradWeight",
        `dy (${B}, ${expected[0]}, ${expected[1]}, O) and channels divisible by ${groups}`,
        [x!, dy!],
      );
    }
    return [{ dtype: x!.dtype, shape: [...kernel, C / groups, O] }];
  },
});

export const linearOps: readonly OpDef[] = [matmul, conv2d, conv2dGradInput, conv2dGradWeight];
