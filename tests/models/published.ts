// Configurations of published models, for tests that build them at their size without weights.
import type { VqTransformerConfig } from "../../lib/models/vq-transformer.js";
import type { VqganConfig } from "../../lib/models/vqgan.js";

const f16Network: Omit<VqganConfig, "quantizer"> = {
  resolution: 256,
  channels: 128,
  multipliers: [1, 1, 2, 2, 4],
  residualBlocks: 2,
  attentionResolutions: [16],
  latentChannels: 256,
};

export const vqgans = {
  "f16-1024": { ...f16Network, quantizer: { codes: 1024, width: 256 } },
  "f16-16384": { ...f16Network, quantizer: { codes: 16384, width: 256 } },
  "ITHQ f8": {
    ...f16Network,
    channels: 64,
    multipliers: [1, 2, 4, 8],
    attentionResolutions: [32],
    quantizer: { codes: 4096, width: 128 },
  },
} satisfies Record<string, VqganConfig>;

const text = { kind: "text", width: 512 } as const;
const onGrid16 = {
  grid: [16, 16],
  positions: [32, 32],
  heads: 16,
  width: 512,
  mlp: "conv",
} as const;

export const transformers = {
  S: {
    codes: 2887,
    grid: [32, 32],
    width: 192,
    layers: 18,
    heads: 16,
    mlp: "conv",
    mlpRatio: 2,
    condition: text,
  },
  B: { codes: 2887, grid: [32, 32], width: 1024, layers: 19, heads: 16, condition: text },
  L: { codes: 4096, grid: [32, 32], width: 1408, layers: 36, heads: 16, condition: text },
  ImageNet: { ...onGrid16, codes: 974, layers: 24, condition: { kind: "class", classes: 1000 } },
  "ImageNet, 1001 classes": {
    ...onGrid16,
    codes: 974,
    layers: 24,
    condition: { kind: "class", classes: 1001 },
  },
  FFHQ: { ...onGrid16, codes: 1024, layers: 20 },
} satisfies Record<string, VqTransformerConfig>;
