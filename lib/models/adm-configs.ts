// Published configurations of the ADM networks, as data: openai/guided-diffusion README.md and
// guided_diffusion/script_util.py, and openai/improved-diffusion README.md. Sources: Dhariwal and
// Nichol 2021, arXiv:2105.05233; Nichol and Dhariwal 2021, arXiv:2102.09672.
import type { AdmEncoderUnetConfig } from "./adm-encoder-unet.js";
import type { AdmUnetConfig } from "./adm-unet.js";

const kImageNetClasses = 1000;

/** Levels by side, as script_util.py chooses them. */
const levels = {
  64: [1, 2, 3, 4],
  128: [1, 1, 2, 3, 4],
  256: [1, 1, 2, 2, 4, 4],
  512: [0.5, 1, 1, 2, 2, 4, 4],
} as const;

/** Factors at which maps of `resolution` have the sides that the authors list. */
const factorsAt = (resolution: number, ...sides: readonly number[]): number[] =>
  sides.map((side) => resolution / side);

const modern = { scaleShiftNorm: true, residualResample: true } as const;

/** Everything that the ImageNet and LSUN denoisers share; 6 outputs: noise and variance. */
const denoiser = {
  ...modern,
  channels: 256,
  residualBlocks: 2,
  outChannels: 6,
} as const;

const at256: AdmUnetConfig = {
  ...denoiser,
  resolution: 256,
  multipliers: levels[256],
  attentionFactors: factorsAt(256, 32, 16, 8),
  headChannels: 64,
};

const improved = {
  scaleShiftNorm: true,
  residualBlocks: 3,
  outChannels: 6,
  heads: 4,
} as const;

/** Denoisers by data set, side and conditioning. */
export const admUnetConfigs = {
  "imagenet-64": {
    ...denoiser,
    resolution: 64,
    channels: 192,
    multipliers: levels[64],
    residualBlocks: 3,
    attentionFactors: factorsAt(64, 32, 16, 8),
    headChannels: 64,
    attentionOrder: "qkv-first",
    dropout: 0.1,
    classes: kImageNetClasses,
  },
  "imagenet-128": {
    ...denoiser,
    resolution: 128,
    multipliers: levels[128],
    attentionFactors: factorsAt(128, 32, 16, 8),
    heads: 4,
    classes: kImageNetClasses,
  },
  "imagenet-256": { ...at256, classes: kImageNetClasses },
  "imagenet-256-unconditional": at256,
  "imagenet-512": {
    ...denoiser,
    resolution: 512,
    multipliers: levels[512],
    attentionFactors: factorsAt(512, 32, 16, 8),
    headChannels: 64,
    classes: kImageNetClasses,
  },
  "lsun-256": { ...at256, dropout: 0.1 },
  "improved-cifar10": {
    ...improved,
    resolution: 32,
    channels: 128,
    multipliers: [1, 2, 2, 2],
    attentionFactors: factorsAt(32, 16, 8),
    dropout: 0.3,
  },
  "improved-imagenet-64": {
    ...improved,
    resolution: 64,
    channels: 128,
    multipliers: levels[64],
    attentionFactors: factorsAt(64, 16, 8),
  },
  "improved-imagenet-64-class": {
    ...improved,
    resolution: 64,
    channels: 192,
    multipliers: levels[64],
    attentionFactors: factorsAt(64, 16, 8),
    classes: kImageNetClasses,
  },
} as const satisfies Record<string, AdmUnetConfig>;

const upsampler = {
  ...denoiser,
  channels: 192,
  multipliers: levels[256],
  classes: kImageNetClasses,
  superResolution: true,
} as const;

/** Upsamplers of ImageNet by the sides they map between. */
export const admUpsamplerConfigs = {
  "imagenet-64-256": {
    ...upsampler,
    resolution: 256,
    attentionFactors: factorsAt(256, 32, 16, 8),
    heads: 4,
  },
  "imagenet-128-512": {
    ...upsampler,
    resolution: 512,
    attentionFactors: factorsAt(512, 32, 16),
    headChannels: 64,
  },
} as const satisfies Record<string, AdmUnetConfig>;

const classifier = (resolution: keyof typeof levels, residualBlocks = 2): AdmEncoderUnetConfig => ({
  ...modern,
  resolution,
  channels: 128,
  multipliers: levels[resolution],
  residualBlocks,
  attentionFactors: factorsAt(resolution, 32, 16, 8),
  headChannels: 64,
  outputs: kImageNetClasses,
  pool: "attention",
});

/** Classifiers of noisy ImageNet images. */
export const admClassifierConfigs = {
  "imagenet-64": classifier(64, 4),
  "imagenet-128": classifier(128),
  "imagenet-256": classifier(256),
  "imagenet-512": classifier(512),
} as const satisfies Record<string, AdmEncoderUnetConfig>;
