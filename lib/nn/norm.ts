// Normalisation layers with their affine parameters.
import {
  groupNorm as normaliseGroups,
  layerNorm as normaliseLayer,
  rmsNorm as normaliseRms,
} from "../trace/functions.js";
import { ones, zeros } from "./init.js";
import type { Layer } from "./linear.js";
import type { ParamScope } from "./module.js";
import type { Tensor } from "../trace/tensor.js";

export interface GroupNormOptions {
  channels: number;
  /** Default 32. */
  groups?: number;
  /** Default 1e-6 (VQGAN and KL autoencoders; ADM U-Nets use 1e-5). */
  eps?: number;
  /** Activation that is part of the same pass; default "none". */
  activation?: "none" | "silu";
}

/**
 * Wu and He 2018, arXiv:1803.08494. The tap is the output before the activation; it costs nothing
 * when nobody reads it.
 */
export function groupNorm(scope: ParamScope, options: GroupNormOptions): Layer {
  const { channels, groups = 32, eps = 1e-6, activation = "none" } = options;
  const gamma = scope.param("weight", [channels], ones);
  const beta = scope.param("bias", [channels], zeros);
  return (x) => {
    const t = x.trace;
    const normalise = (activate: "none" | "silu"): Tensor =>
      normaliseGroups(x, t.parameter(gamma), t.parameter(beta), {
        groups,
        eps,
        activation: activate,
      });
    t.record(scope.path, normalise("none"));
    return normalise(activation);
  };
}

/** Ba et al. 2016, arXiv:1607.06450, with scale and shift vectors; eps 1e-5 unless given. */
export function layerNorm(
  scope: ParamScope,
  { width, eps = 1e-5 }: { width: number; eps?: number },
): Layer {
  const gamma = scope.param("weight", [width], ones);
  const beta = scope.param("bias", [width], zeros);
  return (x) => {
    const t = x.trace;
    const y = normaliseLayer(x, {
      scale: t.parameter(gamma),
      shift: t.parameter(beta),
      eps,
      affine: "shared",
    });
    t.record(scope.path, y);
    return y;
  };
}

/** Zhang and Sennrich 2019, arXiv:1910.07467. */
export function rmsNorm(
  scope: ParamScope,
  { width, eps = 1e-6 }: { width: number; eps?: number },
): Layer {
  const gamma = scope.param("weight", [width], ones);
  return (x) => {
    const y = normaliseRms(x, x.trace.parameter(gamma), { eps });
    x.trace.record(scope.path, y);
    return y;
  };
}
