// Ops on codebooks and on tokens under mask-and-replace diffusion (Gu et al. 2021, arXiv:2111.14822); semantics of the
// coefficient and setting columns: native/kernels/args.h.
import { formatShape } from "../errors.js";
import { realTypes } from "./dtype.js";
import type { Spec } from "./graph.js";
import type { OpDef } from "./op.js";
import {
  choiceAttr, countAttr, defineOp, flagAttr, requireIndices, requireRank, requireSameType, requireTypes, shapeError,
} from "./op.js"; // prettier-ignore
import { sameShape } from "./shape.js";
import type { Shape } from "./shape.js";

const coeffColumns = 9;
const settingColumns = 4;

function requireShape(op: string, what: string, spec: Spec, shape: Shape): void {
  if (!sameShape(spec.shape, shape)) throw shapeError(op, `${what} ${formatShape(shape)}`, [spec]);
}

function requireTokens(op: string, what: string, spec: Spec, shape: Shape): void {
  requireIndices(op, what, spec);
  requireShape(op, what, spec, shape);
}

const nearestCodes = defineOp({
  name: "nearestCodes",
  traits: ["fused"],
  inputs: ["latents", "codebook"],
  attrs: { metric: choiceAttr("euclidean", "cosine") },
  infer: ([latents, codebook]) => {
    const both = [latents!, codebook!];
    requireTypes("nearestCodes", realTypes, both);
    requireSameType("nearestCodes", both);
    both.forEach((spec) =>
      requireRank("nearestCodes", "latents (N, D) and codebook (K, D)", 2, spec),
    );
    if (latents!.shape[1] !== codebook!.shape[1]) {
      throw shapeError("nearestCodes", "latents (N, D) and codebook (K, D) of one width", both);
    }
    return [{ dtype: "i32", shape: [latents!.shape[0]!] }];
  },
});

const maskReplaceForward = defineOp({
  name: "maskReplaceForward",
  inputs: ["x0", "coeffs", "uniform"],
  attrs: { codes: countAttr },
  infer: ([x0, coeffs, uniform]) => {
    requireIndices("maskReplaceForward", "x0", x0!);
    requireRank("maskReplaceForward", "x0 (B, N)", 2, x0!);
    requireTypes("maskReplaceForward", realTypes, [coeffs!, uniform!]);
    requireSameType("maskReplaceForward", [coeffs!, uniform!]);
    const [B, N] = x0!.shape as [number, number];
    requireShape("maskReplaceForward", "coeffs", coeffs!, [B, coeffColumns]);
    requireShape("maskReplaceForward", "uniform", uniform!, [B, N, 2]);
    return [x0!];
  },
});

/** Checks logits (B, N, K) and returns [B, N]. */
function tokenShape(op: string, logits: Spec, others: readonly Spec[]): [number, number] {
  requireTypes(op, realTypes, [logits]);
  requireSameType(op, [logits, ...others]);
  requireRank(op, "logits (B, N, K)", 3, logits);
  return [logits.shape[0]!, logits.shape[1]!];
}

const maskReplaceStep = defineOp({
  name: "maskReplaceStep",
  inputs: ["logits", "uncondLogits?", "xt", "coeffs", "settings", "uniform"],
  attrs: { guided: flagAttr },
  infer: (inputs, { guided }) => {
    const op = "maskReplaceStep";
    const first = guided ? 2 : 1;
    if (inputs.length !== first + 4)
      throw shapeError(op, `${first + 4} inputs when guided is ${guided}`, inputs);
    const logits = inputs[0]!;
    const [xt, coeffs, settings, uniform] = inputs.slice(first) as [Spec, Spec, Spec, Spec];
    const [B, N] = tokenShape(op, logits, [coeffs, settings, uniform]);
    if (guided) {
      requireSameType(op, [logits, inputs[1]!]);
      requireShape(op, "uncondLogits", inputs[1]!, logits.shape);
    }
    requireTokens(op, "xt", xt, [B, N]);
    requireShape(op, "coeffs", coeffs, [B, coeffColumns]);
    requireShape(op, "settings", settings, [B, settingColumns]);
    requireShape(op, "uniform", uniform, [B, N]);
    const tokens: Spec = { dtype: "i32", shape: [B, N] };
    return [tokens, tokens, { dtype: logits.dtype, shape: [B, N] }];
  },
});

function lossShape(op: string, [logits, x0, xt, coeffs]: readonly [Spec, Spec, Spec, Spec]): Shape {
  const [B, N] = tokenShape(op, logits, [coeffs]);
  requireTokens(op, "x0", x0, [B, N]);
  requireTokens(op, "xt", xt, [B, N]);
  requireShape(op, "coeffs", coeffs, [B, coeffColumns]);
  return [B, N];
}

const maskReplaceLoss = defineOp({
  name: "maskReplaceLoss",
  traits: ["fused"],
  inputs: ["logits", "x0", "xt", "coeffs"],
  infer: (inputs) => {
    const shape = lossShape("maskReplaceLoss", inputs as [Spec, Spec, Spec, Spec]);
    const spec: Spec = { dtype: inputs[0]!.dtype, shape };
    return [spec, spec];
  },
});

const maskReplaceLossGrad = defineOp({
  name: "maskReplaceLossGrad",
  traits: ["fused"],
  inputs: ["logits", "x0", "xt", "coeffs", "dkl", "dnll"],
  infer: (inputs) => {
    const op = "maskReplaceLossGrad";
    const [logits, x0, xt, coeffs, dkl, dnll] = inputs as [Spec, Spec, Spec, Spec, Spec, Spec];
    const shape = lossShape(op, [logits, x0, xt, coeffs]);
    requireSameType(op, [logits, dkl, dnll]);
    requireShape(op, "dkl", dkl, shape);
    requireShape(op, "dnll", dnll, shape);
    return [logits];
  },
});

export const tokenOps: readonly OpDef[] = [
  nearestCodes,
  maskReplaceForward,
  maskReplaceStep,
  maskReplaceLoss,
  maskReplaceLossGrad,
];
