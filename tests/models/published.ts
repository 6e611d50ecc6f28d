// Configurations of published models, for tests that build them at their size without weights.
import { vqganConfigs } from "../../lib/models/vqgan-configs.js";
import type { VqganConfig } from "../../lib/models/vqgan.js";
import { vqTransformerConfigs } from "../../lib/models/vq-transformer-configs.js";
import type { VqTransformerConfig } from "../../lib/models/vq-transformer.js";

export const vqgans = {
  "f16-1024": vqganConfigs["f16-1024"],
  "f16-16384": vqganConfigs["f16-16384"],
  "f8-8192 Gumbel": vqganConfigs["f8-8192-gumbel"],
  // with its codebook as a parameter, so that it counts as one
  "ITHQ f8": { ...vqganConfigs["f8-4096-ithq"], quantizer: { codes: 4096, width: 128 } },
} satisfies Record<string, VqganConfig>;

export const transformers = {
  S: vqTransformerConfigs.small,
  B: vqTransformerConfigs.base,
  L: vqTransformerConfigs.large,
  ImageNet: vqTransformerConfigs.imagenet,
  "ImageNet, 1001 classes": vqTransformerConfigs["imagenet-null"],
  FFHQ: vqTransformerConfigs.ffhq,
} satisfies Record<string, VqTransformerConfig>;
