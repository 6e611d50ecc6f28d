// Multi-head attention over tokens and over maps. Source: Vaswani et al. 2017, arXiv:1706.03762.
import type { Init } from "../ir/param.js";
import { attention as attend, matmul, softmax, split } from "../trace/functions.js";
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
  /** Width of all heads together; default `width`. */
  innerWidth?: number;
  /** Biases of query, key and value; default true. The output projection always has one. */
  projectionBias?: boolean;
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
    innerWidth = width,
    projectionBias = true,
    names = defaultNames,
    causal = false,
    weightInit,
    biasInit,
  } = options;
  const project = (name: string, from: number, to = innerWidth, bias = projectionBias) =>
    linear(scope.child(name), {
      in: from,
      out: to,
      bias,
      ...(weightInit && { weightInit }),
      ...(biasInit && { biasInit }),
    });
  const query = project(names.query, width);
  const key = project(names.key, contextWidth);
  const value = project(names.value, contextWidth);
  const out = project(names.out, innerWidth, width, true);
  const headWidth = innerWidth / heads;
  return (x, context = x, mask) => {
    const [B, N] = x.shape as [number, number, number];
    const M = context.shape[1]!;
    const byHead = (y: Tensor, tokens: number): Tensor => y.reshape([B, tokens, heads, headWidth]);
    const mixed = attend(byHead(query(x), N), byHead(key(context), M), byHead(value(context), M), {
      scale: 1 / Math.sqrt(headWidth),
      causal,
      ...(mask && { mask }),
    });
    const y = out(mixed.out.reshape([B, N, innerWidth]));
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

/**
 * Attention over the pixels of a map that is linear in their number, without norm and residual:
 * out = q (softmax over pixels of k)^T v. Shen et al. 2018, arXiv:1812.01243; names and the missing
 * residual are those of CompVis/latent-diffusion ldm/modules/attention.py (LinearAttention, one head).
 */
export function linearMapAttention(scope: ParamScope, channels: number): Layer {
  const project = linear(scope.child("to_qkv"), { in: channels, out: 3 * channels, bias: false });
  const out = linear(scope.child("to_out"), { in: channels, out: channels });
  return (x) => {
    const [B, H, W, C] = x.shape as [number, number, number, number];
    const [q, k, v] = split(project(x.reshape([B, H * W, C])), 3, 2) as [Tensor, Tensor, Tensor];
    const weights = softmax(k.transpose([0, 2, 1])); // (B, C, H W), each row over the pixels
    const y = out(matmul(q, matmul(weights, v))).reshape([B, H, W, C]);
    x.trace.record(scope.path, y);
    return y;
  };
}
