// The first stage of latent diffusion seen from the diffusion model: pictures to scaled latents and back, whichever
// autoencoder stands behind it. Source: Rombach et al. 2021, arXiv:2112.10752, section 3.1 and appendix G (scaling).
import type { ParamSpec } from "../ir/param.js";
import type { Tensor } from "../trace/tensor.js";
import type { AutoencoderKl } from "./autoencoder-kl.js";
import type { Vqgan } from "./vqgan.js";

export interface FirstStage {
  /** Channels of a latent. */
  readonly channels: number;
  /** Pixels a latent covers along each axis. */
  readonly stride: number;
  readonly parameters: readonly ParamSpec[];
  readonly states: readonly ParamSpec[];
  /**
   * Image (B, H, W, 3) in [-1, 1] -> latents (B, h, w, channels), scaled. `noise` is standard normal and shaped like the
   * latents: it draws from the posterior of a KL autoencoder; without it, the mean.
   */
  encode(image: Tensor, noise?: Tensor): Tensor;
  /** Scaled latents -> image, not clamped. */
  decode(latents: Tensor): Tensor;
}

export interface FirstStageOptions {
  /** Factor of the latents, 1 / their deviation: 0.18215 for kl-f8 in Stable Diffusion, DiT and SiT. Default 1. */
  scale?: number;
}

export const klFirstStage = (
  model: AutoencoderKl,
  { scale = 1 }: FirstStageOptions = {},
): FirstStage => ({
  channels: model.latentChannels,
  stride: model.stride,
  parameters: model.parameters,
  states: [],
  encode(image, noise) {
    const posterior = model.encode(image);
    return (noise ? posterior.sample(noise) : posterior.mean).mul(scale);
  },
  decode: (latents) => model.decode(latents.div(scale)),
});

/** Latents are not quantised before decoding: VQModelInterface of CompVis/latent-diffusion ldm/models/autoencoder.py. */
export const vqFirstStage = (model: Vqgan, { scale = 1 }: FirstStageOptions = {}): FirstStage => ({
  channels: model.quantizer.config.width,
  stride: model.stride,
  parameters: model.parameters,
  states: model.states,
  encode: (image) => model.encode(image).mul(scale),
  decode: (latents) => model.decode(model.quantizer.quantise(latents.div(scale)).quantised),
});
