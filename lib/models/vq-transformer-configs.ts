// Published transformers of VQ-Diffusion. Source: microsoft/VQ-Diffusion configs.
import type { VqTransformerConfig } from "./vq-transformer.js";

const text = { kind: "text", width: 512 } as const;
const onGrid16 = {
  grid: [16, 16],
  positions: [32, 32],
  heads: 16,
  width: 512,
  mlp: "conv",
} as const;

export const vqTransformerConfigs = {
  /** CUB-200. */
  small: {
    codes: 2887,
    grid: [32, 32],
    width: 192,
    layers: 18,
    heads: 16,
    mlp: "conv",
    mlpRatio: 2,
    condition: text,
  },
  /** COCO, CUB-200, Conceptual Captions. */
  base: { codes: 2887, grid: [32, 32], width: 1024, layers: 19, heads: 16, condition: text },
  /** ITHQ, in both code bases. */
  large: { codes: 4096, grid: [32, 32], width: 1408, layers: 36, heads: 16, condition: text },
  imagenet: { ...onGrid16, codes: 974, layers: 24, condition: { kind: "class", classes: 1000 } },
  /** With a row for the null class. */
  "imagenet-null": {
    ...onGrid16,
    codes: 974,
    layers: 24,
    condition: { kind: "class", classes: 1001 },
  },
  ffhq: { ...onGrid16, codes: 1024, layers: 20 },
} satisfies Record<string, VqTransformerConfig>;
