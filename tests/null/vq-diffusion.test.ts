// The larger transformers of VQ-Diffusion at their published size, and diffusers' options on top, without weights: traced,
// differentiated, verified, compiled and planned, and nothing is executed.
import { describe, it } from "vitest";
import { vqTransformerConfigs } from "../../lib/models/vq-transformer-configs.js";
import { vqTransformer } from "../../lib/models/vq-transformer.js";
import type { VqTransformerConfig } from "../../lib/models/vq-transformer.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import type { Trace } from "../../lib/trace/trace.js";
import { expectGoodPlan, forwardOnly, withGradients } from "./plans.js";

const { base, large, "imagenet-null": imagenet } = vqTransformerConfigs;

describe("VQ-Diffusion transformers", () => {
  it.each<[string, VqTransformerConfig]>([
    ["base", base],
    ["large", large],
    ["ImageNet with a null class", imagenet],
    ["base, gated and without biases", { ...base, activation: "geglu", projectionBias: false }],
  ])("%s", async (_, config) => {
    const model = vqTransformer(config);
    const tokens = config.grid[0] * config.grid[1];
    const forward = (t: Trace): Tensor =>
      model.forward({
        tokens: t.input("tokens", { shape: [1, tokens], dtype: "i32" }),
        times: t.input("times", { shape: [1], dtype: "i32" }),
        ...(config.condition?.kind === "text" && {
          condition: t.input("condition", { shape: [1, 77, config.condition.width] }),
        }),
        ...(config.condition?.kind === "class" && {
          labels: t.input("labels", { shape: [1], dtype: "i32" }),
        }),
      });
    await expectGoodPlan(forwardOnly(forward));
    await expectGoodPlan(withGradients(model.parameters, forward));
  }, 60_000);
}); // prettier-ignore
