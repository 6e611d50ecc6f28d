// The network configurations of the VQ-Diffusion cases in our words.
import type { AdaptiveNormKind } from "../nn/adaln.js";
import type { VqTransformerCondition, VqTransformerConfig } from "../models/vq-transformer.js";

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

const normOf = (type: string): AdaptiveNormKind =>
  type.startsWith("adainsnorm") ? "instance" : "layer";

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
  }),
  uncond: () => undefined,
};

/** VqTransformerConfig of a golden transformer with `timesteps` of its process. */
export function transformerConfig(
  config: GoldenTransformer,
  timesteps: number,
): VqTransformerConfig {
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
    timeFeatures: config.timestep_type.endsWith("abs") ? "sinusoid" : "learned",
    ...(config.pos_emb_type && { positionKind: config.pos_emb_type }),
    ...(condition && { condition }),
  };
}
