// The down path, middle and up path that the ADM U-Nets, their classifier and DiffuseVAE's U-Net are
// made of. Topology and parameter names of openai/guided-diffusion guided_diffusion/unet.py. Source:
// Dhariwal and Nichol 2021, arXiv:2105.05233, section 3.
import { DiffusionError } from "../errors.js";
import { conv2d } from "../nn/conv.js";
import { DropoutSites } from "../nn/dropout.js";
import type { ParamScope } from "../nn/module.js";
import { qkvAttention } from "../nn/qkv-attention.js";
import type { AttentionOrder } from "../nn/qkv-attention.js";
import { unetBlock, unetDownsample, unetUpsample } from "../nn/unet-block.js";
import type { UnetBlock } from "../nn/unet-block.js";
import { concat } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { flag, limits, listOf, oneOf, optional, real, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";

export interface AdmTrunkConfig {
  /**
   * Channels of level l are channels * multipliers[l], rounded down; each level but the last halves
   * the size.
   */
  channels: number;
  multipliers: readonly number[];
  /** Residual blocks in each level of the down path; the up path has one more. */
  residualBlocks: number;
  /**
   * Downsampling factors (1, 2, 4, ...) whose levels have attention, not sides in pixels; the middle
   * always has it.
   */
  attentionFactors: readonly number[];
  /** Rate before the last convolution of each residual block, from 0 to below 1; default 0. */
  dropout?: number;
  /** Learned convolutions between levels where residualResample is off; default true. */
  convResample?: boolean;
  /** Attention heads; default 1. */
  heads?: number;
  /** Channels of a head, instead of a number of heads. */
  headChannels?: number;
  /** Attention heads of the up path; default `heads`. */
  upHeads?: number;
  /** The embedding scales and shifts the norms instead of being added; default false. */
  scaleShiftNorm?: boolean;
  /** Residual blocks resample between levels; default false. */
  residualResample?: boolean;
  /** Default "heads-first", the legacy order. */
  attentionOrder?: AttentionOrder;
  /** Groups of the group norms; default 32. */
  groups?: number;
}

const maxLevels = 12;
const maxBlocks = 64;

export const admTrunkRules: Readonly<Record<keyof AdmTrunkConfig, Rule>> = {
  channels: whole(1, limits.width),
  multipliers: listOf(real(1 / 1024, 1024), 1, maxLevels),
  residualBlocks: whole(0, maxBlocks),
  attentionFactors: listOf(whole(1, limits.side), 0, 2 * maxLevels),
  dropout: optional(real(0, 0.999)),
  convResample: optional(flag),
  heads: optional(whole(1, limits.width)),
  headChannels: optional(whole(1, limits.width)),
  upHeads: optional(whole(1, limits.width)),
  scaleShiftNorm: optional(flag),
  residualResample: optional(flag),
  attentionOrder: optional(oneOf("heads-first", "qkv-first")),
  groups: optional(whole(1, limits.width)),
};

/** Channels of each level. */
export const admWidths = ({ channels, multipliers }: AdmTrunkConfig): number[] =>
  multipliers.map((multiplier) => Math.floor(channels * multiplier));

/** Largest downsampling factor. */
export const admStride = ({ multipliers }: AdmTrunkConfig): number => 2 ** (multipliers.length - 1);

/** Width of the embedding of time and class. */
export const admEmbeddingWidth = ({ channels }: AdmTrunkConfig): number => 4 * channels;

function checkHeads(where: string, name: string, width: number, parts: number): void {
  if (width % parts === 0) return;
  throw new DiffusionError(
    "option",
    `${where}: expected channels of attention divisible by ${name} ${parts}, got ${width}`,
  );
}

/** Checks what the rules cannot see: widths against groups and heads. Throws "option". */
export function checkAdmTrunk(where: string, config: AdmTrunkConfig): void {
  const { groups = 32, heads = 1, headChannels, upHeads = heads, attentionFactors } = config;
  const widths = admWidths(config);
  for (const width of widths) {
    if (width > 0 && width % groups === 0 && width <= limits.width) continue;
    throw new DiffusionError(
      "option",
      `${where}: expected channel counts up to ${limits.width} and divisible by ${groups} groups, got ${width}`,
    );
  }
  widths.forEach((width, level) => {
    if (!attentionFactors.includes(2 ** level) && level < widths.length - 1) return;
    if (headChannels !== undefined) return checkHeads(where, "headChannels", width, headChannels);
    checkHeads(where, "heads", width, heads);
    if (attentionFactors.includes(2 ** level)) checkHeads(where, "upHeads", width, upHeads);
  });
}

/** Builds attention for maps of `width` channels. */
export type AdmAttention = (
  scope: ParamScope,
  width: number,
  path: "down" | "middle" | "up",
) => UnetBlock;

/** What the parts of one U-Net share. */
export interface AdmContext {
  readonly config: AdmTrunkConfig;
  readonly sites: DropoutSites;
  readonly attention: AdmAttention;
}

/** `attention`: default over the pixels alone. */
export const admContext = (
  config: AdmTrunkConfig,
  attention: AdmAttention = pixelAttention(config),
): AdmContext => ({ config, sites: new DropoutSites(config.dropout ?? 0), attention });

/** Stages one after another, with one tap at the end. */
const sequence =
  (scope: ParamScope, stages: readonly UnetBlock[]): UnetBlock =>
  (x, call) => {
    const y = stages.reduce((h, stage) => stage(h, call), x);
    x.trace.record(scope.path, y);
    return y;
  };

interface BlockWidths {
  in: number;
  out: number;
  resample?: "up" | "down";
}

function block({ config, sites }: AdmContext, scope: ParamScope, widths: BlockWidths): UnetBlock {
  const { groups = 32, scaleShiftNorm = false } = config;
  return unetBlock(scope, {
    ...widths,
    embedding: admEmbeddingWidth(config),
    groups,
    scaleShift: scaleShiftNorm,
    dropout: sites.next(),
  });
}

function pixelAttention(config: AdmTrunkConfig): AdmAttention {
  const { groups = 32, headChannels, attentionOrder: order = "heads-first" } = config;
  const { heads = 1, upHeads = heads } = config;
  return (scope, channels, path) => {
    const count = path === "up" ? upHeads : heads;
    const mix = qkvAttention(scope, {
      channels,
      heads: headChannels === undefined ? count : channels / headChannels,
      groups,
      order,
    });
    return (x) => mix(x);
  };
}

function resampler(
  context: AdmContext,
  scope: ParamScope,
  width: number,
  resample: "up" | "down",
): UnetBlock {
  const { residualResample = false, convResample = true } = context.config;
  if (residualResample) return block(context, scope, { in: width, out: width, resample });
  const layer =
    resample === "up"
      ? unetUpsample(scope, width, convResample)
      : unetDownsample(scope, width, convResample);
  return (x) => layer(x);
}

export interface AdmDownPath {
  /** input_blocks: each output is kept for the up path. */
  readonly stages: readonly UnetBlock[];
  /** Channels of each output. */
  readonly widths: readonly number[];
}

/** First convolution, residual blocks with attention, and downsampling between levels. */
export function admDownPath(
  context: AdmContext,
  scope: ParamScope,
  inChannels: number,
): AdmDownPath {
  const { residualBlocks, attentionFactors } = context.config;
  const levels = admWidths(context.config);
  const stages: UnetBlock[] = [];
  const widths: number[] = [];
  const push = (width: number, build: (place: ParamScope) => UnetBlock[]): void => {
    const place = scope.child(stages.length);
    stages.push(sequence(place, build(place)));
    widths.push(width);
  };
  let from = levels[0]!;
  push(from, (place) => {
    const conv = conv2d(place.child(0), { in: inChannels, out: from });
    return [(x) => conv(x)];
  });
  levels.forEach((width, level) => {
    const hasAttention = attentionFactors.includes(2 ** level);
    for (let i = 0; i < residualBlocks; ++i) {
      const before = from;
      push(width, (place) => [
        block(context, place.child(0), { in: before, out: width }),
        ...(hasAttention ? [context.attention(place.child(1), width, "down")] : []),
      ]);
      from = width;
    }
    if (level < levels.length - 1)
      push(from, (place) => [resampler(context, place.child(0), from, "down")]);
  });
  return { stages, widths };
}

/** Residual block, attention, residual block. */
export function admMiddle(context: AdmContext, scope: ParamScope, width: number): UnetBlock {
  const widths = { in: width, out: width };
  return sequence(scope, [
    block(context, scope.child(0), widths),
    context.attention(scope.child(1), width, "middle"),
    block(context, scope.child(2), widths),
  ]);
}

export interface AdmUpPath {
  /** output_blocks: each takes what the one before gives, joined with the last kept output. */
  readonly stages: readonly UnetBlock[];
  readonly width: number;
}

/** `kept`: channels of the down path's outputs, used from the last. */
export function admUpPath(
  context: AdmContext,
  scope: ParamScope,
  kept: readonly number[],
): AdmUpPath {
  const { residualBlocks, attentionFactors } = context.config;
  const levels = admWidths(context.config);
  const skips = [...kept];
  const stages: UnetBlock[] = [];
  let from = skips.at(-1)!;
  for (let level = levels.length - 1; level >= 0; --level) {
    const width = levels[level]!;
    for (let i = 0; i <= residualBlocks; ++i) {
      const place = scope.child(stages.length);
      const parts = [block(context, place.child(0), { in: from + skips.pop()!, out: width })];
      if (attentionFactors.includes(2 ** level))
        parts.push(context.attention(place.child(parts.length), width, "up"));
      if (level > 0 && i === residualBlocks)
        parts.push(resampler(context, place.child(parts.length), width, "up"));
      stages.push(sequence(place, parts));
      from = width;
    }
  }
  return { stages, width: from };
}

/** (image (B, H, W, in), call) -> features (B, H, W, width). */
export interface AdmTrunk {
  readonly width: number;
  run: UnetBlock;
}

/** Down path, middle and up path on scopes input_blocks, middle_block and output_blocks. */
export function admTrunk(
  scope: ParamScope,
  config: AdmTrunkConfig,
  inChannels: number,
  attention?: AdmAttention,
): AdmTrunk {
  const context = admContext(config, attention);
  const down = admDownPath(context, scope.child("input_blocks"), inChannels);
  const middle = admMiddle(context, scope.child("middle_block"), down.widths.at(-1)!);
  const up = admUpPath(context, scope.child("output_blocks"), down.widths);
  return {
    width: up.width,
    run(image, call) {
      const kept: Tensor[] = [];
      let h = image;
      for (const stage of down.stages) {
        h = stage(h, call);
        kept.push(h);
      }
      h = middle(h, call);
      for (const stage of up.stages) h = stage(concat([h, kept.pop()!], 3), call);
      return h;
    },
  };
}
