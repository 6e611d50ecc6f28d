// Normalisation whose scale and shift come from an index (timestep or class). The scale-shift table
// of all indices depends on the weights only, so a compiled program computes it once and each run
// gathers a row a sample.
import { concat, groupNorm, layerNorm, matmul, silu } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { normal, zeros } from "./init.js";
import type { ParamScope } from "./module.js";

export type AdaptiveNormKind = "layer" | "instance";

export interface AdaptiveNormOptions {
  width: number;
  /** Rows of the table: timesteps or classes. */
  count: number;
  /** Statistics over the features of a token, or over the tokens of a feature. Default "layer". */
  norm?: AdaptiveNormKind;
  /**
   * "learned": a table of its own. "given": the (count, width) features are passed at the call.
   * Default "learned".
   */
  features?: "learned" | "given";
  /**
   * Index `count` selects the mean of the learned table: the null class of a model without one.
   * Default false.
   */
  meanRow?: boolean;
  /** Default 1e-5. */
  eps?: number;
}

/** (x (B, N, D), index (B), features (count, D) when given) -> (B, N, D). */
export type AdaptiveNorm = (x: Tensor, index: Tensor, features?: Tensor) => Tensor;

/** (B, N, D) normalised over the tokens of each feature. */
function instanceNorm(x: Tensor, eps: number): Tensor {
  const D = x.shape.at(-1)!;
  const one = x.trace.constant(1, [D]);
  return groupNorm(x, one, x.trace.constant(0, [D]), { groups: D, eps, activation: "none" });
}

/**
 * Gu et al. 2021, arXiv:2111.14822, eq. 12 (AdaLN): norm(x) (1 + scale) + shift, [scale | shift] =
 * W silu(E[index]) + b; the order and the mean row are those of microsoft/VQ-Diffusion
 * transformer_utils.py.
 */
export function adaptiveNorm(scope: ParamScope, options: AdaptiveNormOptions): AdaptiveNorm {
  const {
    width,
    count,
    norm = "layer",
    features: kind = "learned",
    meanRow = false,
    eps = 1e-5,
  } = options;
  const table =
    kind === "learned"
      ? scope.child("emb").param("weight", [count, width], normal(0.02))
      : undefined;
  const weight = scope.child("linear").param("weight", [width, 2 * width], normal(0.02));
  const bias = scope.child("linear").param("bias", [2 * width], zeros);

  const allFeatures = (t: Trace, given: Tensor | undefined): Tensor => {
    if (!table) return given!;
    const rows = t.parameter(table);
    return meanRow ? concat([rows, rows.mean([0], true)], 0) : rows;
  };

  return (x, index, given) => {
    const t = x.trace;
    const B = x.shape[0]!;
    const scaleShift = matmul(silu(allFeatures(t, given)), t.parameter(weight)).add(
      t.parameter(bias),
    );
    const rows = scaleShift.gather(index, 0); // (B, 2 D)
    const scale = rows.slice([0, 0], [B, width]);
    const shift = rows.slice([0, width], [B, width]);
    const y =
      norm === "layer"
        ? layerNorm(x, { scale, shift, eps, affine: "modulate" })
        : instanceNorm(x, eps)
            .mul(scale.reshape([B, 1, width]).add(1))
            .add(shift.reshape([B, 1, width]));
    t.record(scope.path, y);
    return y;
  };
}
