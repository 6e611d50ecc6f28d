// Transformer block whose norms and residual branches are modulated by a vector for each sample
// (time and class), and which starts as the identity. Source: Peebles and Xie 2023,
// arXiv:2212.09748, section 3.2 (adaLN-Zero).
import { layerNorm, silu, split } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { zeros } from "./init.js";
import { linear } from "./linear.js";
import type { Layer } from "./linear.js";
import type { ParamScope } from "./module.js";

/** Vectors of a block: (shift, scale, gate) of the attention, then of the MLP. */
export const blockVectors = 6;
/** Vectors of the last layer: (shift, scale). */
export const finalVectors = 2;

const normEps = 1e-6;

/** silu, then linear to `vectors` times the width, zero at the start; parameters "1" as in a torch Sequential. */
export function modulation(
  scope: ParamScope,
  { width, vectors, bias = true }: { width: number; vectors: number; bias?: boolean },
): Layer {
  const project = linear(scope.child(1), {
    in: width,
    out: vectors * width,
    bias,
    weightInit: zeros,
    biasInit: zeros,
  });
  return (condition) => {
    const y = project(silu(condition));
    condition.trace.record(scope.path, y);
    return y;
  };
}

const everyToken = (gate: Tensor): Tensor => gate.reshape([gate.shape[0]!, 1, gate.shape[1]!]);

/** Makes a norm over features with the parameters below a scope. */
export type MakeNorm = (scope: ParamScope) => Layer;

/** norm(x) (1 + scale) + shift with vectors (B, width); the tap is the norm before that. Default layer norm. */
function modulated(
  scope: ParamScope,
  makeNorm: MakeNorm | undefined,
  eps = normEps,
): (x: Tensor, shift: Tensor, scale: Tensor) => Tensor {
  const norm = makeNorm?.(scope);
  if (norm)
    return (x, shift, scale) => norm(x).mul(everyToken(scale).add(1)).add(everyToken(shift));
  return (x, shift, scale) => {
    x.trace.record(scope.path, layerNorm(x, { eps }));
    return layerNorm(x, { shift, scale, eps, affine: "modulate" });
  };
}

export interface AdaLnZeroParts<Call> {
  /** (B, width) -> (B, 6 width), from which the block's vectors are cut. */
  modulation: (condition: Tensor, call: Call) => Tensor;
  attention: (x: Tensor, call: Call) => Tensor;
  mlp: Layer;
  /** Default layer norm without parameters, eps 1e-6. */
  norm?: MakeNorm;
  /** Eps of the default norm before the MLP; default 1e-6. */
  mlpEps?: number;
}

/** (x (B, N, width), condition (B, width), what the attention needs) -> same shape as x. */
export type AdaLnZeroBlock<Call> = (x: Tensor, condition: Tensor, call: Call) => Tensor;

/** x += gate Attention(modulate(norm(x))); x += gate MLP(modulate(norm(x))). */
export function adaLnZeroBlock<Call>(
  scope: ParamScope,
  parts: AdaLnZeroParts<Call>,
): AdaLnZeroBlock<Call> {
  const before = modulated(scope.child("norm1"), parts.norm);
  const between = modulated(scope.child("norm2"), parts.norm, parts.mlpEps);
  return (x, condition, call) => {
    const vectors = split(parts.modulation(condition, call), blockVectors, 1);
    const [shift1, scale1, gate1, shift2, scale2, gate2] = vectors as [
      Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
    ]; // prettier-ignore
    const h = x.add(everyToken(gate1).mul(parts.attention(before(x, shift1, scale1), call)));
    const y = h.add(everyToken(gate2).mul(parts.mlp(between(h, shift2, scale2))));
    x.trace.record(scope.path, y);
    return y;
  };
}

export interface FinalLayerOptions {
  width: number;
  /** Values of an output token. */
  out: number;
  /** (B, width) -> (B, 2 width). */
  modulation: Layer;
  /** Default layer norm without parameters, eps 1e-6. */
  norm?: MakeNorm;
}

/** Modulated norm and a linear layer that is zero at the start. */
export function finalLayer(
  scope: ParamScope,
  { width, out, modulation: modulate, norm }: FinalLayerOptions,
): (x: Tensor, condition: Tensor) => Tensor {
  const normed = modulated(scope.child("norm_final"), norm);
  const project = linear(scope.child("linear"), {
    in: width,
    out,
    weightInit: zeros,
    biasInit: zeros,
  });
  return (x, condition) => {
    const [shift, scale] = split(modulate(condition), finalVectors, 1) as [Tensor, Tensor];
    const y = project(normed(x, shift, scale));
    x.trace.record(scope.path, y);
    return y;
  };
}
