// Linear layers, which are also the 1x1 convolutions of channels-last maps.
import type { Init } from "../ir/param.js";
import { matmul } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { fanInUniform } from "./init.js";
import type { ParamScope } from "./module.js";

export interface LinearOptions {
  in: number;
  out: number;
  /** Default true. */
  bias?: boolean;
  /** Default: uniform within 1 / sqrt(in). */
  weightInit?: Init;
  biasInit?: Init;
}

export type Layer = (x: Tensor) => Tensor;

/** y = x W + b with W (in, out), on the last axis of x. */
export function linear(scope: ParamScope, options: LinearOptions): Layer {
  const {
    in: width,
    out,
    bias = true,
    weightInit = fanInUniform(width),
    biasInit = fanInUniform(width),
  } = options;
  const weight = scope.param("weight", [width, out], weightInit);
  const offset = bias ? scope.param("bias", [out], biasInit) : undefined;
  return (x) => {
    const product = matmul(x, x.trace.parameter(weight));
    const y = offset ? product.add(x.trace.parameter(offset)) : product;
    x.trace.record(scope.path, y);
    return y;
  };
}
