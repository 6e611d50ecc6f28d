// Whole models at their published sizes without weights: traced, differentiated, verified, lowered, compiled and planned,
// and nothing is executed.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, it } from "vitest";
import type { ParamSpec } from "../../lib/ir/param.js";
import { lpips } from "../../lib/models/lpips.js";
import { patchDiscriminator } from "../../lib/models/patch-discriminator.js";
import { textToToken } from "../../lib/models/text-to-token.js";
import { vqTransformer, type VqTransformerConfig } from "../../lib/models/vq-transformer.js";
import { vqgan } from "../../lib/models/vqgan.js";
import { ParamScope } from "../../lib/nn/module.js";
import type { Trace } from "../../lib/trace/trace.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { discriminatorStepOptions, generatorStepOptions } from "../../lib/trainers/autoencoder.js";
import { discreteStepOptions } from "../../lib/trainers/discrete.js";
import type { TokenizerRecipe } from "../../lib/trainers/tokenizer-recipe.js";
import { fusedStepGraph } from "../../lib/trainers/train-step.js";
import type { VqDiffusionRecipe } from "../../lib/trainers/vq-diffusion-recipe.js";
import { transformers, vqgans } from "../models/published.js";
import { expectGoodPlan, forwardOnly, withGradients } from "./plans.js";

const image = (t: Trace): Tensor => t.input("image", { shape: [1, 256, 256, 3] });
const ids = (t: Trace, name: string, shape: number[]): Tensor =>
  t.input(name, { shape, dtype: "i32" });

describe("VQGAN f16-1024 at 256 x 256", () => {
  const model = vqgan(vqgans["f16-1024"]);
  const encode = (t: Trace): Tensor => model.tokenize(image(t));
  const decode = (t: Trace): Tensor => model.detokenize(ids(t, "tokens", [1, 256]));
  const below = (...prefixes: string[]): ParamSpec[] =>
    model.parameters.filter(({ name }) => prefixes.some((prefix) => name.startsWith(prefix)));

  it("encodes", () => expectGoodPlan(forwardOnly(encode)), 60_000);
  it("decodes", () => expectGoodPlan(forwardOnly(decode)), 60_000);
  it("differentiates the encoder", async () => {
    const parameters = below("encoder.", "quant_conv.");
    await expectGoodPlan(withGradients(parameters, (t) => model.encode(image(t))));
  }, 60_000);
  it("differentiates the decoder", async () => {
    await expectGoodPlan(withGradients(below("decoder.", "post_quant_conv."), decode));
  }, 60_000);
});

describe("VQ-Diffusion transformers", () => {
  const models: [string, VqTransformerConfig][] = [
    ["S, text", transformers.S],
    ["ImageNet, class", transformers.ImageNet],
    ["FFHQ, unconditional", transformers.FFHQ],
  ];

  const forward = (config: VqTransformerConfig) => {
    const model = vqTransformer(config);
    const N = config.grid[0] * config.grid[1];
    const run = (t: Trace): Tensor =>
      model.forward({
        tokens: ids(t, "tokens", [1, N]),
        times: ids(t, "times", [1]),
        ...(config.condition?.kind === "text" && {
          condition: t.input("condition", { shape: [1, 77, config.condition.width] }),
        }),
        ...(config.condition?.kind === "class" && { labels: ids(t, "labels", [1]) }),
      });
    return { model, run };
  };

  it.each(models)("%s", async (_, config) => {
    await expectGoodPlan(forwardOnly(forward(config).run));
  }, 60_000); // prettier-ignore

  it.each(models)("%s, differentiated", async (_, config) => {
    const { model, run } = forward(config);
    await expectGoodPlan(withGradients(model.parameters, run));
  }, 60_000); // prettier-ignore
});

const recipe = <T>(name: string): T =>
  JSON.parse(readFileSync(resolve(import.meta.dirname, `../../recipes/${name}.json`), "utf8")) as T;

describe("training steps of the recipes", () => {
  const codec = recipe<Omit<TokenizerRecipe, "perceptual">>("emoji-tokenizer");

  it("emoji-tokenizer", async () => {
    const model = vqgan(codec.model);
    await expectGoodPlan(fusedStepGraph(generatorStepOptions(model, codec)));
  }, 60_000);

  it("emoji-tokenizer with LPIPS and a discriminator", async () => {
    const { distance } = lpips({}, new ParamScope("perceptual"));
    const perceptual = { loss: (x: Tensor, y: Tensor) => distance(x, y).mean(), weight: 1 };
    const settings = { ...codec, perceptual, adversarial: { start: 0 } };
    const model = vqgan(codec.model);
    const critic = patchDiscriminator({}, new ParamScope("discriminator"));
    await expectGoodPlan(fusedStepGraph(generatorStepOptions(model, settings, { critic })));
    await expectGoodPlan(fusedStepGraph(discriminatorStepOptions(model, critic, settings)));
  }, 60_000);

  it("emoji-vq-diffusion", async () => {
    const { batchSize, text, transformer, process, optimiser } =
      recipe<VqDiffusionRecipe>("emoji-vq-diffusion");
    const side = codec.model.resolution / vqgan(codec.model).stride;
    const { codes } = codec.model.quantizer;
    const model = textToToken({
      condition: { text: { ...text!, vocabulary: 2000, padToken: 0 }, attributes: { style: 4, category: 10 } },
      transformer: { ...transformer, codes, grid: [side, side], timesteps: process.timesteps ?? 100, condition: { kind: "text", width: text!.width } },
    }); // prettier-ignore
    const graph = fusedStepGraph({
      ...discreteStepOptions(model, batchSize),
      parameters: model.parameters,
      ...(optimiser && { optimiser }),
    });
    await expectGoodPlan(graph);
  }, 60_000);
});
