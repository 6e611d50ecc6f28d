// The published networks as denoisers, at tiny size: every gradient arrives and the loss falls.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { admUnet } from "../../lib/models/adm-unet.js";
import { ddpmUnet } from "../../lib/models/ddpm-unet.js";
import { diffuseVaeUnet } from "../../lib/models/diffusevae-unet.js";
import { dit, type Dit } from "../../lib/models/dit.js";
import { fit, type Fit } from "../../lib/models/fit.js";
import { latentDiffusionUnet } from "../../lib/models/latent-diffusion-unet.js";
import { sit } from "../../lib/models/sit.js";
import type { DenoiserNetwork } from "../../lib/trainers/denoiser.js";
import { trainLoop } from "../../lib/trainers/loop.js";
import { blocks, denoiserTrainer, type DenoiserSetting } from "./tiny-trainers.js";

const small = { resolution: 16, channels: 8, multipliers: [1, 2], residualBlocks: 1, groups: 4 };

const adm = admUnet({ ...small, outChannels: 6, attentionFactors: [2], scaleShiftNorm: true, residualResample: true }); // prettier-ignore
const ddpm = ddpmUnet({ ...small, attentionResolutions: [8] });
const diffuseVae = diffuseVaeUnet({ ...small, attentionFactors: [2], heads: 2 });
const latent = latentDiffusionUnet({ ...small, inChannels: 3, outChannels: 3, attentionFactors: [2], heads: 2 }); // prettier-ignore
const transformer = dit({ size: [16, 16], patch: 4, channels: 3, width: 16, layers: 1, heads: 2, classes: 2, sigma: "learned" }); // prettier-ignore

const chain = { timesteps: 50, schedule: "cosine" } as const;
const learned = { kind: "gaussian", chain, variance: "learnedRange" } as const;

const path = { kind: "interpolant", path: "linear" } as const;

const told = (model: Dit | Fit): Pick<DenoiserSetting, "network" | "conditions"> => ({
  network: {
    ...model,
    forward: ({ x, times, conditions }) =>
      model.forward({ x, times, labels: conditions["labels"]! }),
  },
  conditions: {
    inputs: (B) => ({ labels: { shape: [B], dtype: "i32" } }),
    values: ({ size }) => ({ labels: new Int32Array(size) }),
  },
});

const interpolant = sit({
  size: [16, 16],
  patch: 4,
  channels: 3,
  width: 16,
  layers: 1,
  heads: 2,
  classes: 2,
});
const anySize = fit({ patch: 4, channels: 3, width: 16, layers: 1, heads: 2, classes: 2 });

const networks: Record<string, Partial<DenoiserSetting> & { network: DenoiserNetwork }> = {
  "ADM U-Net": { network: { ...adm, forward: ({ x, times }) => adm.forward({ x, times }) }, process: learned },
  "DDPM U-Net": { network: { ...ddpm, forward: ({ x, times }) => ddpm.forward({ x, times }) } },
  "DiffuseVAE U-Net, formulation 1": {
    network: { ...diffuseVae, forward: ({ x, times, pair }) => diffuseVae.forward({ x, times, lowRes: pair! }) },
    pair: { shape: (picture) => picture, read: ({ images }) => images.map((value) => value / 2) },
  },
  "latent diffusion's U-Net": { network: { ...latent, forward: ({ x, times }) => latent.forward({ x, times }) } },
  "DiT with classes": { ...told(transformer), process: learned },
  "SiT with classes": { ...told(interpolant), process: path },
  "FiT with classes": { ...told(anySize), process: path, loss: { timesteps: "logit-normal" } },
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
