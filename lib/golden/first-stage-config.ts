// Configurations of the first stages in the words of CompVis (ddconfig), in ours. Every key must be known.
import { DiffusionError } from "../errors.js";
import {
  checkFields,
  flag,
  limits,
  listOf,
  object,
  oneOf,
  optional,
  real,
  shown,
  whole,
} from "../models/check-config.js";
import type { Rules } from "../models/check-config.js";
import type { ConvCodecConfig } from "../models/conv-codec.js";
import type { GoldenCase } from "./case.js";

/** Keyword arguments of Encoder and Decoder. */
interface DdConfig {
  ch: number;
  out_ch: number;
  ch_mult?: number[];
  num_res_blocks: number;
  attn_resolutions: number[];
  /** Nothing is dropped in evaluation. */
  dropout?: number;
  resamp_with_conv?: boolean;
  in_channels: number;
  resolution: number;
  z_channels: number;
  double_z?: boolean;
  give_pre_end?: boolean;
  tanh_out?: boolean;
  use_linear_attn?: boolean;
  attn_type?: "vanilla" | "linear" | "none";
}

const rules: Rules & Record<keyof DdConfig, unknown> = {
  ch: whole(1, limits.width),
  out_ch: whole(1, limits.width),
  ch_mult: optional(listOf(whole(1, 1024), 1, 12)),
  num_res_blocks: whole(0, 64),
  attn_resolutions: listOf(whole(1, limits.side), 0, 64),
  dropout: optional(real(0, 1)),
  resamp_with_conv: optional(flag),
  in_channels: whole(1, 64),
  resolution: whole(1, limits.side),
  z_channels: whole(1, limits.width),
  double_z: optional(flag),
  give_pre_end: optional(flag),
  tanh_out: optional(flag),
  use_linear_attn: optional(flag),
  attn_type: optional(oneOf("vanilla", "linear", "none")),
};

const width = whole(1, limits.width);
const commonRules: Rules = { ddconfig: object, embed_dim: width, norm_num_groups: optional(width) };

/**
 * The convolutions of a case whose configuration has `more` keys. `doubleZ`: what double_z must be for this kind; the
 * reference cannot run with the other value. The default multipliers are the reference's.
 */
export function codecConfig(golden: GoldenCase, more: Rules, doubleZ = false): ConvCodecConfig {
  checkFields(golden.kind, golden.config, { ...commonRules, ...more });
  const { ddconfig: d, norm_num_groups: groups = 32 } = golden.config as {
    ddconfig: DdConfig;
    norm_num_groups?: number;
  };
  checkFields("ddconfig", d, rules);
  const { double_z = true, give_pre_end = false, use_linear_attn = false } = d;
  const refuse = (name: string, expected: boolean, got: boolean): void => {
    if (expected === got) return;
    throw new DiffusionError("option", `ddconfig: expected ${name} ${expected}, got ${shown(got)}`);
  };
  refuse("double_z", doubleZ, double_z);
  refuse("give_pre_end", false, give_pre_end);
  const kind = use_linear_attn ? "linear" : (d.attn_type ?? "vanilla");
  return {
    resolution: d.resolution,
    imageChannels: d.in_channels,
    outputChannels: d.out_ch,
    channels: d.ch,
    multipliers: d.ch_mult ?? [1, 2, 4, 8],
    residualBlocks: d.num_res_blocks,
    attentionResolutions: kind === "none" ? [] : d.attn_resolutions,
    middleAttention: kind !== "none",
    attentionKind: kind === "linear" ? "linear" : "softmax",
    resample: (d.resamp_with_conv ?? true) ? "conv" : "plain",
    outputActivation: d.tanh_out ? "tanh" : "none",
    groups,
    latentChannels: d.z_channels,
  };
}
