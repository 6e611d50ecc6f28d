// Pictures as sequences of square patches. Source: Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.1.
import type { Tensor } from "../trace/tensor.js";
import { conv2d } from "./conv.js";
import { xavierUniform, zeros } from "./init.js";
import type { Layer } from "./linear.js";
import type { ParamScope } from "./module.js";

export interface PatchEmbeddingOptions {
  /** Side of a patch in pixels. */
  patch: number;
  channels: number;
  width: number;
}

/** (B, H, W, C) -> (B, H W / patch^2, width), patches row by row; parameters below "proj". */
export function patchEmbedding(scope: ParamScope, options: PatchEmbeddingOptions): Layer {
  const { patch, channels, width } = options;
  const project = conv2d(scope.child("proj"), {
    in: channels,
    out: width,
    kernel: patch,
    stride: patch,
    padding: 0,
    weightInit: xavierUniform(channels * patch * patch, width),
    biasInit: zeros,
  });
  return (x) => {
    const map = project(x);
    const [B, h, w] = map.shape as [number, number, number, number];
    const y = map.reshape([B, h * w, width]);
    x.trace.record(scope.path, y);
    return y;
  };
}

/** Order of the values of a patch within its token, slowest first; p and q count its rows and columns. */
export type PatchOrder = "pqc" | "cpq";

/** (B, H, W, C) -> (B, H W / patch^2, patch^2 C). */
export function toPatches(x: Tensor, patch: number, order: PatchOrder): Tensor {
  const [B, H, W, C] = x.shape as [number, number, number, number];
  const [h, w] = [H / patch, W / patch];
  return x
    .reshape([B, h, patch, w, patch, C])
    .transpose(order === "pqc" ? [0, 1, 3, 2, 4, 5] : [0, 1, 3, 5, 2, 4])
    .reshape([B, h * w, patch * patch * C]);
}

/** The inverse of toPatches; `grid` counts patches: rows and columns. */
export function fromPatches(
  tokens: Tensor,
  [h, w]: readonly [number, number],
  patch: number,
  order: PatchOrder,
): Tensor {
  const [B, , D] = tokens.shape as [number, number, number];
  const C = D / (patch * patch);
  const apart =
    order === "pqc"
      ? tokens.reshape([B, h, w, patch, patch, C]).transpose([0, 1, 3, 2, 4, 5])
      : tokens.reshape([B, h, w, C, patch, patch]).transpose([0, 1, 4, 2, 5, 3]);
  return apart.reshape([B, h * patch, w * patch, C]);
}
