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
