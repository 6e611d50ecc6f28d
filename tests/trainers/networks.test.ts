// The published networks as denoisers, at tiny size: every gradient arrives and the loss falls.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { denoiser } from "../../lib/models/denoiser.js";
import type { DerivedInputs } from "../../lib/trainers/frozen-stage.js";
import { trainLoop } from "../../lib/trainers/loop.js";
import { blocks, denoiserTrainer, type DenoiserSetting } from "./tiny-trainers.js";

const small = { resolution: 16, channels: 8, multipliers: [1, 2], residualBlocks: 1, groups: 4 };
const tiny = { patch: 4, channels: 3, width: 16, layers: 1, heads: 2, classes: 2 };

const chain = { timesteps: 50, schedule: "cosine" } as const;
const learned = { kind: "gaussian", chain, variance: "learnedRange" } as const;
const path = { kind: "interpolant", path: "linear" } as const;

const dimmed: DerivedInputs = {
  inputs: (shape) => ({ pair: { shape } }),
  read: ({ images }) => ({ pair: images.map((value) => value / 2) }),
};

const classes: Pick<DenoiserSetting, "conditions"> = {
  conditions: {
    inputs: (B) => ({ labels: { shape: [B], dtype: "i32" } }),
    values: ({ size }) => ({ labels: new Int32Array(size) }),
  },
};

const networks: Record<string, Partial<DenoiserSetting> & Pick<DenoiserSetting, "network">> = {
  "ADM U-Net": {
    network: denoiser("adm-unet", { ...small, outChannels: 6, attentionFactors: [2], scaleShiftNorm: true, residualResample: true }),
    process: learned,
  },
  "DDPM U-Net": { network: denoiser("ddpm-unet", { ...small, attentionResolutions: [8] }) },
  "DiffuseVAE U-Net, formulation 1": {
    network: denoiser("diffusevae-unet", { ...small, attentionFactors: [2], heads: 2 }),
    derived: dimmed,
  },
  "latent diffusion's U-Net": {
    network: denoiser("latent-diffusion-unet", { ...small, inChannels: 3, outChannels: 3, attentionFactors: [2], heads: 2 }),
  },
  "DiT with classes": {
    ...{ network: denoiser("dit", { ...tiny, size: [16, 16] }), ...classes },
    process: learned,
  },
  "SiT with classes": {
    ...{ network: denoiser("dit", { ...tiny, size: [16, 16], sigma: "discarded" }), ...classes },
    process: path,
  },
  "FiT with classes": {
    ...{ network: denoiser("fit", tiny), ...classes },
    process: path,
    loss: { timesteps: "logit-normal" },
  },
}; // prettier-ignore

let folder: string;
beforeAll(async () => (folder = await mkdtemp(join(tmpdir(), "smalti-networks-"))));
afterAll(() => rm(folder, { recursive: true }));

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length; // prettier-ignore

it.each(Object.entries(networks))("%s", async (name, options) => {
  const trainer = await denoiserTrainer({
    process: { kind: "gaussian", chain },
    dataset: blocks,
    batchSize: 4,
    seed: 3,
    ...options,
  });
  const losses: number[] = [];
  const checkpoint = join(folder, `${name.replaceAll(/\W/g, "-")}.safetensors`);
  for await (const event of trainLoop(trainer, { steps: 40, lr: () => 2e-3, checkpoint }))
    if (event.type === "step") losses.push(event.loss);
  expect(mean(losses.slice(-8))).toBeLessThan(0.85 * mean(losses.slice(0, 8)));
});
