// Codebook of 4M's tokenizers: codes are moving averages of unit vectors, searched by cosine and returned as stored, so
// they are near unit length but not exactly. Topology and state names of apple/ml-4m
// fourm/vq/quantizers/quantize_lucid.py. Source: Yu et al. 2022, arXiv:2110.04627, section 3.2.
import type { ParamSpec } from "../ir/param.js";
import { normal, zeros } from "../nn/init.js";
import type { ParamScope } from "../nn/module.js";
import { nearestCodes, scatterAdd, stopGradient, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, flag, limits, oneOf, optional, real, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";
import {
  quantisedBy,
  readState,
  rows,
  unitLength,
  updatedAverages,
  type VectorQuantizer,
} from "./vector-quantizer.js";

export interface SphericalCodebookConfig {
  /** Codebook entries K. */
  codes: number;
  /** Width of a code. */
  width: number;
  /** "cosine" compares directions and averages unit vectors; "euclidean" does neither. Default "cosine". */
  metric?: "cosine" | "euclidean";
  /** Unit length for latents before they are compared, replaced and charged; default false. */
  unitLatents?: boolean;
  /** Weight of the commitment loss; default 1. */
  commitment?: number;
  /** Decay of the moving averages; default 0.99. */
  decay?: number;
}

/** Codes are kept by moving averages; `lookup` gives them as stored. */
export interface SphericalCodebook extends Omit<VectorQuantizer, "config" | "averages"> {
  readonly config: SphericalCodebookConfig;
  /** The other state: how often codes are used and, with "euclidean", sums of their latents. */
  readonly averages: { counts: ParamSpec; sums?: ParamSpec };
}

const rules: Readonly<Record<keyof SphericalCodebookConfig, Rule>> = {
  codes: whole(1, limits.codes),
  width: whole(1, limits.width),
  metric: optional(oneOf("cosine", "euclidean")),
  unitLatents: optional(flag),
  commitment: optional(real(0, 1e6)),
  decay: optional(real(0, 1)),
};

interface Averages {
  codebook: Tensor;
  counts: Tensor;
}

/**
 * One step of the averages of unit vectors: a code that was used moves towards the direction of the mean of its unit
 * latents, one that was not towards its own direction.
 */
function averageDirections(
  { codebook, counts }: Averages,
  latents: Tensor,
  indices: Tensor,
  decay: number,
): Averages {
  const K = codebook.shape[0]!;
  const flat = stopGradient(unitLength(rows(latents)));
  const ids = indices.reshape([indices.size]);
  const one = latents.trace.constant(1).broadcastTo([ids.size]);
  const hits = scatterAdd(one, ids, { axis: 0, size: K });
  const sums = scatterAdd(flat, ids, { axis: 0, size: K });
  const used = hits.greater(0).reshape([K, 1]);
  const target = where(used, unitLength(sums), unitLength(codebook));
  const average = (old: Tensor, fresh: Tensor): Tensor => old.mul(decay).add(fresh.mul(1 - decay));
  return { codebook: average(codebook, target), counts: average(counts, hits) };
}

export function sphericalCodebook(
  scope: ParamScope,
  config: SphericalCodebookConfig,
): SphericalCodebook {
  checkFields("sphericalCodebook", config, rules);
  const { codes: K, width: D, metric = "cosine", unitLatents = false } = config;
  const { commitment = 1, decay = 0.99 } = config;
  const isCosine = metric === "cosine";
  const counts = scope.state("cluster_size", [K], zeros);
  const start = normal(1 / Math.sqrt(D));
  const codebook = scope.state("embed", [K, D], start);
  const sums = isCosine ? undefined : scope.state("embed_avg", [K, D], start);
  const compared = (latents: Tensor): Tensor => (unitLatents ? unitLength(latents) : latents);
  const indices = (latents: Tensor): Tensor =>
    nearestCodes(rows(compared(latents)), readState(latents.trace, codebook), { metric }).reshape(
      latents.shape.slice(0, -1),
    );
  const lookup = (tokens: Tensor): Tensor => readState(tokens.trace, codebook).gather(tokens, 0);
  return {
    config,
    codebook,
    averages: { counts, ...(sums && { sums }) },
    indices,
    lookup,
    quantise(latents) {
      const z = compared(latents);
      const ids = indices(latents);
      const chosen = lookup(ids);
      const loss = stopGradient(chosen).sub(z).square().mean().mul(commitment);
      return quantisedBy(scope, z, chosen, { indices: ids, loss });
    },
    updates(latents, ids) {
      if (sums)
        return updatedAverages({ codebook, counts, sums }, compared(latents), ids, { decay });
      const t = latents.trace;
      const state = { codebook: readState(t, codebook), counts: readState(t, counts) };
      const next = averageDirections(state, latents, ids, decay);
      return { [codebook.name]: next.codebook, [counts.name]: next.counts };
    },
  };
}
