// Configurations of huggingface/diffusers (v0.11) in our words, and its module names in ours. Every key must be known.
import { DiffusionError } from "../errors.js";
import {
  checkFields,
  flag,
  limits,
  listOf,
  oneOf,
  real,
  shown,
  whole,
} from "../models/check-config.js";
import type { Rules } from "../models/check-config.js";
import type { VqTransformerConfig } from "../models/vq-transformer.js";
import type { VqganConfig } from "../models/vqgan.js";
import { maybe, only } from "./adm-models.js";
import type { Config } from "./case.js";

const width = whole(1, limits.width);

export const transformerRules: Rules = {
  num_attention_heads: maybe(width),
  attention_head_dim: maybe(width),
  in_channels: maybe(only(null)),
  num_layers: maybe(whole(1, limits.layers)),
  dropout: maybe(real(0, 1)),
  norm_num_groups: maybe(width),
  cross_attention_dim: maybe(width),
  attention_bias: maybe(flag),
  sample_size: whole(1, limits.side),
  num_vector_embeds: whole(2, limits.codes),
  activation_fn: maybe(oneOf("geglu", "geglu-approximate", "gelu")),
  num_embeds_ada_norm: maybe(whole(1, limits.timesteps)),
  use_linear_projection: maybe(flag),
  only_cross_attention: maybe(flag),
  upcast_attention: maybe(flag),
};

const activationNames = {
  geglu: "geglu",
  "geglu-approximate": "quickGelu",
  gelu: "gelu",
} as const;

/** Transformer2DModel with discrete input. */
export function transformerConfig(where: string, c: Config): VqTransformerConfig {
  checkFields(where, c, transformerRules);
  const value = <T>(name: string, fallback: T): T => (c[name] as T | null | undefined) ?? fallback;
  const heads = value("num_attention_heads", 16);
  const side = c["sample_size"] as number;
  const timesteps = value<number | undefined>("num_embeds_ada_norm", undefined);
  const contextWidth = value<number | undefined>("cross_attention_dim", undefined);
  return {
    codes: (c["num_vector_embeds"] as number) - 1,
    grid: [side, side],
    width: heads * value("attention_head_dim", 88),
    layers: value("num_layers", 1),
    heads,
    activation: activationNames[value<keyof typeof activationNames>("activation_fn", "geglu")],
    projectionBias: value("attention_bias", false),
    onlyCrossAttention: value("only_cross_attention", false),
    ...(timesteps === undefined ? { timeFeatures: "none" } : { timesteps }),
    ...(contextWidth !== undefined && { condition: { kind: "text", width: contextWidth } }),
  };
}

const blockTypes = {
  down: ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
  up: ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"],
} as const;

const modelRules: Rules = {
  in_channels: maybe(whole(1, 64)),
  out_channels: maybe(whole(1, 64)),
  down_block_types: maybe(listOf(oneOf(...blockTypes.down), 1, 12)),
  up_block_types: maybe(listOf(oneOf(...blockTypes.up), 1, 12)),
  block_out_channels: maybe(listOf(width, 1, 12)),
  layers_per_block: maybe(whole(0, 64)),
  act_fn: maybe(oneOf("silu", "swish", "mish")),
  latent_channels: maybe(width),
  sample_size: maybe(whole(1, limits.side)),
  num_vq_embeddings: maybe(whole(1, limits.codes)),
  norm_num_groups: maybe(width),
  vq_embed_dim: maybe(width),
};

/** VQModel. Its attention goes by level; sides that single out the levels stand for them. */
export function vqModelConfig(where: string, c: Config): VqganConfig {
  checkFields(where, c, modelRules);
  const value = <T>(name: string, fallback: T): T => (c[name] as T | null | undefined) ?? fallback;
  const widths = value("block_out_channels", [64]);
  const down = value("down_block_types", ["DownEncoderBlock2D"]);
  const up = value("up_block_types", ["UpDecoderBlock2D"]);
  for (const [name, types] of Object.entries({ down_block_types: down, up_block_types: up })) {
    if (types.length === widths.length) continue;
    throw new DiffusionError(
      "option",
      `${where}: expected ${widths.length} ${name} for block_out_channels ${shown(widths)}, got ${shown(types)}`,
    );
  }
  const levels = widths.length;
  const sideOf = (level: number): number => 2 ** (levels - 1 - level);
  const attended = (types: readonly string[]): number[] =>
    types.flatMap((type, level) => (type.startsWith("Attn") ? [sideOf(level)] : []));
  const latentChannels = value("latent_channels", 3);
  const imageChannels = value("in_channels", 3);
  return {
    resolution: sideOf(0),
    imageChannels,
    outputChannels: value("out_channels", 3),
    channels: widths[0]!,
    multipliers: widths.map((each) => each / widths[0]!),
    residualBlocks: value("layers_per_block", 1),
    attentionResolutions: attended(down),
    decoderAttentionResolutions: attended([...up].reverse()),
    activation: value<string>("act_fn", "silu") === "mish" ? "mish" : "silu",
    groups: value("norm_num_groups", 32),
    latentChannels,
    quantizer: {
      codes: value("num_vq_embeddings", 256),
      width: value("vq_embed_dim", latentChannels),
    },
  };
}

type Renaming = readonly (readonly [pattern: RegExp, ours: string])[];

const rename = (name: string, rules: Renaming): string =>
  rules.reduce((ours, [pattern, to]) => ours.replace(pattern, to), name);

/** Our name of a module of Transformer2DModel. */
export const transformerModule = (name: string, hasCondition: boolean): string =>
  rename(name, [
    [/^latent_image_embedding/, "content_emb"],
    [/^norm_out$/, "to_logits.0"],
    [/^out$/, "to_logits.1"],
    [/^transformer_blocks/, "blocks"],
    [/\.norm1/, ".ln1"],
    [/\.norm2/, ".ln1_1"],
    [/\.norm3/, ".ln2"],
    [/\.ff\b/, ".mlp"],
    [/\.attn1/, hasCondition ? ".attn1" : ".attn"],
    [/\.to_out\.0$/, ".proj"],
    [/\.to_q$/, ".query"],
    [/\.to_k$/, ".key"],
    [/\.to_v$/, ".value"],
  ]);

/** Our name of a module of VQModel with `levels` resolutions. */
export const codecModule = (name: string, levels: number): string =>
  rename(
    name.replace(/up_blocks\.(\d+)/, (_, i: string) => `up.${levels - 1 - Number(i)}`),
    [
      [/down_blocks/, "down"],
      [/conv_norm_out$/, "norm_out"],
      [/(down|up)samplers\.0/, "$1sample"],
      [/mid_block\.resnets\.0/, "mid.block_1"],
      [/mid_block\.resnets\.1/, "mid.block_2"],
      [/mid_block\.attentions\.0/, "mid.attn_1"],
      [/mid_block/, "mid"],
      [/resnets/, "block"],
      [/attentions/, "attn"],
      [/conv_shortcut$/, "nin_shortcut"],
      [/group_norm$/, "norm"],
    ],
  );
