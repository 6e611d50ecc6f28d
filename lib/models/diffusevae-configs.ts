// Published configurations of DiffuseVAE, as data: kpandey008/DiffuseVAE main/configs/dataset/ and
// scripts/. Where the two disagree about heads and dropout, the scripts that trained and sampled the
// released models count. Source: Pandey et al. 2022, arXiv:2201.00308.
import type { DiffuseVaeUnetConfig } from "./diffusevae-unet.js";
import type { DiffuseVaeConfig } from "./diffusevae-vae.js";

/** The same widths on both sides. */
const widths = (channels: string) => ({ encoderChannels: channels, decoderChannels: channels });

const vae128: DiffuseVaeConfig = {
  resolution: 128,
  encoder:
    "128x1,128d2,128t64,64x3,64d2,64t32,32x3,32d2,32t16,16x7,16d2,16t8,8x3,8d2,8t4,4x3,4d4,4t1,1x2",
  decoder:
    "1x1,1u4,1t4,4x2,4u2,4t8,8x2,8u2,8t16,16x6,16u2,16t32,32x2,32u2,32t64,64x2,64u2,64t128,128x1",
  ...widths("128:64,64:64,32:128,16:128,8:256,4:512,1:1024"),
};

const vae256: DiffuseVaeConfig = {
  resolution: 256,
  encoder:
    "256x3,256d2,256t128,128x3,128d2,128t64,64x5,64d2,64t32,32x7,32d2,32t16,16x9,16d2,16t8,8x7,8d2,8t4,4x5,4d4,4t1,1x2",
  decoder:
    "1x2,1u4,1t4,4x4,4u2,4t8,8x6,8u2,8t16,16x8,16u2,16t32,32x5,32u2,32t64,64x4,64u2,64t128,128x2,128u2,128t256,256x2",
  ...widths("256:64,128:64,64:64,32:128,16:128,8:256,4:512,1:1024"),
};

/** First stages by data set. */
export const diffuseVaeConfigs = {
  cifar10: {
    resolution: 32,
    encoder: "32x7,32d2,32t16,16x4,16d2,16t8,8x4,8d2,8t4,4x3,4d4,4t1,1x3",
    decoder: "1x1,1u4,1t4,4x2,4u2,4t8,8x3,8u2,8t16,16x7,16u2,16t32,32x15",
    ...widths("32:64,16:128,8:256,4:256,1:512"),
  },
  celeba64: {
    resolution: 64,
    encoder: "64x7,64d2,64t32,32x4,32d2,32t16,16x7,16d2,16t8,8x3,8d2,8t4,4x3,4d4,4t1,1x2",
    decoder: "1x1,1u4,1t4,4x2,4u2,4t8,8x3,8u2,8t16,16x7,16u2,16t32,32x8,32u2,32t64,64x10",
    ...widths("64:64,32:128,16:256,8:256,4:256,1:512"),
  },
  celebahq128: vae128,
  ffhq128: vae128,
  celebahq256: vae256,
  afhq256: vae256,
} as const satisfies Record<string, DiffuseVaeConfig>;

/** Downsampling factor 16, although the files call it a resolution. */
const main = { attentionFactors: [16], residualBlocks: 2 } as const;

const cifar10 = { ...main, resolution: 32, channels: 128, multipliers: [1, 2, 2, 2] } as const;
const celeba64 = { ...main, resolution: 64, channels: 128, multipliers: [1, 2, 2, 2, 4] } as const;
const celebahq128 = {
  ...main,
  resolution: 128,
  channels: 128,
  multipliers: [1, 2, 2, 3, 4],
} as const;
const ffhq128 = { ...main, resolution: 128, channels: 128, multipliers: [1, 1, 2, 3, 4] } as const;
const at256 = { ...main, resolution: 256, channels: 128, multipliers: [1, 1, 2, 2, 4, 4] } as const;

const large = { channels: 160, residualBlocks: 3 } as const;

const reproduction = {
  variant: "reproduction",
  resolution: 32,
  channels: 128,
  multipliers: [1, 2, 2, 2],
  residualBlocks: 2,
  attentionResolutions: [16],
} as const;

const conditional = { heads: 8 } as const;
const unconditional = { conditional: false, heads: 1 } as const;

/** Second stages by data set: joined with a reconstruction, or unconditional baselines. */
export const diffuseVaeUnetConfigs = {
  cifar10: { ...cifar10, ...conditional, dropout: 0.3 },
  "cifar10-unconditional": { ...cifar10, ...unconditional, dropout: 0.1 },
  "cifar10-large": { ...cifar10, ...large, ...conditional, dropout: 0.3 },
  "cifar10-large-unconditional": { ...cifar10, ...large, ...unconditional, dropout: 0.3 },
  celeba64: { ...celeba64, ...conditional, dropout: 0.1 },
  "celeba64-unconditional": { ...celeba64, ...unconditional, dropout: 0.1 },
  celebahq128: { ...celebahq128, ...conditional, dropout: 0.1 },
  "celebahq128-unconditional": { ...celebahq128, ...unconditional, dropout: 0 },
  ffhq128: { ...ffhq128, ...conditional, dropout: 0.1 },
  "ffhq128-unconditional": { ...ffhq128, ...unconditional, dropout: 0.1 },
  celebahq256: { ...at256, ...conditional, dropout: 0.1 },
  "celebahq256-unconditional": { ...at256, ...unconditional, dropout: 0.1 },
  afhq256: { ...at256, ...conditional, dropout: 0.1 },
  "afhq256-unconditional": { ...at256, ...unconditional, dropout: 0.1 },
  "cifar10-reproduction": { ...reproduction, ...conditional, dropout: 0.3 },
  "cifar10-reproduction-unconditional": { ...reproduction, ...unconditional, dropout: 0.1 },
  "cifar10-reproduction-large": { ...reproduction, ...large, ...conditional, dropout: 0.3 },
} as const satisfies Record<string, DiffuseVaeUnetConfig>;
