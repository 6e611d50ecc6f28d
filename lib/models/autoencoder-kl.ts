// KL autoencoder of latent diffusion: convolutional encoder and decoder around a normal posterior. Topology and parameter
// names of CompVis/latent-diffusion ldm/models/autoencoder.py (AutoencoderKL). Source: Rombach et al. 2021,
// arXiv:2112.10752, section 3.1.
import type { ParamSpec } from "../ir/param.js";
import { linear } from "../nn/linear.js";
import type { Layer } from "../nn/linear.js";
import { ParamScope } from "../nn/module.js";
import { diagonalGaussian } from "../processes/diagonal-gaussian.js";
import type { DiagonalGaussian } from "../processes/diagonal-gaussian.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, flag, limits, optional, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";
import {
  checkCodecWidths,
  codecStride,
  convCodecRules,
  convDecoder,
  convEncoder,
} from "./conv-codec.js";
import type { ConvCodecConfig } from "./conv-codec.js";

export interface AutoencoderKlConfig extends ConvCodecConfig {
  /** Channels of a latent; default latentChannels. */
  embedChannels?: number;
  /** 1x1 projections around the latents; later autoencoders have none. Default true. */
  projections?: boolean;
}

export interface AutoencoderKl {
  readonly config: AutoencoderKlConfig;
  /** Pixels a latent covers along each axis. */
  readonly stride: number;
  /** Channels of a latent. */
  readonly latentChannels: number;
  readonly parameters: readonly ParamSpec[];
  /** Image (B, H, W, 3) in [-1, 1] -> means and log variances (B, h, w, 2 * channels of a latent). */
  moments(image: Tensor): Tensor;
  /** Image -> posterior of its latents. No scaling factor is applied. */
  encode(image: Tensor): DiagonalGaussian;
  /** Latents (B, h, w, channels of a latent) -> image (B, H, W, 3), not clamped. */
  decode(latents: Tensor): Tensor;
  /** Name of the parameter whose gradients balance the adversarial loss. */
  readonly lastLayer: string;
}

const rules: Readonly<Record<keyof AutoencoderKlConfig, Rule>> = {
  ...convCodecRules,
  embedChannels: optional(whole(1, limits.width)),
  projections: optional(flag),
};

const asIs: Layer = (x) => x;

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function autoencoderKl(
  config: AutoencoderKlConfig,
  scope: ParamScope = new ParamScope(),
): AutoencoderKl {
  checkFields("autoencoderKl", config, rules);
  checkCodecWidths("autoencoderKl", config);
  const { latentChannels, projections = true } = config;
  const width = projections ? (config.embedChannels ?? latentChannels) : latentChannels;
  const analyse = convEncoder(scope.child("encoder"), config, 2 * latentChannels);
  const synthesise = convDecoder(scope.child("decoder"), config);
  const project = (name: string, from: number, to: number): Layer =>
    projections ? linear(scope.child(name), { in: from, out: to }) : asIs;
  const quantConv = project("quant_conv", 2 * latentChannels, 2 * width);
  const postQuantConv = project("post_quant_conv", width, latentChannels);

  const moments = (image: Tensor): Tensor => quantConv(analyse(image));
  return {
    config,
    stride: codecStride(config),
    latentChannels: width,
    parameters: scope.specs(),
    moments,
    encode: (image) => diagonalGaussian(moments(image)),
    decode: (latents) => synthesise(postQuantConv(latents)),
    lastLayer: scope.nameOf("decoder.conv_out.weight"),
  };
}
