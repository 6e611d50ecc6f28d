// Tokenizers with diffusion decoders at every published size, without weights: traced, differentiated, verified,
// compiled and planned, and nothing is executed.
import { describe, it } from "vitest";
import { divae } from "../../lib/models/divae.js";
import type { Divae, DivaeConfig, DivaeDecoderConfig } from "../../lib/models/divae.js";
import { divaeConfigs, uvitDecoders } from "../../lib/models/divae-configs.js";
import type { Trace } from "../../lib/trace/trace.js";
import { distinctEntries, entriesOf, expectGoodPlan, forwardOnly, withGradients } from "./plans.js";

const time = 60_000;

/** Encoder, codes, and the prediction for one noisy picture. */
const whole = (model: Divae, side: number) => (t: Trace) => {
  const { imageChannels = 3 } = model.config;
  const x = t.input("x", { shape: [1, side, side, imageChannels] });
  const { quantised } = model.quantizer.quantise(model.encode(x));
  return model.denoise({ x, times: t.input("times", { shape: [1] }), condition: quantised });
};

describe("published tokenizers", () => {
  it.each(distinctEntries<DivaeConfig>(divaeConfigs))("%s", async (_, config) => {
    const model = divae(config);
    const side = config.encoder.resolution;
    const { imageChannels = 3 } = config;
    const tokens = (t: Trace) =>
      model.tokenize(t.input("x", { shape: [1, side, side, imageChannels] }));
    await expectGoodPlan(forwardOnly(tokens));
    await expectGoodPlan(withGradients(model.parameters, whole(model, side)));
  }, time);
}); // prettier-ignore

describe("U-ViT decoders", () => {
  it.each(entriesOf<DivaeDecoderConfig>(uvitDecoders))("%s", async (_, decoder) => {
    const kinds = decoder.kind === "uvit" ? (["add", "attention"] as const) : [];
    for (const conditionKind of kinds) {
      const model = divae({
        ...divaeConfigs["rgb-1k-uvit-448"],
        decoder: { ...decoder, conditionKind } as DivaeDecoderConfig,
      });
      const forward = (t: Trace) =>
        model.denoise({
          x: t.input("x", { shape: [1, 224, 224, 3] }),
          times: t.input("times", { shape: [1] }),
          condition: t.input("condition", { shape: [1, 14, 14, 32] }),
          hidden: t.input("hidden", { shape: [1, 14, 14] }),
        });
      await expectGoodPlan(forwardOnly(forward));
    }
  }, time);
}); // prettier-ignore
