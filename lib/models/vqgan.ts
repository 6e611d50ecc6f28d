// VQGAN: convolutional encoder and decoder around a codebook. Topology and parameter names of
// CompVis/taming-transformers taming/modules/diffusionmodules/model.py. Source: Esser et al. 2021,
// arXiv:2012.09841.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { mapAttention } from "../nn/attention.js";
import { conv2d, downsample, upsample } from "../nn/conv.js";
import { linear } from "../nn/linear.js";
import type { Layer } from "../nn/linear.js";
import { ParamScope } from "../nn/module.js";
import { groupNorm } from "../nn/norm.js";
import { resnetBlock } from "../nn/resnet.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, flag, limits, listOf, object, optional, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";
import { vectorQuantizer } from "./vector-quantizer.js";
import type { VectorQuantizer, VectorQuantizerConfig } from "./vector-quantizer.js";

export interface VqganConfig {
  /**
   * Side of the training images: decides, with attentionResolutions, which levels have attention.
   */
  resolution: number;
  /** Channels of a picture; default 3. */
  imageChannels?: number;
  /** Channels of level l are channels * multipliers[l]; each level but the last halves the size. */
  channels: number;
  multipliers: readonly number[];
  residualBlocks: number;
  attentionResolutions: readonly number[];
  /** Attention in the middle of encoder and decoder; default true. */
  middleAttention?: boolean;
  /** Groups of the group norms; default 32. */
  groups?: number;
  /** Channels between encoder and codebook projection. */
  latentChannels: number;
  quantizer: VectorQuantizerConfig;
}

export interface Vqgan {
  readonly config: VqganConfig;
  /** Pixels a token covers along each axis. */
  readonly stride: number;
  readonly quantizer: VectorQuantizer;
  readonly parameters: readonly ParamSpec[];
  readonly states: readonly ParamSpec[];
  /** Image (B, H, W, 3) in [-1, 1] -> latents (B, h, w, codebook width), before quantisation. */
  encode(image: Tensor): Tensor;
  /** Quantised latents (B, h, w, codebook width) -> image (B, H, W, 3), not clamped. */
  decode(latents: Tensor): Tensor;
  /** Image -> token ids (B, h * w), i32. */
  tokenize(image: Tensor): Tensor;
  /** Token ids (B, h * w) -> image; `grid` is [h, w], square by default. */
  detokenize(tokens: Tensor, grid?: readonly [number, number]): Tensor;
  /** Name of the parameter whose gradients balance the adversarial loss. */
  readonly lastLayer: string;
}

const maxLevels = 12;
const maxBlocks = 64;

const rules: Readonly<Record<keyof VqganConfig, Rule>> = {
  resolution: whole(1, limits.side),
  imageChannels: optional(whole(1, 64)),
  channels: whole(1, limits.width),
  multipliers: listOf(whole(1, 1024), 1, maxLevels),
  residualBlocks: whole(0, maxBlocks),
  attentionResolutions: listOf(whole(1, limits.side), 0, 2 * maxLevels),
  middleAttention: optional(flag),
  groups: optional(whole(1, limits.width)),
  latentChannels: whole(1, limits.width),
  quantizer: object,
};

/** Channels into and out of each level, and whether it has attention. */
interface Level {
  channels: number;
  hasAttention: boolean;
}

function levelsOf(config: VqganConfig): Level[] {
  return config.multipliers.map((multiplier, level) => ({
    channels: config.channels * multiplier,
    hasAttention: config.attentionResolutions.includes(config.resolution / 2 ** level),
  }));
}

const chain =
  (layers: readonly Layer[]): Layer =>
  (x) =>
    layers.reduce((h, layer) => layer(h), x);

/** Residual block followed by attention where the level has it. */
function stage(
  scope: ParamScope,
  index: number,
  from: number,
  level: Level,
  groups: number,
): Layer {
  const block = resnetBlock(scope.child("block").child(index), {
    in: from,
    out: level.channels,
    groups,
  });
  if (!level.hasAttention) return (x) => block(x);
  const mix = mapAttention(scope.child("attn").child(index), { channels: level.channels, groups });
  return (x) => mix(block(x));
}

function middle(scope: ParamScope, channels: number, groups: number, hasAttention: boolean): Layer {
  const first = resnetBlock(scope.child("block_1"), { in: channels, out: channels, groups });
  const mix = hasAttention
    ? mapAttention(scope.child("attn_1"), { channels, groups })
    : (x: Tensor) => x;
  const second = resnetBlock(scope.child("block_2"), { in: channels, out: channels, groups });
  return (x) => second(mix(first(x)));
}

function encoder(scope: ParamScope, config: VqganConfig): Layer {
  const {
    imageChannels = 3,
    channels,
    residualBlocks,
    groups = 32,
    latentChannels,
    middleAttention = true,
  } = config;
  const levels = levelsOf(config);
  const layers = [conv2d(scope.child("conv_in"), { in: imageChannels, out: channels })];
  let width = channels;
  levels.forEach((level, l) => {
    const place = scope.child("down").child(l);
    for (let i = 0; i < residualBlocks; ++i) {
      layers.push(stage(place, i, width, level, groups));
      width = level.channels;
    }
    if (l < levels.length - 1) layers.push(downsample(place.child("downsample"), width));
  });
  layers.push(middle(scope.child("mid"), width, groups, middleAttention));
  layers.push(groupNorm(scope.child("norm_out"), { channels: width, groups, activation: "silu" }));
  layers.push(conv2d(scope.child("conv_out"), { in: width, out: latentChannels }));
  return chain(layers);
}

/** Levels run from the coarsest; `up.0` is the finest, as in the reference. */
function decoder(scope: ParamScope, config: VqganConfig): Layer {
  const {
    imageChannels = 3,
    residualBlocks,
    groups = 32,
    latentChannels,
    middleAttention = true,
  } = config;
  const levels = levelsOf(config);
  let width = levels.at(-1)!.channels;
  const layers = [conv2d(scope.child("conv_in"), { in: latentChannels, out: width })];
  layers.push(middle(scope.child("mid"), width, groups, middleAttention));
  for (let l = levels.length - 1; l >= 0; --l) {
    const place = scope.child("up").child(l);
    for (let i = 0; i <= residualBlocks; ++i) {
      layers.push(stage(place, i, width, levels[l]!, groups));
      width = levels[l]!.channels;
    }
    if (l > 0) layers.push(upsample(place.child("upsample"), width));
  }
  layers.push(groupNorm(scope.child("norm_out"), { channels: width, groups, activation: "silu" }));
  layers.push(conv2d(scope.child("conv_out"), { in: width, out: imageChannels }));
  return chain(layers);
}

function checkConfig(config: VqganConfig): void {
  checkFields("vqgan", config, rules);
  const groups = config.groups ?? 32;
  for (const width of [config.channels, ...levelsOf(config).map(({ channels }) => channels)]) {
    if (width % groups === 0 && width <= limits.width) continue;
    throw new DiffusionError(
      "option",
      `vqgan: expected channel counts up to ${limits.width} and divisible by ${groups} groups, got ${width}`,
    );
  }
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function vqgan(config: VqganConfig, scope: ParamScope = new ParamScope()): Vqgan {
  checkConfig(config);
  const { latentChannels } = config;
  const width = config.quantizer.width;
  const analyse = encoder(scope.child("encoder"), config);
  const synthesise = decoder(scope.child("decoder"), config);
  const quantizer = vectorQuantizer(scope.child("quantize"), config.quantizer);
  const quantConv = linear(scope.child("quant_conv"), { in: latentChannels, out: width });
  const postQuantConv = linear(scope.child("post_quant_conv"), { in: width, out: latentChannels });

  const encode = (image: Tensor): Tensor => quantConv(analyse(image));
  const decode = (latents: Tensor): Tensor => synthesise(postQuantConv(latents));
  return {
    config,
    stride: 2 ** (config.multipliers.length - 1),
    quantizer,
    parameters: scope.specs(),
    states: scope.states(),
    encode,
    decode,
    tokenize(image) {
      const latents = encode(image);
      const [B, h, w] = latents.shape as [number, number, number, number];
      return quantizer.indices(latents).reshape([B, h * w]);
    },
    detokenize(tokens, grid) {
      const [B, N] = tokens.shape as [number, number];
      const [h, w] = grid ?? [Math.sqrt(N), Math.sqrt(N)];
      if (h * w !== N) {
        throw new DiffusionError(
          "shape",
          `vqgan: expected ${N} tokens to fill a grid, got ${h} x ${w}; pass grid`,
        );
      }
      return decode(quantizer.lookup(tokens).reshape([B, h, w, width]));
    },
    lastLayer: scope.nameOf("decoder.conv_out.weight"),
  };
}
