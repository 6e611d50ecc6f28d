// ADM's upsamplers and classifiers and the DDPM U-Net at every published size, without weights: traced, differentiated,
// verified, compiled and planned, and nothing is executed.
import { describe, it } from "vitest";
import { admClassifierConfigs, admUpsamplerConfigs } from "../../lib/models/adm-configs.js";
import { admEncoderUnet } from "../../lib/models/adm-encoder-unet.js";
import type { AdmEncoderUnetConfig } from "../../lib/models/adm-encoder-unet.js";
import { admUnet } from "../../lib/models/adm-unet.js";
import type { AdmUnetConfig } from "../../lib/models/adm-unet.js";
import { ddpmUnetConfigs } from "../../lib/models/ddpm-configs.js";
import { ddpmUnet } from "../../lib/models/ddpm-unet.js";
import type { DdpmUnetConfig } from "../../lib/models/ddpm-unet.js";
import { entriesOf, expectGoodPlan, forwardOnly, unetInput, withGradients } from "./plans.js";

const time = 60_000;

describe("upsamplers", () => {
  it.each(entriesOf<AdmUnetConfig>(admUpsamplerConfigs))("%s", async (_, config) => {
    const model = admUnet(config);
    const forward = unetInput(model, config.resolution, { ...config, lowResSide: config.resolution / 4 });
    await expectGoodPlan(forwardOnly(forward));
    await expectGoodPlan(withGradients(model.parameters, forward));
  }, time);
}); // prettier-ignore

describe("classifiers", () => {
  const configs: [string, AdmEncoderUnetConfig][] = [
    ...entriesOf<AdmEncoderUnetConfig>(admClassifierConfigs),
    ...(["adaptive", "spatial", "spatial-v2"] as const).map((pool): [string, AdmEncoderUnetConfig] => [
      `imagenet-64, ${pool} pooling`,
      { ...admClassifierConfigs["imagenet-64"], pool },
    ]),
  ]; // prettier-ignore

  it.each(configs)("%s", async (_, config) => {
    const model = admEncoderUnet(config);
    const forward = unetInput(model, config.resolution, {});
    await expectGoodPlan(forwardOnly(forward));
    await expectGoodPlan(withGradients(model.parameters, forward));
  }, time); // prettier-ignore
});

describe("DDPM U-Net", () => {
  it.each(entriesOf<DdpmUnetConfig>(ddpmUnetConfigs))("%s", async (_, config) => {
    const model = ddpmUnet(config);
    const forward = unetInput(model, config.resolution, {});
    await expectGoodPlan(forwardOnly(forward));
    await expectGoodPlan(withGradients(model.parameters, forward));
  }, time);
}); // prettier-ignore
