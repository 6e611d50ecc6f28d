// The network configurations of the VQ-Diffusion cases in our words.
import { checkFields, flag, limits, listOf, oneOf, real, whole } from "../models/check-config.js";
import type { Rules } from "../models/check-config.js";
import type { AdaptiveNormKind } from "../nn/adaln.js";
import type { VqTransformerCondition, VqTransformerConfig } from "../models/vq-transformer.js";
import { maybe } from "./adm-models.js";

export interface GoldenTransformer {
  kind: "text" | "class" | "uncond";
  n_layer: number;
  n_embd: number;
  n_head: number;
  mlp_hidden_times: number;
  block_activate: "GELU" | "GELU2";
  timestep_type: string;
  class_type?: string;
  class_number?: number;
  mlp_type: "fc" | "conv_mlp";
  hw: [number, number];
  K: number;
  cond_dim?: number;
  pos_emb_type?: "embedding" | "parameter";
}

const count = whole(1, limits.width);

const adaptiveNorm = oneOf("adalayernorm", "adalayernorm_abs", "adainsnorm", "adainsnorm_abs");

const rules: Rules = {
  kind: oneOf("text", "class", "uncond"),
  n_layer: whole(1, limits.layers),
  n_embd: count,
  n_head: count,
  mlp_hidden_times: real(1 / 64, 64),
  block_activate: oneOf("GELU", "GELU2"),
  timestep_type: oneOf("adalayernorm", "adalayernorm_abs"),
  class_type: maybe(adaptiveNorm),
  class_number: maybe(count),
  mlp_type: oneOf("fc", "conv_mlp"),
  hw: listOf(whole(1, limits.side), 2, 2),
  K: whole(1, limits.codes),
  cond_dim: maybe(count),
  /** Length of the condition, which the case's tensors have. */
  cond_len: maybe(count),
  pos_emb_type: maybe(oneOf("embedding", "parameter")),
  /** Nothing is dropped in evaluation. */
  attn_pdrop: maybe(real(0, 1)),
  resid_pdrop: maybe(real(0, 1)),
};

/** What a model that is told classes has to say of them. */
const classRules: Rules = { ...rules, class_type: adaptiveNorm, class_number: count };

/** Options of each kind's loss. */
export const lossRules: Rules = {
  auxiliary_loss_weight: real(-1e6, 1e6),
  adaptive_auxiliary_loss: flag,
  mask_weight: listOf(real(-1e6, 1e6), 2, 2),
};

const normOf = (type: string): AdaptiveNormKind =>
  type.startsWith("adainsnorm") ? "instance" : "layer";

const featuresOf = (type: string): "learned" | "sinusoid" =>
  type.endsWith("abs") ? "sinusoid" : "learned";

const conditions: Readonly<
  Record<
    GoldenTransformer["kind"],
    (config: GoldenTransformer) => VqTransformerCondition | undefined
  >
> = {
  text: ({ cond_dim: width }) => ({ kind: "text", width: width! }),
  class: ({ class_number: classes, class_type: type }) => ({
    kind: "class",
    classes: classes!,
    norm: normOf(type!),
    features: featuresOf(type!),
  }),
  uncond: () => undefined,
};

/** VqTransformerConfig of a golden transformer with `timesteps` of its process. */
export function transformerConfig(
  config: GoldenTransformer,
  timesteps: number,
): VqTransformerConfig {
  checkFields("transformer", config, config.kind === "class" ? classRules : rules);
  const condition = conditions[config.kind](config);
  return {
    codes: config.K,
    grid: config.hw,
    width: config.n_embd,
    layers: config.n_layer,
    heads: config.n_head,
    mlpRatio: config.mlp_hidden_times,
    mlp: config.mlp_type === "conv_mlp" ? "conv" : "linear",
    activation: config.block_activate === "GELU2" ? "quickGelu" : "gelu",
    timesteps,
    timeNorm: normOf(config.timestep_type),
    timeFeatures: featuresOf(config.timestep_type),
    ...(config.pos_emb_type && { positionKind: config.pos_emb_type }),
    ...(condition && { condition }),
  };
}
