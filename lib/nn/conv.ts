// Convolutions on channels-last maps, and the down- and upsampling of the taming family.
import type { Init } from "../ir/param.js";
import { conv2d as convolve } from "../trace/functions.js";
import { fanInUniform } from "./init.js";
import type { Layer } from "./linear.js";
import type { ParamScope } from "./module.js";

/** Top, bottom, left, right. */
export type Padding = readonly [number, number, number, number];

export interface Conv2dLayerOptions {
  in: number;
  out: number;
  /** Side of the square kernel; default 3. */
  kernel?: number;
  /** Default 1. */
  stride?: number;
  /** A number pads all sides; default keeps the size of an odd kernel at stride 1. */
  padding?: number | Padding;
  /** Nearest upsampling in front of the convolution; default 1. */
  upsample?: 1 | 2;
  /** Default true. */
  bias?: boolean;
  weightInit?: Init;
  biasInit?: Init;
}

/** Convolution with weight (kernel, kernel, in, out). */
export function conv2d(scope: ParamScope, options: Conv2dLayerOptions): Layer {
  const { in: channels, out, kernel = 3, stride = 1, upsample = 1, bias = true } = options;
  const { padding = (kernel - 1) / 2 } = options;
  const fanIn = channels * kernel * kernel;
  const { weightInit = fanInUniform(fanIn), biasInit = fanInUniform(fanIn) } = options;
  const weight = scope.param("weight", [kernel, kernel, channels, out], weightInit);
  const offset = bias ? scope.param("bias", [out], biasInit) : undefined;
  const sides: Padding =
    typeof padding === "number" ? [padding, padding, padding, padding] : padding;
  return (x) => {
    const product = convolve(x, x.trace.parameter(weight), {
      stride: [stride, stride],
      padding: sides,
      upsample,
    });
    const y = offset ? product.add(x.trace.parameter(offset)) : product;
    x.trace.record(scope.path, y);
    return y;
  };
}

const recorded =
  (scope: ParamScope, layer: Layer): Layer =>
  (x) => {
    const y = layer(x);
    x.trace.record(scope.path, y);
    return y;
  };

/** Halves the size: one row and column of zeros at the bottom and right, then 3x3 with stride 2. */
export const downsample = (scope: ParamScope, channels: number): Layer =>
  recorded(
    scope,
    conv2d(scope.child("conv"), { in: channels, out: channels, stride: 2, padding: [0, 1, 0, 1] }),
  );

/** Doubles the size: nearest neighbour, then 3x3. */
export const upsample = (scope: ParamScope, channels: number): Layer =>
  recorded(scope, conv2d(scope.child("conv"), { in: channels, out: channels, upsample: 2 }));
