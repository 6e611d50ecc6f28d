// First stages and U-Nets of latent diffusion at every published size, without weights: traced, differentiated, verified,
// compiled and planned, and nothing is executed.
import { describe, it } from "vitest";
import { autoencoderKlConfigs } from "../../lib/models/autoencoder-kl-configs.js";
import { autoencoderKl } from "../../lib/models/autoencoder-kl.js";
import type { AutoencoderKlConfig } from "../../lib/models/autoencoder-kl.js";
import { latentDiffusionUnetConfigs } from "../../lib/models/latent-diffusion-configs.js";
import { latentDiffusionUnet } from "../../lib/models/latent-diffusion-unet.js";
import type { LatentDiffusionUnetConfig } from "../../lib/models/latent-diffusion-unet.js";
import { lpips } from "../../lib/models/lpips.js";
import { vqganConfigs } from "../../lib/models/vqgan-configs.js";
import { vqgan } from "../../lib/models/vqgan.js";
import type { VqganConfig } from "../../lib/models/vqgan.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import type { Trace } from "../../lib/trace/trace.js";
import { entriesOf, expectGoodPlan, forwardOnly, withGradients } from "./plans.js";

const image = (t: Trace, side: number): Tensor => t.input("image", { shape: [1, side, side, 3] });

describe("KL autoencoders", () => {
  it.each(entriesOf<AutoencoderKlConfig>(autoencoderKlConfigs))("%s", async (_, config) => {
    const model = autoencoderKl(config);
    const side = config.resolution / model.stride;
    const shape = [1, side, side, model.latentChannels];
    const part = (...names: string[]) =>
      model.parameters.filter(({ name }) => names.some((start) => name.startsWith(start)));
    const encode = (t: Trace): Tensor => model.moments(image(t, config.resolution));
    const decode = (t: Trace): Tensor => model.decode(t.input("latents", { shape }));
    await expectGoodPlan(forwardOnly(encode));
    await expectGoodPlan(forwardOnly(decode));
    await expectGoodPlan(withGradients(part("encoder", "quant"), encode));
    await expectGoodPlan(withGradients(part("decoder", "post_quant"), decode));
  }, 60_000);
}); // prettier-ignore

describe("VQGANs", () => {
  it.each(entriesOf<VqganConfig>(vqganConfigs))("%s", async (_, config) => {
    const model = vqgan(config);
    const reconstruct = (t: Trace): Tensor => {
      const { quantised, loss } = model.quantizer.quantise(model.encode(image(t, config.resolution)));
      return model.decode(quantised).add(loss);
    };
    await expectGoodPlan(forwardOnly(reconstruct));
    await expectGoodPlan(withGradients(model.parameters, reconstruct));
  }, 60_000);
}); // prettier-ignore

/** The first name of each network: some were trained on several sets of pictures. */
const networks = entriesOf<LatentDiffusionUnetConfig>(latentDiffusionUnetConfigs).filter(
  ([, config], i, all) => all.findIndex(([, other]) => other === config) === i,
);

describe("U-Nets", () => {
  it.each(networks)("%s", async (_, config) => {
    const model = latentDiffusionUnet(config);
    const { resolution: side, inChannels, transformer } = config;
    const forward = (t: Trace): Tensor =>
      model.forward({
        x: t.input("x", { shape: [1, side, side, inChannels] }),
        times: t.input("times", { shape: [1] }),
        ...(transformer && {
          context: t.input("context", { shape: [1, 77, transformer.contextWidth] }),
        }),
      });
    await expectGoodPlan(forwardOnly(forward));
    await expectGoodPlan(withGradients(model.parameters, forward));
  }, 60_000);
}); // prettier-ignore

describe("LPIPS", () => {
  it("on VGG16", async () => {
    const model = lpips();
    const distance = (t: Trace): Tensor =>
      model.distance(image(t, 256), t.input("other", { shape: [1, 256, 256, 3] }));
    await expectGoodPlan(forwardOnly(distance));
    await expectGoodPlan(withGradients(model.parameters, distance));
  }, 60_000);
});
