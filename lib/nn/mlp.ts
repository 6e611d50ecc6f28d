// The two-layer network of a transformer block, plain or gated.
import { silu } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { xavierLinear } from "./init.js";
import type { LinearInits } from "./init.js";
import { linear } from "./linear.js";
import type { Layer } from "./linear.js";
import type { ParamScope } from "./module.js";

export interface MlpOptions {
  in: number;
  hidden: number;
  /** Default `in`. */
  out?: number;
  /** Default true. */
  bias?: boolean;
  /** Default Glorot uniform. */
  inits?: LinearInits;
  /** Of the last layer; default `inits`. */
  lastInits?: LinearInits;
}

interface Widths {
  up: { in: number; out: number; bias: boolean } & ReturnType<LinearInits>;
  down: { in: number; out: number; bias: boolean } & ReturnType<LinearInits>;
}

function layersOf({ in: width, hidden, out = width, bias = true, ...options }: MlpOptions): Widths {
  const { inits = xavierLinear, lastInits = inits } = options;
  return {
    up: { in: width, out: hidden, bias, ...inits(width, hidden) },
    down: { in: hidden, out, bias, ...lastInits(hidden, out) },
  };
}

/** Parameters "fc1" and "fc2" with an activation between. */
export function mlp(
  scope: ParamScope,
  activation: (x: Tensor) => Tensor,
  options: MlpOptions,
): Layer {
  const layers = layersOf(options);
  const up = linear(scope.child("fc1"), layers.up);
  const down = linear(scope.child("fc2"), layers.down);
  return (x) => {
    const y = down(activation(up(x)));
    x.trace.record(scope.path, y);
    return y;
  };
}

/**
 * Shazeer 2020, arXiv:2002.05202, eq. 6: silu(x G) * (x U) to the output; parameters "fc1_g",
 * "fc1_x" and "fc2" as in timm.
 */
export function swiglu(scope: ParamScope, options: MlpOptions): Layer {
  const layers = layersOf(options);
  const gate = linear(scope.child("fc1_g"), layers.up);
  const up = linear(scope.child("fc1_x"), layers.up);
  const down = linear(scope.child("fc2"), layers.down);
  return (x) => {
    const y = down(silu(gate(x)).mul(up(x)));
    x.trace.record(scope.path, y);
    return y;
  };
}
