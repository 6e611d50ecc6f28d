// Codes drawn by a Gumbel-softmax over logits of the latents. Sources: Jang et al. 2016, arXiv:1611.01144; GumbelQuantize
// of CompVis/taming-transformers taming/modules/vqvae/quantize.py.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { normal } from "../nn/init.js";
import { linear } from "../nn/linear.js";
import type { ParamScope } from "../nn/module.js";
import { argMax, matmul, oneHot, softmax, stopGradient } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, flag, limits, oneOf, optional, real, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";
import { straightThrough } from "./vector-quantizer.js";
import type { Quantised, VectorQuantizer } from "./vector-quantizer.js";

export interface GumbelQuantizerConfig {
  kind: "gumbel";
  /** Codebook entries K. */
  codes: number;
  /** Width of a code and of the latents. */
  width: number;
  /** Weight of the KL divergence to the uniform distribution; default 5e-4. */
  klWeight?: number;
  /** Divides the noisy logits; default 1. The release went from 0.9 down to 1e-6 along a cosine. */
  temperature?: number;
  /**
   * Codes are whole in the forward pass while gradients are those of the probabilities, in quantiseWith; `quantise`
   * always does so. Default true.
   */
  straightThrough?: boolean;
}

export interface GumbelOptions {
  /** Gumbel noise (…, K); default none, which gives the most likely codes. */
  noise?: Tensor;
  /** A number or a scalar; default: the configuration's. */
  temperature?: Tensor | number;
  /** Whole codes with the gradient of the probabilities; default: the configuration's straightThrough. */
  hard?: boolean;
}

export interface GumbelQuantizer extends VectorQuantizer {
  readonly config: GumbelQuantizerConfig;
  /** Latents (…, D) -> logits (…, K). */
  logits(latents: Tensor): Tensor;
  /** One draw from given noise: z_q, ids and the weighted KL term as the loss. */
  quantiseWith(latents: Tensor, options: GumbelOptions): Quantised;
  /** Ids of one draw from given Gumbel noise (…, K): what the reference does even when it only encodes. */
  sample(latents: Tensor, noise: Tensor): Tensor;
}

const rules: Readonly<Record<keyof GumbelQuantizerConfig, Rule>> = {
  kind: oneOf("gumbel"),
  codes: whole(1, limits.codes),
  width: whole(1, limits.width),
  klWeight: optional(real(0, 1e6)),
  temperature: optional(real(1e-9, 1e6)),
  straightThrough: optional(flag),
};

/** Inside the logarithm of the KL term, as in the reference. */
const kLogGuard = 1e-10;

/**
 * KL of softmax(logits) to the uniform distribution over K codes, sum over codes and mean over places: sum q ln(q K +
 * 1e-10). No noise and no temperature enter.
 */
function uniformDivergence(logits: Tensor): Tensor {
  const K = logits.shape.at(-1)!;
  const q = softmax(logits);
  return q
    .mul(q.mul(K).add(kLogGuard).log())
    .sum([logits.rank - 1])
    .mean();
}

export function gumbelQuantizer(scope: ParamScope, config: GumbelQuantizerConfig): GumbelQuantizer {
  checkFields("gumbelQuantizer", config, rules);
  const { codes: K, width: D, klWeight = 5e-4 } = config;
  const project = linear(scope.child("proj"), { in: D, out: K });
  const codebook: ParamSpec = scope.child("embed").param("weight", [K, D], normal(1));

  const quantiseWith = (latents: Tensor, options: GumbelOptions): Quantised => {
    const { temperature = config.temperature ?? 1, hard = config.straightThrough ?? true } =
      options;
    const t = latents.trace;
    const logits = project(latents);
    const scores = options.noise ? logits.add(options.noise) : logits;
    const soft = softmax(scores.div(temperature));
    const indices = argMax(scores);
    const share = hard ? straightThrough(soft, oneHot(indices, K)) : soft;
    const rows = share.reshape([share.size / K, K]);
    const quantised = matmul(rows, t.parameter(codebook)).reshape(latents.shape);
    t.record(scope.path, quantised);
    const compared = stopGradient(latents.reshape([latents.size / D, D]));
    const chosen = stopGradient(t.parameter(codebook).gather(indices.reshape([indices.size]), 0));
    return {
      quantised,
      indices,
      loss: uniformDivergence(logits).mul(klWeight),
      compared,
      errors: compared.sub(chosen).square().sum([1]),
    };
  };

  return {
    config,
    codebook,
    logits: project,
    quantiseWith,
    quantise: (latents) => quantiseWith(latents, { hard: true }),
    indices: (latents) => argMax(project(latents)),
    sample: (latents, noise) => argMax(project(latents).add(noise)),
    lookup: (tokens) => tokens.trace.parameter(codebook).gather(tokens, 0),
    updates() {
      throw new DiffusionError(
        "option",
        'gumbelQuantizer: expected codebook "ema" to update averages, got a Gumbel quantizer',
      );
    },
  };
}
