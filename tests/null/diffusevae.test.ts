// DiffuseVAE's two stages at every published size, without weights: traced, differentiated, verified, compiled and
// planned, and nothing is executed. Equal networks of two data sets are planned once.
import { describe, expect, it } from "vitest";
import { diffuseVaeConfigs, diffuseVaeUnetConfigs } from "../../lib/models/diffusevae-configs.js";
import { diffuseVaeUnet } from "../../lib/models/diffusevae-unet.js";
import type { DiffuseVaeUnetConfig } from "../../lib/models/diffusevae-unet.js";
import { diffuseVae, diffuseVaeLoss, drawLatent } from "../../lib/models/diffusevae-vae.js";
import type { DiffuseVaeConfig } from "../../lib/models/diffusevae-vae.js";
import type { Trace } from "../../lib/trace/trace.js";
import { distinctEntries, expectGoodPlan, forwardOnly, unetInput, withGradients } from "./plans.js";

const time = 60_000;

/** Multiply-adds of one call in units of 1e9, from the table of the network's conv, linear and attention layers. */
const published: Readonly<Record<string, number>> = {
  cifar10: 5.72,
  "cifar10-large": 11.79,
  celeba64: 23.65,
  celebahq128: 98.1,
  ffhq128: 65.5,
  celebahq256: 248.7,
};

describe("U-Nets", () => {
  const configs = distinctEntries<DiffuseVaeUnetConfig>(diffuseVaeUnetConfigs);

  it.each(configs)("%s", async (name, config) => {
    const model = diffuseVaeUnet(config);
    const side = config.resolution!;
    const forward = unetInput(model, side, config.conditional === false ? {} : { lowResSide: side });
    const { multiplyAdds } = await expectGoodPlan(forwardOnly(forward));
    if (published[name] !== undefined) {
      expect(multiplyAdds / 1e9 / published[name]).toBeGreaterThan(0.99);
      expect(multiplyAdds / 1e9 / published[name]).toBeLessThan(1.02);
    }
    await expectGoodPlan(withGradients(model.parameters, forward));
  }, time); // prettier-ignore
});

describe("VAEs", () => {
  it.each(distinctEntries<DiffuseVaeConfig>(diffuseVaeConfigs))("%s", async (_, config) => {
    const model = diffuseVae(config);
    const side = config.resolution;
    const decode = (t: Trace) => {
      return model.decode(t.input("z", { shape: [1, 1, 1, model.latentWidth] }));
    };
    const loss = (t: Trace) => {
      const images = t.input("images", { shape: [1, side, side, 3] });
      const posterior = model.encode(images);
      expect(posterior.mean.shape).toEqual([1, 1, 1, model.latentWidth]);
      const z = drawLatent(posterior, t.input("noise", { shape: posterior.mean.shape }));
      const decoded = model.decode(z);
      expect(decoded.shape).toEqual(images.shape);
      return diffuseVaeLoss(images, decoded, posterior).total;
    };
    await expectGoodPlan(forwardOnly(decode));
    await expectGoodPlan(withGradients(model.parameters, loss));
  }, time);
}); // prettier-ignore
