// Whole models at their published sizes without weights: traced, differentiated, verified, lowered, compiled and planned,
// and nothing is executed.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import type { Graph } from "../../lib/ir/graph.js";
import type { ParamSpec } from "../../lib/ir/param.js";
import { verify } from "../../lib/ir/verify.js";
import { textToToken } from "../../lib/models/text-to-token.js";
import { vqTransformer, type VqTransformerConfig } from "../../lib/models/vq-transformer.js";
import { vqgan, type VqganConfig } from "../../lib/models/vqgan.js";
import { l1Loss, l2Loss } from "../../lib/processes/adversarial.js";
import { discreteLoss, lossWeightNames } from "../../lib/processes/discrete-loss.js";
import { coefficientNames } from "../../lib/processes/schedules.js";
import { compile } from "../../lib/runtime/program.js";
import { maskReplaceForward, randomUniform } from "../../lib/trace/functions.js";
import { trace, type Trace } from "../../lib/trace/trace.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import type { TokenizerRecipe, VqDiffusionRecipe } from "../../lib/trainers/recipe.js";
import { fusedStepGraph } from "../../lib/trainers/train-step.js";

const f16: VqganConfig = {
  resolution: 256,
  channels: 128,
  multipliers: [1, 1, 2, 2, 4],
  residualBlocks: 2,
  attentionResolutions: [16],
  latentChannels: 256,
  quantizer: { codes: 1024, width: 256 },
};

const small: VqTransformerConfig = {
  codes: 2887,
  grid: [32, 32],
  width: 192,
  layers: 18,
  heads: 16,
  mlp: "conv",
  mlpRatio: 2,
  condition: { kind: "text", width: 512 },
};

const onGrid16 = {
  grid: [16, 16],
  positions: [32, 32],
  heads: 16,
  width: 512,
  mlp: "conv",
} as const;

/** Bytes the plan may take over what is live at once. */
const slack = 1.3;

async function expectGoodPlan(graph: Graph): Promise<void> {
  verify(graph);
  using program = await compile(graph);
  const { arenaBytes, lowerBoundBytes, flops } = program.plan();
  expect(flops).toBeGreaterThan(0);
  expect(lowerBoundBytes).toBeGreaterThan(0);
  expect(arenaBytes / lowerBoundBytes).toBeLessThanOrEqual(slack);
}

/** The output, and the gradients of the mean of its squares by every parameter it reads. */
const withGradients = (parameters: readonly ParamSpec[], forward: (t: Trace) => Tensor): Graph =>
  trace((t) => {
    const loss = forward(t).square().mean();
    const wanted = parameters.map((spec) => t.parameter(spec));
    gradients(loss, wanted).forEach((grad, i) => t.output(`d.${parameters[i]!.name}`, grad));
    t.output("loss", loss);
  });

const forwardOnly = (forward: (t: Trace) => Tensor): Graph =>
  trace((t) => t.output("y", forward(t)));

const image = (t: Trace): Tensor => t.input("image", { shape: [1, 256, 256, 3] });
const ids = (t: Trace, name: string, shape: number[]): Tensor =>
  t.input(name, { shape, dtype: "i32" });

describe("VQGAN f16-1024 at 256 x 256", () => {
  const model = vqgan(f16);
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
    ["S, text", small],
    ["ImageNet, class", { ...onGrid16, codes: 974, layers: 24, condition: { kind: "class", classes: 1000 } }],
    ["FFHQ, unconditional", { ...onGrid16, codes: 1024, layers: 20 }],
  ]; // prettier-ignore

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

  it.each(models)("%s", (_, config) => expectGoodPlan(forwardOnly(forward(config).run)), 60_000);

  it.each(models)("%s, differentiated", async (_, config) => {
    const { model, run } = forward(config);
    await expectGoodPlan(withGradients(model.parameters, run));
  }, 60_000); // prettier-ignore
});

const recipe = <T>(name: string): T =>
  JSON.parse(readFileSync(resolve(import.meta.dirname, `../../recipes/${name}.json`), "utf8")) as T;

describe("training steps of the recipes", () => {
  const codec = recipe<TokenizerRecipe>("emoji-tokenizer");

  it("emoji-tokenizer", async () => {
    const { batchSize: B, l1 = 1, l2 = 0, optimiser, model: config } = codec;
    const model = vqgan(config);
    const graph = fusedStepGraph({
      inputs: { images: { shape: [B, config.resolution, config.resolution, 3] } },
      loss: (_, { images }) => {
        const latents = model.encode(images!);
        const { quantised, indices, loss } = model.quantizer.quantise(latents);
        const output = model.decode(quantised);
        const reconstruction = l1Loss(images!, output).mul(l1).add(l2Loss(images!, output).mul(l2));
        return {
          loss: reconstruction.add(loss),
          updates: model.quantizer.updates(latents, indices),
        };
      },
      parameters: model.parameters,
      ...(optimiser && { optimiser }),
    });
    await expectGoodPlan(graph);
  }, 60_000);

  it("emoji-vq-diffusion", async () => {
    const {
      batchSize: B,
      text,
      transformer,
      process,
      optimiser,
    } = recipe<VqDiffusionRecipe>("emoji-vq-diffusion");
    const side = codec.model.resolution / vqgan(codec.model).stride;
    const { codes } = codec.model.quantizer;
    const N = side * side;
    const model = textToToken({
      condition: { text: { ...text, vocabulary: 2000, padToken: 0 }, attributes: { style: 4, category: 10 } },
      transformer: { ...transformer, codes, grid: [side, side], timesteps: process.timesteps ?? 100, condition: { kind: "text", width: text.width } },
    }); // prettier-ignore
    const i32 = (shape: number[]) => ({ shape, dtype: "i32" as const });
    const graph = fusedStepGraph({
      inputs: {
        x0: i32([B, N]), words: i32([B, text.length]), isNull: { shape: [B] }, times: i32([B]),
        style: i32([B]), category: i32([B]), key: i32([B, 4]),
        coeffs: { shape: [B, coefficientNames.length] }, weights: { shape: [B, lossWeightNames.length] },
      },
      loss: (_, batch) => {
        const { x0, words, isNull, times, style, category, key, coeffs, weights } = batch as Record<string, Tensor> & typeof batch;
        const condition = model.conditioner.forward({ words: words!, isNull: isNull!, attributes: { style: style!, category: category! } });
        const uniform = randomUniform(key!, { shape: [B, N, 2], purpose: 1 });
        const xt = maskReplaceForward(x0!, coeffs!, uniform, { codes });
        const logits = model.transformer.forward({ tokens: xt, times: times!, condition: condition.tokens, conditionMask: condition.mask });
        return { loss: discreteLoss({ logits, x0: x0!, xt, weights: weights!, coeffs: coeffs! }).loss };
      },
      parameters: model.parameters,
      ...(optimiser && { optimiser }),
    }); // prettier-ignore
    await expectGoodPlan(graph);
  }, 60_000);
});
