// Published tokenizers with diffusion decoders, as data: apple/ml-4m cfgs/default/tokenization/divae. The 448 ones are
// the second phase of training, with resolutions drawn up to that.
import type { DivaeConfig, DivaeDecoderConfig } from "./divae.js";

const vitBase = (resolution: number) =>
  ({ resolution, patch: 16, width: 768, layers: 12, heads: 12, postMlp: true }) as const;

const unet: DivaeDecoderConfig = {
  kind: "unet",
  patch: 4,
  channels: 256,
  multipliers: [1, 2, 2, 2],
  residualBlocks: 3,
  attentionFactors: [4, 8],
};

const withUnet = (imageChannels: number, codes: number, resolution: number): DivaeConfig => ({
  imageChannels,
  encoder: vitBase(resolution),
  quantizer: { codes, width: 32 },
  decoder: unet,
});

/** The convolutional levels of every U-ViT. */
const levels = { kind: "uvit", widths: [128, 256] } as const;
const f16 = { ...levels, middleDownsample: true } as const;
const base = { width: 768, layers: 12, heads: 12 } as const;
const large = { width: 1024, layers: 24, heads: 16 } as const;
const huge = { width: 1280, layers: 32, heads: 16 } as const;

/** U-ViT decoders by size and tokens; names without the reference's "uvit_" and "_p4". */
export const uvitDecoders = {
  "b-f16": { ...f16, ...base },
  "l-f16": { ...f16, ...large },
  "h-f16": { ...f16, ...huge },
  "b-f16-longskip": { ...f16, ...base, layers: 13, longSkip: true },
  "l-f16-longskip": { ...f16, ...large, layers: 25, longSkip: true },
  "b-f8": { ...levels, ...base },
  "l-f8": { ...levels, ...large },
  "b-f16-extraconv": { ...levels, widths: [128, 256, 512], ...base },
  "l-f16-extraconv": { ...levels, widths: [128, 256, 512], ...large },
} as const satisfies Record<string, DivaeDecoderConfig>;

export const divaeConfigs = {
  "rgb-16k-224": withUnet(3, 16384, 224),
  "rgb-16k-448": withUnet(3, 16384, 448),
  "depth-8k-224": withUnet(1, 8192, 224),
  "depth-8k-448": withUnet(1, 8192, 448),
  "normal-8k-224": withUnet(3, 8192, 224),
  "normal-8k-448": withUnet(3, 8192, 448),
  "canny-8k-224": withUnet(1, 8192, 224),
  "canny-8k-448": withUnet(1, 8192, 448),
  "rgb-1k-uvit-448": {
    encoder: vitBase(448),
    quantizer: { codes: 1024, width: 32 },
    decoder: { ...uvitDecoders["b-f16"], dropout: 0.2 },
  },
} as const satisfies Record<string, DivaeConfig>;
