// Checkpoints of latent diffusion's U-Nets and of LPIPS are recognised from names and shapes: what comes back is the
// configuration that made them.
import { describe, expect, it } from "vitest";
import { recognise } from "../../lib/models/families.js";
import type { Family } from "../../lib/models/family.js";
import { latentDiffusionFamilies } from "../../lib/models/latent-diffusion.family.js";
import { latentDiffusionUnetConfigs } from "../../lib/models/latent-diffusion-configs.js";
import type { LatentDiffusionUnetConfig } from "../../lib/models/latent-diffusion-unet.js";
import { lpipsFamilies } from "../../lib/models/lpips.family.js";
import { foreignCheckpoint } from "./foreign-checkpoint.js";

const place = "model.diffusion_model.";

/** The only family that is found in a checkpoint of this configuration, and what it makes of it. */
function roundTrip(family: Family, config: LatentDiffusionUnetConfig, at = place) {
  const found = recognise("test", foreignCheckpoint(family, config, at));
  expect(found.map((match) => match.family.name)).toEqual([family.name]);
  const { resolution, heads = 0, headChannels = 0 } = config;
  const facts = {
    resolution,
    heads: headChannels > 0 ? 0 : heads,
    headChannels,
    attentionOrder: config.attentionOrder ?? "heads-first",
    groups: config.groups ?? 32,
  };
  return family.configure(found[0]!.shapes, facts) as LatentDiffusionUnetConfig;
}

const [crossed, plain] = latentDiffusionFamilies as [Family, Family];

describe("U-Nets of latent diffusion", () => {
  it.each(Object.entries(latentDiffusionUnetConfigs as Record<string, LatentDiffusionUnetConfig>))(
    "%s",
    (name, config) => {
      const family = config.transformer ? crossed : plain;
      expect(roundTrip(family, config)).toMatchObject(family.published![name]!);
    },
  );

  it("stand alone when they have transformers", () => {
    const config = latentDiffusionUnetConfigs["cin256-v2"];
    expect(roundTrip(crossed, config, "")).toMatchObject(crossed.published!["cin256-v2"]!);
  });

  it("show heads that do not divide the width, codes, classes and depth", () => {
    const config: LatentDiffusionUnetConfig = {
      resolution: 8,
      inChannels: 3,
      outChannels: 3,
      channels: 32,
      multipliers: [1, 2],
      residualBlocks: 1,
      attentionFactors: [1, 2],
      headChannels: 12,
      legacyHeads: false,
      classes: 5,
      transformer: { contextWidth: 7, depth: 2 },
    };
    expect(roundTrip(crossed, config)).toMatchObject(config);
    expect(roundTrip(crossed, { ...config, legacyHeads: true })).not.toHaveProperty("legacyHeads");
  });

  it("take their facts from a project's yaml", () => {
    const params = { image_size: 64, model_channels: 192, num_heads: -1, num_head_channels: 32 };
    const file = { model: { params: { unet_config: { params } } } };
    expect(crossed.readConfig!(file)).toEqual({
      resolution: 64,
      heads: 0,
      headChannels: 32,
      attentionOrder: "heads-first",
    });
    expect(crossed.readConfig!({ model: { params: {} } })).toBeUndefined();
  });
});

describe("LPIPS", () => {
  it.each(["", "loss.perceptual_loss."])("at %j", (at) => {
    const [family] = lpipsFamilies as [Family];
    const config = { widths: [4, 6, 8, 10, 12] };
    const found = recognise("test", foreignCheckpoint(family, config, at));
    expect(found.map((match) => match.family.name)).toEqual(["taming-lpips"]);
    expect(family.configure(found[0]!.shapes, {})).toEqual(config);
  });
});
