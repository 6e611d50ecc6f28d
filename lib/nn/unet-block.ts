// Residual block and resampling of the ADM U-Nets (openai/guided-diffusion
// guided_diffusion/unet.py), conditioned on an embedding of time and class. Source: Dhariwal and
// Nichol 2021, arXiv:2105.05233, section 3.
import { avgPool2d, split } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { conv2d } from "./conv.js";
import type { Dropout } from "./dropout.js";
import { zeros } from "./init.js";
import { linear } from "./linear.js";
import type { Layer } from "./linear.js";
import type { ParamScope } from "./module.js";
import { groupNorm } from "./norm.js";

/** Repeats each pixel of (B, H, W, C) `factor` times along both axes, in one copy. */
export function repeatPixels(x: Tensor, factor = 2): Tensor {
  const [B, H, W, C] = x.shape as [number, number, number, number];
  const spread = x.reshape([B, H, 1, W, 1, C]).broadcastTo([B, H, factor, W, factor, C]);
  return spread.reshape([B, H * factor, W * factor, C]);
}

/** Means of 2 x 2 pixels; a last odd row or column is left out. */
export const meanPixels = (x: Tensor): Tensor => avgPool2d(x, { kernel: 2 });

/** Halves the size: 3x3 with stride 2, or means of 2 x 2 pixels without parameters. */
export function unetDownsample(scope: ParamScope, channels: number, learned: boolean): Layer {
  const conv =
    learned && conv2d(scope.child("op"), { in: channels, out: channels, stride: 2, padding: 1 });
  return (x) => {
    const y = conv ? conv(x) : meanPixels(x);
    x.trace.record(scope.path, y);
    return y;
  };
}

/** Doubles the size: nearest neighbour, followed by 3x3 when learned. */
export function unetUpsample(scope: ParamScope, channels: number, learned: boolean): Layer {
  const conv = learned && conv2d(scope.child("conv"), { in: channels, out: channels, upsample: 2 });
  return (x) => {
    const y = conv ? conv(x) : repeatPixels(x);
    x.trace.record(scope.path, y);
    return y;
  };
}

export interface UnetBlockOptions {
  in: number;
  out: number;
  /** Width of the embedding. */
  embedding: number;
  groups: number;
  /** The embedding scales and shifts the second norm instead of being added before it. */
  scaleShift: boolean;
  /** Resamples both branches between the first activation and the first convolution. */
  resample?: "up" | "down";
  /** Before the last convolution. */
  dropout: Dropout;
  /** Default 1e-5. */
  eps?: number;
}

/** What the stages of one U-Net are called with beside the map. */
export interface UnetCall {
  /** Of time and class: (B, E). */
  embedding: Tensor;
  /** Dropout acts when it is given. */
  dropoutKey?: Tensor | undefined;
  /** Tokens (B, M, D) for stages that attend to a condition. */
  context?: Tensor | undefined;
  /** Additive mask over these tokens, broadcastable to (B, heads, H W, M). */
  contextMask?: Tensor | undefined;
}

/** (x (B, H, W, in), call) -> (B, H', W', out). */
export type UnetBlock = (x: Tensor, call: UnetCall) => Tensor;

/** The skip branch, resampled without parameters. */
const resampled: Readonly<Record<"up" | "down" | "none", Layer>> = {
  up: (x) => repeatPixels(x),
  down: meanPixels,
  none: (x) => x,
};

export function unetBlock(scope: ParamScope, options: UnetBlockOptions): UnetBlock {
  const { in: from, out, embedding, groups, scaleShift, resample = "none", dropout } = options;
  const { eps = 1e-5 } = options;
  const activation = "silu" as const;
  const norm1 = groupNorm(scope.child("in_layers.0"), { channels: from, groups, eps, activation });
  const conv1 = conv2d(scope.child("in_layers.2"), {
    in: from,
    out,
    upsample: resample === "up" ? 2 : 1,
  });
  const project = linear(scope.child("emb_layers.1"), {
    in: embedding,
    out: scaleShift ? 2 * out : out,
  });
  const norm2 = groupNorm(scope.child("out_layers.0"), {
    channels: out,
    groups,
    eps,
    activation: scaleShift ? "none" : activation,
  });
  const conv2 = conv2d(scope.child("out_layers.3"), {
    in: out,
    out,
    weightInit: zeros,
    biasInit: zeros,
  });
  const skip = from === out ? undefined : linear(scope.child("skip_connection"), { in: from, out });
  return (x, { embedding: emb, dropoutKey }) => {
    const B = x.shape[0]!;
    const active = norm1(x);
    const h = conv1(resample === "down" ? meanPixels(active) : active);
    const rows = project(emb.silu()).reshape([B, 1, 1, scaleShift ? 2 * out : out]);
    const [scale, shift] = scaleShift ? split(rows, 2, 3) : [];
    const normed =
      scale && shift ? norm2(h).mul(scale.add(1)).add(shift).silu() : norm2(h.add(rows));
    const around = resampled[resample](x);
    const y = (skip ? skip(around) : around).add(conv2(dropout(normed, dropoutKey)));
    x.trace.record(scope.path, y);
    return y;
  };
}
