// Published VQGANs: those of CompVis/taming-transformers (also the codecs of VQ-Diffusion), the ITHQ codec of
// microsoft/VQ-Diffusion, and the first stages of CompVis/latent-diffusion by the names of its model zoo.
import type { VqganConfig } from "./vqgan.js";

const common = { resolution: 256, channels: 128, residualBlocks: 2 } as const;
const f16 = { ...common, multipliers: [1, 1, 2, 2, 4], attentionResolutions: [16] };
const f8 = { ...common, multipliers: [1, 2, 2, 4], attentionResolutions: [32] };
const f4 = { ...common, multipliers: [1, 2, 4], attentionResolutions: [] };

export const vqganConfigs = {
  /** ImageNet and FFHQ. */
  "f16-1024": { ...f16, latentChannels: 256, quantizer: { codes: 1024, width: 256 } },
  "f16-16384": { ...f16, latentChannels: 256, quantizer: { codes: 16384, width: 256 } },
  /** OpenImages: the codec of VQ-Diffusion's text models, of whose codes they keep 2887. */
  "f8-8192-gumbel": {
    ...common,
    multipliers: [1, 1, 2, 4],
    attentionResolutions: [32],
    latentChannels: 256,
    quantizer: { kind: "gumbel", codes: 8192, width: 256, klWeight: 1e-8 },
  },
  "f8-4096-ithq": {
    ...common,
    channels: 64,
    multipliers: [1, 2, 4, 8],
    attentionResolutions: [32],
    latentChannels: 256,
    quantizer: { codes: 4096, width: 128, codebook: "ema" },
  },
  "vq-f4": { ...f4, latentChannels: 3, quantizer: { codes: 8192, width: 3 } },
  "vq-f4-noattn": {
    ...f4,
    middleAttention: false,
    latentChannels: 3,
    quantizer: { codes: 8192, width: 3 },
  },
  "vq-f8": { ...f8, latentChannels: 4, quantizer: { codes: 16384, width: 4 } },
  "vq-f8-n256": { ...f8, latentChannels: 4, quantizer: { codes: 256, width: 4 } },
  "vq-f16": { ...f16, latentChannels: 8, quantizer: { codes: 16384, width: 8 } },
} satisfies Record<string, VqganConfig>;
