// Embedding of a diffusion time: sinusoids and a small network. Source: Ho et al. 2020,
// arXiv:2006.11239, appendix B.
import type { Tensor } from "../trace/tensor.js";
import { sinusoid } from "./embedding.js";
import type { SinusoidOptions } from "./embedding.js";
import { linear } from "./linear.js";
import type { ParamScope } from "./module.js";

/** Linear, silu, linear on scopes `names` (default "0" and "2", their places in a sequence). */
export function siluMlp(
  scope: ParamScope,
  widths: { in: number; out: number },
  names: readonly [string, string] = ["0", "2"],
): (x: Tensor) => Tensor {
  const first = linear(scope.child(names[0]), widths);
  const second = linear(scope.child(names[1]), { in: widths.out, out: widths.out });
  return (x) => {
    const y = second(first(x).silu());
    x.trace.record(scope.path, y);
    return y;
  };
}

export interface TimeEmbeddingOptions extends SinusoidOptions {
  out: number;
  names?: readonly [string, string];
}

/** Timesteps (B), i32 or fractional f32 -> (B, out). */
export function timeEmbedding(
  scope: ParamScope,
  { out, names, ...sinusoids }: TimeEmbeddingOptions,
): (times: Tensor) => Tensor {
  const mlp = siluMlp(scope, { in: sinusoids.width, out }, names);
  return (times) => mlp(sinusoid(times.cast(times.trace.dtype), sinusoids));
}
