// Self-attention with one projection to queries, keys and values, as in the vision transformers.
// Source: Vaswani et al. 2017, arXiv:1706.03762.
import { attention as attend } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { xavierLinear } from "./init.js";
import type { LinearInits } from "./init.js";
import { linear } from "./linear.js";
import type { ParamScope } from "./module.js";
import { splitHeads } from "./qkv-attention.js";

export interface FusedAttentionOptions {
  width: number;
  heads: number;
  /** Key m is visible to query n when m <= n; default false. */
  causal?: boolean;
  /** Of the first projection; default true. */
  qkvBias?: boolean;
  /** Default Glorot uniform. */
  inits?: LinearInits;
}

/** Queries, keys and values, each (B, N, heads, width / heads). */
export type Heads = [query: Tensor, key: Tensor, value: Tensor];

export interface FusedAttentionCall {
  /** Additive, broadcastable to (B, heads, N, N). */
  mask?: Tensor;
  /** Norms and rotations before the heads meet; default nothing. */
  prepare?: (heads: Heads) => Heads;
  /** What happens to (B, N, width) before the last projection; default nothing. */
  finish?: (mixed: Tensor) => Tensor;
}

/** (B, N, width) -> (B, N, width). */
export type FusedAttention = (x: Tensor, call?: FusedAttentionCall) => Tensor;

/** Parameters "qkv" (queries, keys, values in this order, heads inside each) and "proj". */
export function fusedAttention(scope: ParamScope, options: FusedAttentionOptions): FusedAttention {
  const { width, heads, causal = false, qkvBias = true, inits = xavierLinear } = options;
  const qkv = linear(scope.child("qkv"), {
    in: width,
    out: 3 * width,
    bias: qkvBias,
    ...inits(width, 3 * width),
  });
  const out = linear(scope.child("proj"), { in: width, out: width, ...inits(width, width) });
  return (x, { mask, prepare, finish } = {}) => {
    const [B, N, D] = x.shape as [number, number, number];
    const all = splitHeads(qkv(x), heads, "qkv-first") as Heads;
    const [q, k, v] = prepare ? prepare(all) : all;
    const mixed = attend(q, k, v, {
      scale: 1 / Math.sqrt(D / heads),
      causal,
      ...(mask && { mask }),
    });
    const joined = mixed.out.reshape([B, N, D]);
    const y = out(finish ? finish(joined) : joined);
    x.trace.record(scope.path, y);
    return y;
  };
}
