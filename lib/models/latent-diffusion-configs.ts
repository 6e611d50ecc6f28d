// Published U-Nets of latent diffusion, by the names of its model zoo, and of Stable Diffusion. Sources:
// CompVis/latent-diffusion models/ldm and configs, CompVis/stable-diffusion, Stability-AI/stablediffusion.
import type { LatentDiffusionUnetConfig } from "./latent-diffusion-unet.js";

const f4 = {
  resolution: 64,
  inChannels: 3,
  outChannels: 3,
  residualBlocks: 2,
  attentionFactors: [8, 4, 2],
} as const;
const f8 = {
  resolution: 32,
  inChannels: 4,
  outChannels: 4,
  residualBlocks: 2,
  attentionFactors: [4, 2, 1],
} as const;
const stable = { ...f8, channels: 320, multipliers: [1, 2, 4, 4], legacyHeads: false } as const;
const faces = { ...f4, channels: 224, multipliers: [1, 2, 3, 4], headChannels: 32 } as const;
/** Factors beyond the deepest level have no effect. */
const semantic = {
  inChannels: 6,
  outChannels: 3,
  residualBlocks: 2,
  channels: 128,
  multipliers: [1, 4, 8],
  attentionFactors: [32, 16, 8],
  heads: 8,
} as const;

export const latentDiffusionUnetConfigs = {
  celeba256: faces,
  ffhq256: faces,
  lsun_beds256: faces,
  lsun_churches256: {
    ...f8,
    attentionFactors: [1, 2, 4, 8],
    channels: 192,
    multipliers: [1, 2, 2, 4, 4],
    heads: 8,
    scaleShiftNorm: true,
    residualResample: true,
  },
  /** Classes as one token of width 512 (1000 classes), latents of vq-f8. */
  cin256: {
    ...f8,
    channels: 256,
    multipliers: [1, 2, 4],
    headChannels: 32,
    transformer: { contextWidth: 512 },
  },
  /** Classes with a null class (1001), latents of vq-f4. */
  "cin256-v2": {
    ...f4,
    channels: 192,
    multipliers: [1, 2, 3, 5],
    heads: 1,
    transformer: { contextWidth: 512 },
  },
  text2img256: {
    ...f4,
    channels: 192,
    multipliers: [1, 2, 3, 5],
    headChannels: 32,
    transformer: { contextWidth: 640 },
  },
  /** 1.45B with its text encoder; latents of kl-f8 times 0.18215. */
  "text2img-large": { ...stable, heads: 8, transformer: { contextWidth: 1280 } },
  "layout2img-openimages256": {
    ...f4,
    channels: 128,
    multipliers: [1, 2, 3, 4],
    headChannels: 32,
    transformer: { contextWidth: 512, depth: 3 },
  },
  /** x joined to the low-resolution image. */
  bsr_sr: {
    ...f4,
    inChannels: 6,
    channels: 160,
    multipliers: [1, 2, 2, 4],
    attentionFactors: [16, 8],
    headChannels: 32,
  },
  /** x joined to the latents of the masked picture and the mask. */
  inpainting_big: {
    ...f4,
    inChannels: 7,
    channels: 256,
    multipliers: [1, 2, 3, 4],
    heads: 8,
    residualResample: true,
  },
  semantic_synthesis256: { ...semantic, resolution: 64 },
  semantic_synthesis512: { ...semantic, resolution: 128 },
  /** Retrieval-augmented, latents of kl-f16 times 0.22765929. */
  "rdm-768": {
    ...f8,
    resolution: 48,
    inChannels: 16,
    outChannels: 16,
    channels: 448,
    multipliers: [1, 2, 3, 4],
    headChannels: 32,
    transformer: { contextWidth: 768 },
  },
  "stable-diffusion-1": {
    ...stable,
    resolution: 64,
    heads: 8,
    transformer: { contextWidth: 768 },
  },
  "stable-diffusion-2": {
    ...stable,
    resolution: 64,
    headChannels: 64,
    transformer: { contextWidth: 1024 },
  },
} satisfies Record<string, LatentDiffusionUnetConfig>;
