// Published KL autoencoders of latent diffusion, by the names of its model zoo. kl-f8 is also Stable Diffusion's, whose
// latents are multiplied by 0.18215. Source: CompVis/latent-diffusion models/first_stage_models.
import type { AutoencoderKlConfig } from "./autoencoder-kl.js";

const common = { resolution: 256, channels: 128, residualBlocks: 2 } as const;

export const autoencoderKlConfigs = {
  "kl-f4": { ...common, multipliers: [1, 2, 4], attentionResolutions: [], latentChannels: 3 },
  "kl-f8": { ...common, multipliers: [1, 2, 4, 4], attentionResolutions: [], latentChannels: 4 },
  "kl-f16": {
    ...common,
    multipliers: [1, 1, 2, 2, 4],
    attentionResolutions: [16],
    latentChannels: 16,
  },
  "kl-f32": {
    ...common,
    multipliers: [1, 1, 2, 2, 4, 4],
    attentionResolutions: [16, 8],
    latentChannels: 64,
  },
} satisfies Record<string, AutoencoderKlConfig>;
