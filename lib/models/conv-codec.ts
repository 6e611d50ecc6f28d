// Convolutional encoder and decoder of the first stages: VQGAN and the autoencoders of latent diffusion. Topology and
// parameter names of CompVis/taming-transformers taming/modules/diffusionmodules/model.py and CompVis/latent-diffusion
// ldm/modules/diffusionmodules/model.py. Source: Esser et al. 2021, arXiv:2012.09841.
import { DiffusionError } from "../errors.js";
import { linearMapAttention, mapAttention } from "../nn/attention.js";
import { conv2d, downsample, upsample } from "../nn/conv.js";
import type { Layer } from "../nn/linear.js";
import type { ParamScope } from "../nn/module.js";
import { groupNorm } from "../nn/norm.js";
import { resnetBlock } from "../nn/resnet.js";
import { unetDownsample, unetUpsample } from "../nn/unet-block.js";
import type { Tensor } from "../trace/tensor.js";
import { flag, limits, listOf, oneOf, optional, real, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";

export interface ConvCodecConfig {
  /**
   * Side of the training images: decides, with attentionResolutions, which levels have attention.
   */
  resolution: number;
  /** Channels of a picture; default 3. */
  imageChannels?: number;
  /** Channels of a decoded picture; default imageChannels. */
  outputChannels?: number;
  /** Channels of level l are channels * multipliers[l]; each level but the last halves the size. */
  channels: number;
  multipliers: readonly number[];
  residualBlocks: number;
  attentionResolutions: readonly number[];
  /** Where the decoder has attention; default attentionResolutions. */
  decoderAttentionResolutions?: readonly number[];
  /** Attention in the middle of encoder and decoder; default true. */
  middleAttention?: boolean;
  /**
   * "softmax": one head with norm and residual; "linear": over the softmax of the keys only, without either
   * (attn_type "linear"). Default "softmax".
   */
  attentionKind?: "softmax" | "linear";
  /** Halving by a convolution with stride 2 and doubling with one after it, or by means and repetition. Default "conv". */
  resample?: "conv" | "plain";
  /** Activation of the residual blocks; default "silu". */
  activation?: "silu" | "mish";
  /** Activation of the decoded picture; default "none". */
  outputActivation?: "none" | "tanh";
  /** Groups of the group norms; default 32. */
  groups?: number;
  /** Channels between encoder and quantizer or posterior, and of the decoder's input. */
  latentChannels: number;
}

const maxLevels = 12;
const maxBlocks = 64;

/** What each key may be. */
export const convCodecRules: Readonly<Record<keyof ConvCodecConfig, Rule>> = {
  resolution: whole(1, limits.side),
  imageChannels: optional(whole(1, 64)),
  outputChannels: optional(whole(1, 64)),
  channels: whole(1, limits.width),
  multipliers: listOf(real(1 / 1024, 1024), 1, maxLevels),
  residualBlocks: whole(0, maxBlocks),
  attentionResolutions: listOf(whole(1, limits.side), 0, 2 * maxLevels),
  decoderAttentionResolutions: optional(listOf(whole(1, limits.side), 0, 2 * maxLevels)),
  middleAttention: optional(flag),
  attentionKind: optional(oneOf("softmax", "linear")),
  resample: optional(oneOf("conv", "plain")),
  activation: optional(oneOf("silu", "mish")),
  outputActivation: optional(oneOf("none", "tanh")),
  groups: optional(whole(1, limits.width)),
  latentChannels: whole(1, limits.width),
};

/** Share by which a product of channels and multiplier may miss a whole number. */
const kRounding = 1e-9;

const widthsOf = ({ channels, multipliers }: ConvCodecConfig): number[] =>
  multipliers.map((multiplier) => {
    const width = Math.round(channels * multiplier);
    return Math.abs(width / (channels * multiplier) - 1) < kRounding
      ? width
      : channels * multiplier;
  });

/** Checks that all widths are whole and fit the groups. Throws "option". */
export function checkCodecWidths(where: string, config: ConvCodecConfig): void {
  const groups = config.groups ?? 32;
  for (const width of [config.channels, ...widthsOf(config)]) {
    if (Number.isInteger(width) && width % groups === 0 && width <= limits.width) continue;
    throw new DiffusionError(
      "option",
      `${where}: expected channel counts up to ${limits.width} and divisible by ${groups} groups, got ${width}`,
    );
  }
}

/** Pixels of the picture that a place of the latent map stands for, along each axis. */
export const codecStride = ({ multipliers }: ConvCodecConfig): number =>
  2 ** (multipliers.length - 1);

const chain =
  (layers: readonly Layer[]): Layer =>
  (x) =>
    layers.reduce((h, layer) => layer(h), x);

/** A chain whose output can be tapped. */
const place = (scope: ParamScope, layers: readonly Layer[]): Layer => {
  const run = chain(layers);
  return (x) => {
    const y = run(x);
    x.trace.record(scope.path, y);
    return y;
  };
};

const attentionOver = (scope: ParamScope, config: ConvCodecConfig, channels: number): Layer =>
  config.attentionKind === "linear"
    ? linearMapAttention(scope, channels)
    : mapAttention(scope, { channels, groups: config.groups ?? 32 });

const residual = (scope: ParamScope, config: ConvCodecConfig, from: number, to: number): Layer => {
  const { groups = 32, activation = "silu" } = config;
  const block = resnetBlock(scope, { in: from, out: to, groups, activation });
  return (x) => block(x);
};

interface Stage {
  from: number;
  to: number;
  blocks: number;
  hasAttention: boolean;
}

/** Residual blocks, each followed by attention where the level has it. */
function stage(scope: ParamScope, config: ConvCodecConfig, { from, to, ...level }: Stage): Layer[] {
  const layers: Layer[] = [];
  for (let i = 0; i < level.blocks; ++i) {
    layers.push(residual(scope.child("block").child(i), config, i === 0 ? from : to, to));
    if (level.hasAttention) layers.push(attentionOver(scope.child("attn").child(i), config, to));
  }
  return layers;
}

function middle(scope: ParamScope, config: ConvCodecConfig, channels: number): Layer {
  const hasAttention = config.middleAttention ?? true;
  return place(scope, [
    residual(scope.child("block_1"), config, channels, channels),
    ...(hasAttention ? [attentionOver(scope.child("attn_1"), config, channels)] : []),
    residual(scope.child("block_2"), config, channels, channels),
  ]);
}

const ending = (
  scope: ParamScope,
  config: ConvCodecConfig,
  channels: number,
  out: number,
): Layer[] => [
  groupNorm(scope.child("norm_out"), { channels, groups: config.groups ?? 32, activation: "silu" }),
  conv2d(scope.child("conv_out"), { in: channels, out }),
];

/** Image (B, H, W, C) -> (B, h, w, outputs); `outputs` is latentChannels, or twice that for moments. */
export function convEncoder(scope: ParamScope, config: ConvCodecConfig, outputs: number): Layer {
  const { imageChannels = 3, channels, residualBlocks, attentionResolutions } = config;
  const widths = widthsOf(config);
  const isPlain = config.resample === "plain";
  const layers = [conv2d(scope.child("conv_in"), { in: imageChannels, out: channels })];
  let from = channels;
  let side = config.resolution;
  widths.forEach((to, l) => {
    const level = scope.child("down").child(l);
    const hasAttention = attentionResolutions.includes(side);
    const steps = stage(level, config, { from, to, blocks: residualBlocks, hasAttention });
    from = residualBlocks > 0 ? to : from;
    const shrink = level.child("downsample");
    if (l < widths.length - 1) {
      steps.push(isPlain ? unetDownsample(shrink, from, false) : downsample(shrink, from));
      side = Math.floor(side / 2);
    }
    layers.push(place(level, steps));
  });
  layers.push(middle(scope.child("mid"), config, from));
  return chain([...layers, ...ending(scope, config, from, outputs)]);
}

/**
 * Latents (B, h, w, latentChannels) -> image (B, H, W, C). Levels run from the coarsest; `up.0` is the finest, as in the
 * reference.
 */
export function convDecoder(scope: ParamScope, config: ConvCodecConfig): Layer {
  const { imageChannels = 3, residualBlocks, latentChannels } = config;
  const { decoderAttentionResolutions: attended = config.attentionResolutions } = config;
  const isPlain = config.resample === "plain";
  const widths = widthsOf(config);
  let from = widths.at(-1)!;
  let side = Math.floor(config.resolution / codecStride(config));
  const layers = [conv2d(scope.child("conv_in"), { in: latentChannels, out: from })];
  layers.push(middle(scope.child("mid"), config, from));
  for (let l = widths.length - 1; l >= 0; --l) {
    const level = scope.child("up").child(l);
    const to = widths[l]!;
    const hasAttention = attended.includes(side);
    const steps = stage(level, config, { from, to, blocks: residualBlocks + 1, hasAttention });
    const grow = level.child("upsample");
    if (l > 0) {
      steps.push(isPlain ? unetUpsample(grow, to, false) : upsample(grow, to));
      side *= 2;
    }
    from = to;
    layers.push(place(level, steps));
  }
  layers.push(...ending(scope, config, from, config.outputChannels ?? imageChannels));
  if (config.outputActivation === "tanh") layers.push((x: Tensor) => x.tanh());
  return chain(layers);
}
