// Embedding of the noise level: sinusoids and a small network. Source: Dhariwal and Nichol 2021,
// arXiv:2105.05233; names of facebookresearch/DiT models.py.
import { silu } from "../trace/functions.js";
import { sinusoid } from "./embedding.js";
import { normal, zeros } from "./init.js";
import { linear } from "./linear.js";
import type { Layer } from "./linear.js";
import type { ParamScope } from "./module.js";

export interface TimestepEmbeddingOptions {
  width: number;
  /** Sinusoids, cosines first; default 256. */
  features?: number;
}

/** Times f32 or i32 (B) -> (B, width). */
export function timestepEmbedding(
  scope: ParamScope,
  { width, features = 256 }: TimestepEmbeddingOptions,
): Layer {
  const place = scope.child("mlp");
  const weights = { weightInit: normal(0.02), biasInit: zeros };
  const first = linear(place.child(0), { in: features, out: width, ...weights });
  const second = linear(place.child(2), { in: width, out: width, ...weights });
  return (times) => {
    const y = second(silu(first(sinusoid(times.cast("f32"), { width: features }))));
    times.trace.record(scope.path, y);
    return y;
  };
}
