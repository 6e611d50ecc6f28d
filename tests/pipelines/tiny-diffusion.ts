// Diffusion pipelines small enough for tests, one a system, with random weights.
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AutoencoderKlConfig } from "../../lib/models/autoencoder-kl.js";
import { initialValues } from "../../lib/nn/init.js";
import { uniformStream } from "../../lib/nn/random.js";
import {
  diffusionNetworks,
  saveDiffusion,
  specsOf,
  type DiffusionPart,
  type NetworkConfig,
} from "../../lib/pipelines/diffusion-folder.js";
import type { DiffusionSettings } from "../../lib/pipelines/diffusion-settings.js";

export const tinyKl: AutoencoderKlConfig = {
  resolution: 16,
  channels: 8,
  multipliers: [1, 2],
  residualBlocks: 1,
  attentionResolutions: [],
  groups: 4,
  latentChannels: 4,
};

export const tinyDit = {
  size: [8, 8],
  patch: 2,
  channels: 4,
  width: 16,
  layers: 2,
  heads: 2,
  classes: 5,
} as const;

export const tinyClip = {
  vocabulary: 520,
  length: 8,
  width: 16,
  layers: 1,
  heads: 2,
} as const;

const unet = {
  channels: 8,
  multipliers: [1, 2],
  residualBlocks: 1,
  attentionFactors: [2],
  heads: 2,
  groups: 4,
} as const;

const chain = { timesteps: 40 };
const defaults = { sampler: "ddim", steps: 4, spacing: "trailing", guidanceScale: 1 } as const;

export interface TinySystem {
  parts: { denoiser: NetworkConfig } & Partial<Record<DiffusionPart, NetworkConfig>>;
  settings: DiffusionSettings;
}

const kl = { model: "autoencoder-kl", config: tinyKl };

/** Strings of a VAE for 8 x 8 pictures with 6 latents. */
export const tinyVae = {
  resolution: 8,
  encoder: "8x1,8d8,8t1,1x1",
  decoder: "1x1,1u8,1t8,8x1",
  encoderChannels: "8:64,1:6",
  decoderChannels: "1:6,8:8",
};

export const tinySystems = {
  dit: {
    parts: { denoiser: { model: "dit", config: tinyDit }, firstStage: kl },
    settings: {
      process: { kind: "gaussian", chain, variance: "learnedRange" },
      size: [8, 8],
      latentScale: 0.5,
      defaults: { ...defaults, sampler: "ddpm", guidanceChannels: 3 },
    },
  },
  sit: {
    parts: { denoiser: { model: "dit", config: { ...tinyDit, sigma: "discarded" } }, firstStage: kl },
    settings: {
      process: { kind: "interpolant", path: "linear" },
      size: [8, 8],
      latentScale: 0.5,
      classes: ["a", "b", "c", "d", "golden hamster"],
      defaults: { ...defaults, sampler: "flow-ode", spacing: "even" },
    },
  },
  adm: {
    parts: { denoiser: { model: "adm-unet", config: { ...unet, resolution: 8, classes: 3, outChannels: 6 } } },
    settings: {
      process: { kind: "gaussian", chain, variance: "learnedRange" },
      size: [8, 8],
      defaults: { ...defaults, clamp: true, rederive: true },
    },
  },
  ddpm: {
    parts: {
      denoiser: {
        model: "ddpm-unet",
        config: { resolution: 8, channels: 8, multipliers: [1, 2], residualBlocks: 1, attentionResolutions: [4], groups: 4 },
      },
    },
    settings: {
      process: { kind: "gaussian", chain },
      size: [8, 8],
      defaults: { ...defaults, clamp: true },
    },
  },
  text: {
    parts: {
      denoiser: {
        model: "latent-diffusion-unet",
        config: { ...unet, resolution: 8, inChannels: 4, outChannels: 4, transformer: { contextWidth: 16 } },
      },
      firstStage: kl,
      textEncoder: { model: "clip-text-encoder", config: tinyClip },
    },
    settings: {
      process: { kind: "gaussian", chain: { ...chain, schedule: "scaled-linear" } },
      size: [8, 8],
      latentScale: 0.5,
      text: { padding: "end" },
      defaults: { ...defaults, guidanceScale: 3 },
    },
  },
  classes: {
    parts: {
      denoiser: {
        model: "latent-diffusion-unet",
        config: { ...unet, resolution: 8, inChannels: 4, outChannels: 4, transformer: { contextWidth: 16 } },
      },
      firstStage: kl,
      classEmbedder: { model: "class-embedder", config: { classes: 4, nullClass: true, width: 16 } },
    },
    settings: {
      process: { kind: "gaussian", chain },
      size: [8, 8],
      latentScale: 0.5,
      defaults: { ...defaults, guidanceScale: 3 },
    },
  },
  diffusevae: {
    parts: {
      denoiser: { model: "diffusevae-unet", config: { ...unet } },
      vae: { model: "diffusevae-vae", config: tinyVae },
    },
    settings: {
      process: { kind: "gaussian", chain, formulation: 2 },
      size: [8, 8],
      defaults: { ...defaults, sampler: "ddpm", clamp: true },
    },
  },
  classVae: {
    parts: {
      denoiser: { model: "diffusevae-unet", config: { ...unet, classes: 3, latentWidth: 6 } },
      vae: { model: "diffusevae-vae", config: { ...tinyVae, encoder: "8x1,8d8,8t1,1x1", decoder: "1x1,1u8,1t8,8x1", decoderChannels: "1:14,8:8", classes: 3, classWidth: 8 } },
    },
    settings: {
      process: { kind: "gaussian", chain, formulation: 1 },
      size: [8, 8],
      defaults: { ...defaults, sampler: "ddpm", clamp: true },
    },
  },
  fit: {
    parts: {
      denoiser: { model: "fit", config: { patch: 2, width: 16, layers: 1, heads: 2, classes: 5 } },
      firstStage: kl,
    },
    settings: {
      process: { kind: "interpolant", path: "linear" },
      size: [8, 8],
      latentScale: 0.5,
      defaults: { ...defaults, sampler: "flow-ode", spacing: "even" },
    },
  },
  upsampler: {
    parts: { denoiser: { model: "adm-unet", config: { ...unet, resolution: 8, superResolution: true } } },
    settings: {
      process: { kind: "gaussian", chain },
      size: [8, 8],
      defaults: { ...defaults, clamp: true, rederive: true },
    },
  },
  classified: {
    parts: {
      denoiser: { model: "adm-unet", config: { ...unet, resolution: 8, outChannels: 6 } },
      classifier: { model: "adm-encoder-unet", config: { ...unet, resolution: 8, outputs: 3, pool: "adaptive" } },
    },
    settings: {
      process: { kind: "gaussian", chain, variance: "learnedRange" },
      size: [8, 8],
      defaults: { ...defaults, clamp: true, classifierScale: 10 },
    },
  },
  divae: {
    parts: {
      denoiser: {
        model: "divae",
        config: {
          encoder: { resolution: 16, patch: 8, width: 16, layers: 1, heads: 2 },
          quantizer: { codes: 10, width: 4 },
          decoder: { kind: "unet", patch: 2, ...unet },
        },
      },
    },
    settings: {
      process: { kind: "gaussian", chain, prediction: "x0" },
      size: [16, 16],
      defaults: { ...defaults, clamp: true },
    },
  },
} as const satisfies Record<string, TinySystem>; // prettier-ignore

/** Weights in which nothing is exactly zero: zero-initialised last layers would hide everything before them. */
export function tinyWeights(network: Parameters<typeof specsOf>[0], seed: number) {
  const specs = specsOf(network);
  const values = initialValues(specs, seed);
  for (const [name, row] of values) {
    if (row.some((value) => value !== 0)) continue;
    values.set(
      name,
      Float32Array.from(uniformStream(seed, name, row.length), (u) => (u - 0.5) / 4),
    );
  }
  return values;
}

/** Writes a system to a temporary folder and returns the folder. */
export async function tinyDiffusion({ parts, settings }: TinySystem): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "smalti-diffusion-"));
  const networks = diffusionNetworks(parts, settings);
  const weighted = Object.entries(parts).map(([part, network], i) => [
    part,
    { ...network, weights: tinyWeights(networks[part as DiffusionPart]!, 20 + i) },
  ]);
  await saveDiffusion(folder, {
    name: "tiny",
    settings,
    parts: Object.fromEntries(weighted) as Parameters<typeof saveDiffusion>[1]["parts"],
    dtype: "f32",
  });
  return folder;
}
