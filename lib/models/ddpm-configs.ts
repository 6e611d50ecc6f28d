// Published configurations of the DDPM U-Net, as data: ermongroup/ddim configs/, the networks of Ho et
// al. 2020, arXiv:2006.11239, appendix B.
import type { DdpmUnetConfig } from "./ddpm-unet.js";

export const ddpmUnetConfigs = {
  cifar10: {
    resolution: 32,
    channels: 128,
    multipliers: [1, 2, 2, 2],
    residualBlocks: 2,
    attentionResolutions: [16],
    dropout: 0.1,
  },
  "lsun-celebahq-256": {
    resolution: 256,
    channels: 128,
    multipliers: [1, 1, 2, 2, 4, 4],
    residualBlocks: 2,
    attentionResolutions: [16],
  },
} as const satisfies Record<string, DdpmUnetConfig>;

/** Networks published as UNet2DModel of huggingface/diffusers whose options are not those of Ho et al. */
export const diffusersDdpmConfigs = {
  /** Latents of vq-f4: CompVis/ldm-celebahq-256. */
  "ldm-celebahq-256": {
    resolution: 64,
    channels: 224,
    multipliers: [1, 2, 3, 4],
    residualBlocks: 2,
    attentionResolutions: [32, 16, 8],
    headChannels: 32,
    eps: 1e-5,
    timeFirst: "cos",
    downsamplePadding: "both",
  },
} as const satisfies Record<string, DdpmUnetConfig>;
