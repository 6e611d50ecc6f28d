// Embedding of a diffusion time: sinusoids and a small network. Source: Ho et al. 2020,
// arXiv:2006.11239, appendix B.
import type { Tensor } from "../trace/tensor.js";
import { sinusoid } from "./embedding.js";
import type { SinusoidOptions } from "./embedding.js";
import type { LinearInits } from "./init.js";
import { linear } from "./linear.js";
import type { ParamScope } from "./module.js";

/** How the two linear layers of an embedding are called and start. */
export interface SiluMlpOptions {
  /** Default "0" and "2", their places in a sequence. */
  names?: readonly [string, string];
  /** Default: uniform within 1 / sqrt(in). */
  inits?: LinearInits;
}

/** Linear, silu, linear. */
export function siluMlp(
  scope: ParamScope,
  widths: { in: number; out: number },
  { names = ["0", "2"], inits }: SiluMlpOptions = {},
): (x: Tensor) => Tensor {
  const { in: from, out: to } = widths;
  const first = linear(scope.child(names[0]), { ...widths, ...inits?.(from, to) });
  const second = linear(scope.child(names[1]), { in: to, out: to, ...inits?.(to, to) });
  return (x) => {
    const y = second(first(x).silu());
    x.trace.record(scope.path, y);
    return y;
  };
}

export interface TimeEmbeddingOptions extends SinusoidOptions, SiluMlpOptions {
  out: number;
}

/** Timesteps (B), i32 or fractional f32 -> (B, out). */
export function timeEmbedding(
  scope: ParamScope,
  { out, names, inits, ...sinusoids }: TimeEmbeddingOptions,
): (times: Tensor) => Tensor {
  const mlp = siluMlp(
    scope,
    { in: sinusoids.width, out },
    { ...(names && { names }), ...(inits && { inits }) },
  );
  return (times) => mlp(sinusoid(times.cast(times.trace.dtype), sinusoids));
}
