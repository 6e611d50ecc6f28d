// Vector quantisation of latents: nearest code, straight-through gradient, codebook losses,
// moving-average and cosine variants, remapping to used codes. Sources: van den Oord et al. 2017,
// arXiv:1711.00937; CompVis/taming-transformers taming/modules/vqvae/quantize.py;
// microsoft/VQ-Diffusion ema_vqvae; Yu et al. 2022, arXiv:2110.04627 (cosine codes); Chou, Lookabaugh and Gray 1989 (rate).
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { normal, ones } from "../nn/init.js";
import type { ParamScope } from "../nn/module.js";
import { uniformStream } from "../nn/random.js";
import { concat, nearestCodes, scatterAdd, stopGradient } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { checkFields, flag, limits, oneOf, optional, real, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";

export interface VectorQuantizerConfig {
  /** Codebook entries K. */
  codes: number;
  /** Width of a code. */
  width: number;
  /**
   * "gradient": the codebook is a parameter; "ema": state kept by moving averages. Default
   * "gradient".
   */
  codebook?: "gradient" | "ema";
  /** "cosine" normalises latents and codes to unit length. Default "euclidean". */
  metric?: "euclidean" | "cosine";
  /** Weight in the codebook loss; default 0.25. */
  beta?: number;
  /**
   * Beta multiplies the codebook term instead of the commitment term, as all released models did.
   * Default true.
   */
  legacyBeta?: boolean;
  /** Decay of the moving averages; default 0.99. */
  decay?: number;
  /** Smoothing of the counts; default 1e-5. */
  eps?: number;
  /**
   * Squared distance that one bit of code length is worth when a code is chosen; default 0. Above 0, latents that differ
   * little, as those of plain background, share one code. Chou, Lookabaugh and Gray 1989, entropy-constrained vector
   * quantization: argmin_k |z - e_k|^2 - rateWeight log2 p_k, p from the moving counts. Only for codebook "ema" and
   * metric "euclidean".
   */
  rateWeight?: number;
}

export interface Quantised {
  /** (…, D), with the gradient passed straight through to the latents. */
  quantised: Tensor;
  /** Code of each latent, i32, shaped like the latents without their last axis. */
  indices: Tensor;
  /** Scalar codebook loss. */
  loss: Tensor;
  /** (rows, D): latents as they are compared with the codes, one a row. */
  compared: Tensor;
  /** (rows): squared distance of each to its code. */
  errors: Tensor;
}

/** Codebook state of the moving-average variant. */
export interface CodebookState {
  codebook: Tensor;
  counts: Tensor;
  sums: Tensor;
}

export interface VectorQuantizer {
  /** Entries of the codebook and their width. */
  readonly config: { readonly codes: number; readonly width: number };
  /** Name of the codebook: a parameter, or state when kept by moving averages. */
  readonly codebook: ParamSpec;
  /** Name of the other state of the moving-average variant. */
  readonly averages?: { counts: ParamSpec; sums: ParamSpec };
  quantise(latents: Tensor): Quantised;
  /** Nearest codes only, same shape as latents without the last axis. */
  indices(latents: Tensor): Tensor;
  /** Code vectors of token ids: (...) -> (..., D). */
  lookup(tokens: Tensor): Tensor;
  /**
   * New moving averages after a batch; only for codebook "ema". Keys are state names, for TrainStep
   * updates.
   */
  updates(latents: Tensor, indices: Tensor): Record<string, Tensor>;
}

const kUnitEps = 1e-12;

/** Rows scaled to unit length. */
export function unitLength(x: Tensor): Tensor {
  const last = x.rank - 1;
  return x.div(x.square().sum([last], true).sqrt().maximum(kUnitEps));
}

/** (…, D) -> (rows, D). */
export const rows = (latents: Tensor): Tensor => {
  const D = latents.shape.at(-1)!;
  return latents.reshape([latents.size / D, D]);
};

/**
 * van den Oord et al. 2017, eq. 3 without the reconstruction: ||sg[z] - e||^2 + beta ||z -
 * sg[e]||^2, means over all elements. Differs: with `legacyBeta` beta stands at the first term, as
 * in taming/modules/vqvae/quantize.py.
 */
export function codebookLoss(
  latents: Tensor,
  codes: Tensor,
  beta: number,
  legacyBeta: boolean,
): Tensor {
  const commitment = stopGradient(codes).sub(latents).square().mean();
  const codebook = codes.sub(stopGradient(latents)).square().mean();
  return legacyBeta ? commitment.add(codebook.mul(beta)) : codebook.add(commitment.mul(beta));
}

/** Value of `codes`, gradient of `latents`. */
export const straightThrough = (latents: Tensor, codes: Tensor): Tensor =>
  latents.add(stopGradient(codes.sub(latents)));

/**
 * Moving averages of a codebook: van den Oord et al. 2017, appendix A.1; counts smoothed as (N_k +
 * eps) / (N + K eps) N.
 */
export function codebookAverages(
  state: CodebookState,
  latents: Tensor,
  indices: Tensor,
  { decay = 0.99, eps = 1e-5 }: { decay?: number; eps?: number } = {},
): CodebookState {
  const K = state.codebook.shape[0]!;
  const flat = stopGradient(rows(latents));
  const flatIndices = indices.reshape([indices.size]);
  const ones = latents.trace.constant(1).broadcastTo([flatIndices.size]);
  const hits = scatterAdd(ones, flatIndices, { axis: 0, size: K });
  const added = scatterAdd(flat, flatIndices, { axis: 0, size: K });
  const average = (old: Tensor, fresh: Tensor): Tensor => old.mul(decay).add(fresh.mul(1 - decay));
  const counts = average(state.counts, hits);
  const sums = average(state.sums, added);
  const total = counts.sum();
  const smoothed = counts
    .add(eps)
    .div(total.add(K * eps))
    .mul(total);
  return { codebook: sums.div(smoothed.reshape([K, 1])), counts, sums };
}

/** States of a codebook kept by moving averages. */
type CodebookSpecs = Readonly<Record<keyof CodebookState, ParamSpec>>;

export const readState = (t: Trace, { name, shape }: ParamSpec): Tensor => t.state(name, { shape });

/** Moving averages after a batch, by the names of the states. */
export function updatedAverages(
  specs: CodebookSpecs,
  latents: Tensor,
  indices: Tensor,
  options: { decay?: number; eps?: number },
): Record<string, Tensor> {
  const names = ["codebook", "counts", "sums"] as const;
  const read = names.map((name) => [name, readState(latents.trace, specs[name])]);
  const state = Object.fromEntries(read) as unknown as CodebookState;
  const next = codebookAverages(state, latents, indices, options);
  return Object.fromEntries(names.map((name) => [specs[name].name, next[name]]));
}

/** What a quantizer answers: latents as they are compared, and the vectors of their codes, both (…, D). */
export function quantisedBy(
  scope: ParamScope,
  latents: Tensor,
  chosen: Tensor,
  { indices, loss }: Pick<Quantised, "indices" | "loss">,
): Quantised {
  const quantised = straightThrough(latents, chosen);
  latents.trace.record(scope.path, quantised);
  const compared = stopGradient(rows(latents));
  const apart = compared.sub(stopGradient(rows(chosen)));
  return { quantised, indices, loss, compared, errors: apart.square().sum([1]) };
}

/**
 * exp(-sum p ln(p + 1e-10)) of how often each code is used: K when all are used alike, 1 when one
 * is.
 */
export function perplexity(indices: Tensor, codes: number): Tensor {
  const flat = indices.reshape([indices.size]);
  const ones = indices.trace.constant(1).broadcastTo([flat.size]);
  const share = scatterAdd(ones, flat, { axis: 0, size: codes }).div(flat.size);
  return share.mul(share.add(1e-10).log()).sum().neg().exp();
}

const rules: Readonly<Record<keyof VectorQuantizerConfig, Rule>> = {
  codes: whole(1, limits.codes),
  width: whole(1, limits.width),
  codebook: optional(oneOf("gradient", "ema")),
  metric: optional(oneOf("euclidean", "cosine")),
  beta: optional(real(0, 1e6)),
  legacyBeta: optional(flag),
  decay: optional(real(0, 1)),
  eps: optional(real(0, 1)),
  rateWeight: optional(real(0, 1e6)),
};

/**
 * A column that lengthens the codes (K, D) so that their squared distance to latents lengthened by 0 grows by
 * rateWeight log2(1 / p_k). Counts below a hundredth of their mean are taken as that.
 */
function rateColumn(counts: Tensor, rateWeight: number): Tensor {
  const K = counts.shape[0]!;
  const share = counts.div(counts.sum()).clamp(0.01 / K, 1);
  return share
    .log()
    .mul(-rateWeight / Math.LN2)
    .sqrt()
    .reshape([K, 1]);
}

/** argmin_k |z - e_k|^2 + rateWeight log2(1 / p_k) for latents (rows, D): nearest codes in one more dimension. */
function cheapestCodes(
  latents: Tensor,
  codes: Tensor,
  { counts, rateWeight }: { counts: Tensor; rateWeight: number },
): Tensor {
  const zeros = latents.trace.constant(0, [latents.shape[0]!, 1]);
  return nearestCodes(
    concat([latents, zeros], 1), // (rows, D + 1)
    concat([codes, rateColumn(counts, rateWeight)], 1), // (K, D + 1)
  );
}

function checkQuantizer(config: VectorQuantizerConfig): void {
  checkFields("vectorQuantizer", config, rules);
  const { codebook = "gradient", metric = "euclidean", rateWeight = 0 } = config;
  if (rateWeight === 0 || (codebook === "ema" && metric === "euclidean")) return;
  throw new DiffusionError(
    "option",
    `vectorQuantizer: expected codebook "ema" and metric "euclidean" with rateWeight, got "${codebook}" and "${metric}"`,
  );
}

/** Where the codes are: a parameter, or states with their moving averages. */
function storedCodes(
  scope: ParamScope,
  { codes: K, width: D, codebook: kind, metric }: VectorQuantizerConfig,
): Pick<VectorQuantizer, "codebook" | "averages"> {
  const place = scope.child("embedding");
  const init =
    metric === "cosine" || kind === "ema"
      ? normal(1)
      : ({ kind: "uniform", low: -1 / K, high: 1 / K } as const);
  if (kind !== "ema") return { codebook: place.param("weight", [K, D], init) };
  const codebook = place.state("weight", [K, D], init);
  // Counts begin at one: with the reference's zeros the first update throws every unused code far away.
  const counts = place.state("cluster_size", [K], ones);
  return { codebook, averages: { counts, sums: place.state("embed_avg", [K, D], init) } };
}

export function vectorQuantizer(scope: ParamScope, config: VectorQuantizerConfig): VectorQuantizer {
  checkQuantizer(config);
  const { codebook: kind = "gradient", metric = "euclidean" } = config;
  const { beta = 0.25, legacyBeta = true, rateWeight = 0 } = config;
  const { codebook, averages } = storedCodes(scope, config);
  const unit = (x: Tensor): Tensor => (metric === "cosine" ? unitLength(x) : x);
  const stored = (t: Trace): Tensor => (averages ? readState(t, codebook) : t.parameter(codebook));
  const indices = (latents: Tensor): Tensor => {
    const t = latents.trace;
    const flat = rows(latents);
    const chosen =
      averages && rateWeight > 0
        ? cheapestCodes(flat, stored(t), { counts: readState(t, averages.counts), rateWeight })
        : nearestCodes(flat, stored(t), { metric });
    return chosen.reshape(latents.shape.slice(0, -1));
  };
  const lookup = (tokens: Tensor): Tensor => unit(stored(tokens.trace)).gather(tokens, 0);
  return {
    config,
    codebook,
    ...(averages && { averages }),
    indices,
    lookup,
    quantise(latents) {
      const z = unit(latents);
      const ids = indices(latents);
      const chosen = lookup(ids);
      const loss = averages
        ? stopGradient(chosen).sub(z).square().mean().mul(beta)
        : codebookLoss(z, chosen, beta, legacyBeta);
      return quantisedBy(scope, z, chosen, { indices: ids, loss });
    },
    updates(latents, ids) {
      if (averages) return updatedAverages({ codebook, ...averages }, unit(latents), ids, config);
      throw new DiffusionError(
        "option",
        `vectorQuantizer: expected codebook "ema" to update averages, got "${kind}"`,
      );
    },
  };
}

/** What to do with codes that the used list does not hold. */
export type UnknownIndex = "random" | "extra" | number;

/**
 * Full code ids <-> positions in a list of used codes (VectorQuantizer2.remap_to_used of
 * taming-transformers). "extra" gives unknown codes the id `used.length`; "random" any position, from `random` (numbers in
 * [0, 1), one for each unknown code in order) or, without it, from a counter hash: the same codes give the same positions.
 */
export interface CodeRemap {
  /** Tokens of the compact vocabulary. */
  readonly count: number;
  toUsed(full: Int32Array, random?: () => number): Int32Array;
  toFull(compact: Int32Array): Int32Array;
}

/** As many draws as are needed at most, the same in every call. */
function hashedDraws(count: number): () => number {
  let draws: Float64Array | undefined;
  let n = 0;
  return () => (draws ??= uniformStream(0, "unknown codes", count))[n++]!;
}

export function codeRemap(
  used: readonly number[] | Int32Array,
  unknown: UnknownIndex = "random",
): CodeRemap {
  const position = new Map<number, number>();
  used.forEach((code: number, i: number) => {
    if (!position.has(code)) position.set(code, i);
  });
  const fallback: Record<"random" | "extra", (random: () => number) => number> = {
    random: (random) => Math.floor(random() * used.length),
    extra: () => used.length,
  };
  const unknownId = typeof unknown === "number" ? () => unknown : fallback[unknown];
  return {
    count: used.length + (unknown === "extra" ? 1 : 0),
    toUsed(full, random = hashedDraws(full.length)) {
      return full.map((code) => position.get(code) ?? unknownId(random));
    },
    toFull: (compact) => compact.map((id) => used[id < used.length ? id : 0]!),
  };
}

/**
 * The reduction file of microsoft/VQ-Diffusion: a full -> compact vector with 0 for unused codes.
 * Returns, for each compact id, its first full code.
 */
export function usedCodesOfReduction(reduction: ArrayLike<number>): Int32Array {
  const first = new Map<number, number>();
  for (let full = 0; full < reduction.length; ++full) {
    if (!first.has(reduction[full]!)) first.set(reduction[full]!, full);
  }
  const used = new Int32Array(first.size);
  for (const [compact, full] of first) {
    if (compact >= first.size) {
      throw new DiffusionError(
        "checkpoint",
        `reduction: expected compact ids 0 to ${first.size - 1}, got ${compact}`,
      );
    }
    used[compact] = full;
  }
  return used;
}

export interface DeadCodeOptions {
  /** A code below this share of the mean count is dead; default 0.03. Infinity replaces all. */
  threshold?: number;
  /** Share of the mean count that a new code gets: the less, the faster it follows its latents. */
  freshShare?: number;
  /** Uniform draws in [0, 1). */
  random: () => number;
}

export interface DeadCodeReplacement {
  /** Codebook with the dead rows replaced; the input when none is dead. */
  codebook: Float32Array;
  counts: Float32Array;
  /** Ids that were replaced. */
  replaced: number[];
}

/**
 * Replaces rarely used codes by latents of the current batch. Dhariwal et al. 2020, arXiv:2005.00341, section 3.2 (random
 * restarts). Differs: a latent is drawn with its squared distance to the nearest code as weight (Arthur and Vassilvitskii
 * 2007, k-means++), so that new codes go where the codebook is poor and not where latents are many, as plain background
 * is; and a new code's count is a share of the mean (default 0.1), enough to be used before it counts as dead again.
 *
 * `errors` holds that squared distance for each latent; it does not matter when every code is replaced.
 */
export function replaceDeadCodes(
  codebook: Float32Array,
  counts: Float32Array,
  { latents, errors }: { latents: Float32Array; errors: Float32Array },
  { threshold = 0.03, freshShare = 0.1, random }: DeadCodeOptions,
): DeadCodeReplacement {
  const K = counts.length;
  const D = codebook.length / K;
  const mean = counts.reduce((sum, count) => sum + count, 0) / K;
  const replaced = [...counts.keys()].filter((k) => counts[k]! < threshold * mean);
  if (replaced.length === 0 || errors.length === 0) return { codebook, counts, replaced: [] };
  const fresh = codebook.slice();
  const freshCounts = counts.slice();
  const distances = replaced.length === K ? errors.map(() => Infinity) : errors.slice();
  for (const k of replaced) {
    const source = drawByWeight(distances, random());
    const code = latents.subarray(source * D, (source + 1) * D);
    fresh.set(code, k * D);
    freshCounts[k] = freshShare * mean;
    lowerDistances(distances, latents, code);
  }
  return { codebook: fresh, counts: freshCounts, replaced };
}

/** Index whose share of the weights holds `u`; alike likely when the weights are all infinite or all 0. */
function drawByWeight(weights: Float32Array, u: number): number {
  const total = weights.reduce((sum, w) => sum + w, 0);
  const last = weights.length - 1;
  if (total === 0 || total === Infinity) return Math.min(last, Math.floor(u * weights.length));
  let rest = u * total;
  for (let i = 0; i < last; ++i) {
    rest -= weights[i]!;
    if (rest < 0) return i;
  }
  return last;
}

/** distances[i] = min(distances[i], |latent i - code|^2), in place. */
function lowerDistances(distances: Float32Array, latents: Float32Array, code: Float32Array): void {
  const D = code.length;
  for (let i = 0; i < distances.length; ++i) {
    let sum = 0;
    for (let d = 0; d < D && sum < distances[i]!; ++d) sum += (latents[i * D + d]! - code[d]!) ** 2;
    if (sum < distances[i]!) distances[i] = sum;
  }
}
