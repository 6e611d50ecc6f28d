// Ops that are one pass in C++ and a page of smaller ops otherwise; lib/trace/decompose.ts holds those pages.
import { formatShape } from "../errors.js";
import { realTypes } from "./dtype.js";
import type { Spec } from "./graph.js";
import type { OpDef } from "./op.js";
import {
  choiceAttr, countAttr, defineOp, flagAttr, formatSpec, realAttr, requireIndices, requireRank, requireSameType,
  requireTypes, shapeError,
} from "./op.js"; // prettier-ignore
import { canBroadcastTo, sameShape } from "./shape.js";
import type { Shape } from "./shape.js";

/** Throws unless `spec` has the given shape and the type of `like`. */
function requireLike(
  op: string,
  what: string,
  spec: Spec,
  like: Spec,
  shape: Shape = like.shape,
): void {
  requireSameType(op, [like, spec]);
  if (sameShape(spec.shape, shape)) return;
  throw shapeError(op, `${what} ${formatShape(shape)} for ${formatSpec(like)}`, [spec]);
}

function requireReal(op: string, x: Spec, rank: number): void {
  requireTypes(op, realTypes, [x]);
  requireRank(op, "a tensor", rank, x, true);
}

const fused = ["fused"] as const;

const softmaxLike = (name: string): OpDef =>
  defineOp({
    name,
    traits: fused,
    inputs: ["x"],
    infer: ([x]) => {
      requireReal(name, x!, 1);
      return [x!];
    },
  });

const softmaxGradLike = (name: string): OpDef =>
  defineOp({
    name,
    traits: fused,
    inputs: ["y", "dy"],
    infer: ([y, dy]) => {
      requireReal(name, y!, 1);
      requireLike(name, "dy", dy!, y!);
      return [y!];
    },
  });

const crossEntropy = defineOp({
  name: "crossEntropy",
  traits: fused,
  inputs: ["logits", "target"],
  infer: ([logits, target]) => {
    requireReal("crossEntropy", logits!, 1);
    requireIndices("crossEntropy", "target", target!);
    const shape = logits!.shape.slice(0, -1);
    if (!sameShape(target!.shape, shape)) {
      throw shapeError(
        "crossEntropy",
        `target ${formatShape(shape)} for logits ${formatSpec(logits!)}`,
        [target!],
      );
    }
    return [{ dtype: logits!.dtype, shape }];
  },
});

const groupNormAttrs = { groups: countAttr, eps: realAttr, activation: choiceAttr("none", "silu") };

function requireGroupNorm(op: string, x: Spec, gamma: Spec, beta: Spec, groups: number): void {
  requireReal(op, x, 2);
  const C = x.shape.at(-1)!;
  if (C % groups !== 0) throw shapeError(op, `channels divisible by ${groups} groups`, [x]);
  requireLike(op, "gamma", gamma, x, [C]);
  requireLike(op, "beta", beta, x, [C]);
}

const groupNorm = defineOp({
  name: "groupNorm",
  traits: fused,
  inputs: ["x", "gamma", "beta"],
  attrs: groupNormAttrs,
  infer: ([x, gamma, beta], { groups }) => {
    requireGroupNorm("groupNorm", x!, gamma!, beta!, groups);
    return [x!];
  },
});

const groupNormGrad = defineOp({
  name: "groupNormGrad",
  traits: fused,
  inputs: ["x", "gamma", "beta", "dy"],
  attrs: groupNormAttrs,
  infer: ([x, gamma, beta, dy], { groups }) => {
    requireGroupNorm("groupNormGrad", x!, gamma!, beta!, groups);
    requireLike("groupNormGrad", "dy", dy!, x!);
    return [x!, gamma!, beta!];
  },
});

const affineKinds = ["none", "shared", "modulate"] as const;
type Affine = (typeof affineKinds)[number];
const layerNormAttrs = { eps: realAttr, affine: choiceAttr(...affineKinds) };

/** Shape of scale and shift: (D) shared by all samples, or (B, D). */
const affineShape = (affine: Affine, x: Spec): Shape =>
  affine === "shared" ? [x.shape.at(-1)!] : [x.shape[0]!, x.shape.at(-1)!];

function requireCount(op: string, affine: Affine, expected: number, inputs: readonly Spec[]): void {
  if (inputs.length === expected) return;
  throw shapeError(op, `${expected} inputs for affine "${affine}"`, inputs);
}

const layerNorm = defineOp({
  name: "layerNorm",
  traits: fused,
  inputs: ["x", "scale?", "shift?"],
  attrs: layerNormAttrs,
  infer: (inputs, { affine }) => {
    const [x, ...vectors] = inputs as [Spec, ...Spec[]];
    requireReal("layerNorm", x, affine === "modulate" ? 2 : 1);
    requireCount("layerNorm", affine, affine === "none" ? 1 : 3, inputs);
    vectors.forEach((v, i) =>
      requireLike("layerNorm", i === 0 ? "scale" : "shift", v, x, affineShape(affine, x)),
    );
    return [x];
  },
});

const layerNormGrad = defineOp({
  name: "layerNormGrad",
  traits: fused,
  inputs: ["x", "scale?", "dy"],
  attrs: layerNormAttrs,
  infer: (inputs, { affine }) => {
    const [x, scale] = inputs as [Spec, Spec];
    requireReal("layerNormGrad", x, affine === "modulate" ? 2 : 1);
    requireCount("layerNormGrad", affine, affine === "none" ? 2 : 3, inputs);
    requireLike("layerNormGrad", "dy", inputs.at(-1)!, x);
    if (affine === "none") return [x];
    requireLike("layerNormGrad", "scale", scale, x, affineShape(affine, x));
    return [x, scale, scale];
  },
});

const rmsNorm = defineOp({
  name: "rmsNorm",
  traits: fused,
  inputs: ["x", "gamma"],
  attrs: { eps: realAttr },
  infer: ([x, gamma]) => {
    requireReal("rmsNorm", x!, 1);
    requireLike("rmsNorm", "gamma", gamma!, x!, [x!.shape.at(-1)!]);
    return [x!];
  },
});

const attentionAttrs = { scale: realAttr, causal: flagAttr };

interface AttentionShapes {
  out: Shape; // (B, N, H, E)
  lse: Shape; // (B, H, N)
}

function attentionShapes(
  op: string,
  inputs: readonly Spec[],
  mask: Spec | undefined,
  causal: boolean,
): AttentionShapes {
  const [q, k, v] = inputs as [Spec, Spec, Spec];
  requireReal(op, q, 4);
  [q, k, v].forEach((spec) => requireRank(op, "q, k and v", 4, spec));
  requireSameType(op, inputs);
  const [B, N, H, D] = q.shape as [number, number, number, number];
  const M = k.shape[1]!;
  const E = v.shape[3]!;
  if (!sameShape(k.shape, [B, M, H, D]) || !sameShape(v.shape, [B, M, H, E])) {
    throw shapeError(op, "q (B, N, H, D), k (B, M, H, D), v (B, M, H, E)", [q, k, v]);
  }
  if (mask && !canBroadcastTo(mask.shape, [B, H, N, M])) {
    throw shapeError(op, `a mask that broadcasts to (B, H, N, M) = ${formatShape([B, H, N, M])}`, [
      mask,
    ]);
  }
  if (causal && M < N) throw shapeError(op, "at least as many keys as queries when causal", [q, k]);
  return { out: [B, N, H, E], lse: [B, H, N] };
}

const attention = defineOp({
  name: "attention",
  traits: fused,
  inputs: ["q", "k", "v", "mask?"],
  attrs: attentionAttrs,
  infer: (inputs, { causal }) => {
    const { out, lse } = attentionShapes("attention", inputs, inputs[3], causal);
    const { dtype } = inputs[0]!;
    return [
      { dtype, shape: out },
      { dtype, shape: lse },
    ];
  },
});

const attentionGrad = defineOp({
  name: "attentionGrad",
  traits: fused,
  inputs: ["q", "k", "v", "out", "lse", "dout", "mask?"],
  attrs: attentionAttrs,
  infer: (inputs, { causal }) => {
    const [q, k, v, out, lse, dout, mask] = inputs as [Spec, Spec, Spec, Spec, Spec, Spec, Spec?];
    const shapes = attentionShapes("attentionGrad", inputs, mask, causal);
    requireLike("attentionGrad", "out", out, q, shapes.out);
    requireLike("attentionGrad", "lse", lse, q, shapes.lse);
    requireLike("attentionGrad", "dout", dout, q, shapes.out);
    return [q, k, v];
  },
});

export const fusedOps: readonly OpDef[] = [
  softmaxLike("softmax"),
  softmaxLike("logSoftmax"),
  softmaxGradLike("softmaxGrad"),
  softmaxGradLike("logSoftmaxGrad"),
  crossEntropy,
  groupNorm,
  groupNormGrad,
  layerNorm,
  layerNormGrad,
  rmsNorm,
  attention,
  attentionGrad,
];
