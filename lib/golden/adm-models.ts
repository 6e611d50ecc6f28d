// Golden kinds adm_unet, adm_superres and adm_encoder_unet: forward, taps and gradients of the ADM
// networks.
import { admEncoderUnet } from "../models/adm-encoder-unet.js";
import type { AdmEncoderUnetConfig, EncoderPool } from "../models/adm-encoder-unet.js";
import type { AdmTrunkConfig } from "../models/adm-trunk.js";
import { admUnet } from "../models/adm-unet.js";
import type { AdmUnetConfig } from "../models/adm-unet.js";
import { admEncoderUnetKeys, admUnetKeys } from "../models/adm.keys.js";
import { checkFields, flag, limits, listOf, oneOf, real, whole } from "../models/check-config.js";
import type { Rule, Rules } from "../models/check-config.js";
import type { Config } from "./case.js";
import type { GoldenRunner } from "./evaluate.js";
import { unetResults } from "./unet-results.js";

/** A key of a foreign configuration may be missing or null. */
export const maybe =
  (rule: Rule): Rule =>
  (value) =>
    value === undefined || value === null ? undefined : rule(value);

/** The only value of an option that our networks have. */
export const only =
  (wanted: unknown): Rule =>
  (value) =>
    value === wanted ? undefined : JSON.stringify(wanted);

/** A count, or -1 for "not given". */
export const countOrNone: Rule = (value) =>
  value === -1 ? undefined : whole(1, limits.width)(value);

/** Sequences (1) and volumes (3) have other convolutions and no picture to show. */
const images: Rule = (value) =>
  value === 2
    ? undefined
    : "2 (networks of pictures: this library has no 1- or 3-dimensional ones)";

/** Options of the U-Nets' constructors that change what they compute. */
export const unetRules: Rules = {
  in_channels: whole(1, limits.width),
  model_channels: whole(1, limits.width),
  out_channels: whole(1, limits.width),
  num_res_blocks: whole(0, 64),
  attention_resolutions: listOf(whole(1, limits.side), 0, 64),
  channel_mult: maybe(listOf(real(1 / 1024, 1024), 1, 12)),
  dropout: maybe(real(0, 1)),
  conv_resample: maybe(flag),
  num_heads: maybe(whole(1, limits.width)),
  num_heads_upsample: maybe(countOrNone),
  use_scale_shift_norm: maybe(flag),
  use_checkpoint: maybe(flag),
  dims: maybe(images),
  norm_num_groups: maybe(whole(1, limits.width)),
};

const admRules: Rules = {
  ...unetRules,
  image_size: whole(1, limits.side),
  num_head_channels: maybe(countOrNone),
  resblock_updown: maybe(flag),
  use_new_attention_order: maybe(flag),
  // half precision of the original is computed in f32
  use_fp16: maybe(flag),
};

const admModelRules: Rules = { ...admRules, num_classes: maybe(whole(1, limits.width)) };

const encoderRules: Rules = {
  ...admRules,
  pool: maybe(oneOf("adaptive", "attention", "spatial", "spatial_v2")),
};

/** A count that is given: neither missing, nor null, nor -1. */
export const given = (value: unknown): value is number => typeof value === "number" && value !== -1;

/** Our configuration of the paths, with the defaults of the originals. */
export const trunkConfig = (c: Config): AdmTrunkConfig => ({
  channels: c["model_channels"] as number,
  multipliers: (c["channel_mult"] as number[] | undefined) ?? [1, 2, 4, 8],
  residualBlocks: c["num_res_blocks"] as number,
  attentionFactors: c["attention_resolutions"] as number[],
  // the references run in evaluation mode, without a key for dropout
  convResample: (c["conv_resample"] as boolean | undefined) ?? true,
  heads: (c["num_heads"] as number | undefined) ?? 1,
  ...(given(c["num_head_channels"]) && { headChannels: c["num_head_channels"] }),
  ...(given(c["num_heads_upsample"]) && { upHeads: c["num_heads_upsample"] }),
  scaleShiftNorm: (c["use_scale_shift_norm"] as boolean | undefined) ?? false,
  residualResample: (c["resblock_updown"] as boolean | undefined) ?? false,
  attentionOrder: c["use_new_attention_order"] === true ? "qkv-first" : "heads-first",
  groups: (c["norm_num_groups"] as number | undefined) ?? 32,
});

/** Our configuration of the U-Net. Throws "option" for an option it does not have. */
export function admUnetConfig(where: string, c: Config): AdmUnetConfig {
  checkFields(where, c, admModelRules);
  return {
    ...trunkConfig(c),
    resolution: c["image_size"] as number,
    imageChannels: c["in_channels"] as number,
    outChannels: c["out_channels"] as number,
    ...(given(c["num_classes"]) && { classes: c["num_classes"] }),
  };
}

const pools: Readonly<Record<string, EncoderPool>> = { spatial_v2: "spatial-v2" };

function encoderConfig(c: Config): AdmEncoderUnetConfig {
  const { pool = "adaptive" } = c as { pool?: string };
  return {
    ...trunkConfig(c),
    resolution: c["image_size"] as number,
    imageChannels: c["in_channels"] as number,
    outputs: c["out_channels"] as number,
    pool: pools[pool] ?? (pool as EncoderPool),
  };
}

const unet: GoldenRunner = async (golden, evaluate) => {
  const config = admUnetConfig(golden.kind, golden.config);
  const model = admUnet({ ...config, superResolution: golden.kind === "adm_superres" });
  return unetResults(golden, evaluate, { model, keys: admUnetKeys, output: "output" });
};

const encoder: GoldenRunner = async (golden, evaluate) => {
  checkFields(golden.kind, golden.config, encoderRules);
  const model = admEncoderUnet(encoderConfig(golden.config));
  return unetResults(golden, evaluate, { model, keys: admEncoderUnetKeys, output: "output" });
};

export const admModelRunners: Readonly<Record<string, GoldenRunner>> = {
  adm_unet: unet,
  adm_superres: unet,
  adm_encoder_unet: encoder,
};
