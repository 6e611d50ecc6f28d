// Multi-head attention over tokens and over maps. Source: Vaswani et al. 2017, arXiv:1706.03762.
import type { Init } from "../ir/param.js";
import { attention as attend } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { linear } from "./linear.js";
import type { Layer } from "./linear.js";
import type { ParamScope } from "./module.js";
import { groupNorm } from "./norm.js";

export interface AttentionOptions {
  width: number;
  heads: number;
  /** Width of the tokens attended to; default `width`. */
  contextWidth?: number;
  /** Parameter names of the four projections; default query, key, value, proj. */
  names?: { query: string; key: string; value: string; out: string };
  /** Key m is visible to query n when m <= n; default false. */
  causal?: boolean;
  weightInit?: Init;
  biasInit?: Init;
}

/** (x, context, additive mask broadcastable to (B, heads, N, M)) -> same shape as x. */
export type AttentionLayer = (x: Tensor, context?: Tensor, mask?: Tensor) => Tensor;

const defaultNames = { query: "query", key: "key", value: "value", out: "proj" };

/**
 * Separate q, k, v and output projections, scale 1 / sqrt(head width); self-attention without a
 * context.
 */
export function attention(scope: ParamScope, options: AttentionOptions): AttentionLayer {
  const {
    width,
    heads,
    contextWidth = width,
    names = defaultNames,
    causal = false,
    weightInit,
    biasInit,
  } = options;
  const project = (name: string, from: number) =>
    linear(scope.child(name), {
      in: from,
      out: width,
      ...(weightInit && { weightInit }),
      ...(biasInit && { biasInit }),
    });
  const query = project(names.query, width);
  const key = project(names.key, contextWidth);
  const value = project(names.value, contextWidth);
  const out = project(names.out, width);
  return (x, context = x, mask) => {
    const [B, N, D] = x.shape as [number, number, number];
    const M = context.shape[1]!;
    const split = (y: Tensor, tokens: number): Tensor => y.reshape([B, tokens, heads, D / heads]);
    const mixed = attend(split(query(x), N), split(key(context), M), split(value(context), M), {
      scale: 1 / Math.sqrt(D / heads),
      causal,
      ...(mask && { mask }),
    });
    const y = out(mixed.out.reshape([B, N, D]));
    x.trace.record(scope.path, y);
    return y;
  };
}

/**
 * Single-head attention over the pixels of a map with its norm and residual, as in the taming
 * family.
 */
export function mapAttention(
  scope: ParamScope,
  { channels, groups }: { channels: number; groups: number },
): Layer {
  const norm = groupNorm(scope.child("norm"), { channels, groups });
  const mix = attention(scope, {
    width: channels,
    heads: 1,
    names: { query: "q", key: "k", value: "v", out: "proj_out" },
  });
  return (x) => {
    const [B, H, W, C] = x.shape as [number, number, number, number];
    // recorded last, so the tap of this scope includes the residual
    const y = x.add(mix(norm(x).reshape([B, H * W, C])).reshape([B, H, W, C]));
    x.trace.record(scope.path, y);
    return y;
  };
}
