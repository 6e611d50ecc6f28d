// Residual block of convolutions, optionally conditioned on a time embedding.
import { silu } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { mish } from "./activation.js";
import { conv2d } from "./conv.js";
import type { Dropout } from "./dropout.js";
import { zeros } from "./init.js";
import { linear } from "./linear.js";
import type { Layer } from "./linear.js";
import type { ParamScope } from "./module.js";
import { groupNorm } from "./norm.js";

export interface ResnetBlockOptions {
  in: number;
  out: number;
  groups: number;
  /** Default 1e-6. */
  eps?: number;
  /** Width of a time embedding that is added between the convolutions; default none. */
  timeWidth?: number;
  /** Default "silu". */
  activation?: "silu" | "mish";
  /** Before the second convolution; default none. */
  dropout?: Dropout;
  /** Whether the second convolution starts at zero, and the block as its shortcut; default false. */
  zeroLast?: boolean;
}

/** Group norm and activation: one pass for silu. */
function activatedNorm(
  scope: ParamScope,
  channels: number,
  { groups, eps = 1e-6, activation = "silu" }: ResnetBlockOptions,
): Layer {
  const fused = activation === "silu" ? "silu" : "none";
  const norm = groupNorm(scope, { channels, groups, eps, activation: fused });
  return activation === "silu" ? norm : (x) => mish(norm(x));
}

/**
 * norm, silu, 3x3, norm, silu, 3x3, plus a 1x1 shortcut when the channels change. He et al. 2016,
 * arXiv:1603.05027.
 */
export function resnetBlock(
  scope: ParamScope,
  options: ResnetBlockOptions,
): (x: Tensor, time?: Tensor, dropoutKey?: Tensor) => Tensor {
  const { in: channels, out, timeWidth, dropout = (h) => h, zeroLast = false } = options;
  const start = zeroLast ? { weightInit: zeros, biasInit: zeros } : {};
  const norm1 = activatedNorm(scope.child("norm1"), channels, options);
  const conv1 = conv2d(scope.child("conv1"), { in: channels, out });
  const timeProjection =
    timeWidth === undefined ? undefined : linear(scope.child("temb_proj"), { in: timeWidth, out });
  const norm2 = activatedNorm(scope.child("norm2"), out, options);
  const conv2 = conv2d(scope.child("conv2"), { in: out, out, ...start });
  const shortcut =
    channels === out ? undefined : linear(scope.child("nin_shortcut"), { in: channels, out });
  return (x, time, dropoutKey) => {
    let h = conv1(norm1(x));
    if (timeProjection && time)
      h = h.add(timeProjection(silu(time)).reshape([x.shape[0]!, 1, 1, out]));
    const y = conv2(dropout(norm2(h), dropoutKey)).add(shortcut ? shortcut(x) : x);
    x.trace.record(scope.path, y);
    return y;
  };
}
