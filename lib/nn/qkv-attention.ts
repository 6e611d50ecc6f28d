// Self-attention over the pixels of a map with one projection for queries, keys and values, as in
// openai/guided-diffusion guided_diffusion/unet.py. Source: Ho et al. 2020, arXiv:2006.11239,
// appendix B; Dhariwal and Nichol 2021, arXiv:2105.05233, section 3.
import { attention as attend, split } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { zeros } from "./init.js";
import { linear } from "./linear.js";
import type { Layer } from "./linear.js";
import type { ParamScope } from "./module.js";
import { groupNorm } from "./norm.js";

/**
 * What the 3 C outputs of the projection are: "heads-first" (heads, qkv, C / heads), the legacy
 * order, or "qkv-first" (qkv, heads, C / heads).
 */
export type AttentionOrder = "heads-first" | "qkv-first";

/** (B, N, 3 C) -> q, k, v, each (B, N, heads, C / heads). */
export function splitHeads(qkv: Tensor, heads: number, order: AttentionOrder): Tensor[] {
  const [B, N, width] = qkv.shape as [number, number, number];
  const D = width / (3 * heads);
  if (order === "qkv-first") return split(qkv, 3, 2).map((part) => part.reshape([B, N, heads, D]));
  return split(qkv.reshape([B, N, heads, 3 * D]), 3, 3);
}

export interface QkvAttentionOptions {
  channels: number;
  heads: number;
  groups: number;
  order: AttentionOrder;
  /** Default 1e-5. */
  eps?: number;
}

/** x + project(attention(qkv(norm(x)))) on (B, H, W, C), scale 1 / sqrt(C / heads). */
export function qkvAttention(scope: ParamScope, options: QkvAttentionOptions): Layer {
  const { channels, heads, groups, order, eps = 1e-5 } = options;
  const norm = groupNorm(scope.child("norm"), { channels, groups, eps });
  const project = linear(scope.child("qkv"), { in: channels, out: 3 * channels });
  const out = linear(scope.child("proj_out"), {
    in: channels,
    out: channels,
    weightInit: zeros,
    biasInit: zeros,
  });
  return (x) => {
    const [B, H, W, C] = x.shape as [number, number, number, number];
    const qkv = project(norm(x).reshape([B, H * W, C]));
    const [q, k, v] = splitHeads(qkv, heads, order) as [Tensor, Tensor, Tensor];
    const mixed = attend(q, k, v).out.reshape([B, H, W, C]);
    const y = x.add(out(mixed));
    x.trace.record(scope.path, y);
    return y;
  };
}
