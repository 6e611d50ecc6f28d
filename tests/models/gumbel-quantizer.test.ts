// Codes drawn by a Gumbel-softmax: hard and soft draws, the KL term's closed forms, whole codes with soft gradients, and
// the quantizer inside a VQGAN.
import { describe, expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import type { Values } from "../../lib/golden/case.js";
import { gumbelQuantizer } from "../../lib/models/gumbel-quantizer.js";
import type { GumbelQuantizerConfig } from "../../lib/models/gumbel-quantizer.js";
import { vqgan } from "../../lib/models/vqgan.js";
import type { VqganConfig } from "../../lib/models/vqgan.js";
import { ParamScope } from "../../lib/nn/module.js";
import { drawn, drawnParameters, run } from "./run-model.js";

const config: GumbelQuantizerConfig = { kind: "gumbel", codes: 5, width: 3, klWeight: 2 };
const scope = new ParamScope();
const quantizer = gumbelQuantizer(scope, config);
const parameters = drawnParameters(scope.specs());
const latents = drawn("latents", [2, 2, 2, 3]);
const noise = drawn("noise", [2, 2, 2, 5]);

describe("Gumbel quantizer", () => {
  it("gives whole codes or mixtures of them", async () => {
    const out = await run(parameters, { latents, noise }, (_, x) => {
      const z = x["latents"]!;
      const hard = quantizer.quantiseWith(z, { noise: x["noise"]! });
      const soft = quantizer.quantiseWith(z, { noise: x["noise"]!, hard: false });
      const cold = quantizer.quantiseWith(z, {
        noise: x["noise"]!,
        hard: false,
        temperature: 1e-4,
      });
      return {
        hard: hard.quantised,
        codes: quantizer.lookup(hard.indices),
        soft: soft.quantised,
        cold: cold.quantised,
        sampled: quantizer.sample(z, x["noise"]!),
        drawn: hard.indices,
        likely: quantizer.quantise(z).indices,
        argmax: quantizer.indices(z),
      };
    });
    expect([...out["sampled"]!.data]).toEqual([...out["drawn"]!.data]);
    expect([...out["likely"]!.data]).toEqual([...out["argmax"]!.data]);
    expect([...out["drawn"]!.data]).not.toEqual([...out["likely"]!.data]);
    out["codes"]!.data.forEach((value, i) => {
      expect(out["hard"]!.data[i]).toBeCloseTo(value, 5);
      expect(out["cold"]!.data[i]).toBeCloseTo(value, 4);
    });
    expect(out["soft"]!.data.some((value, i) => Math.abs(value - out["hard"]!.data[i]!) > 0.01)).toBe(true); // prettier-ignore
  });

  it("passes the gradient of the mixture through whole codes", async () => {
    const out = await run(parameters, { latents, noise }, (_, x) => {
      const z = x["latents"]!;
      const gradientOf = (hard: boolean) => {
        const { quantised } = quantizer.quantiseWith(z, { noise: x["noise"]!, hard });
        return gradients(quantised.sum(), [z])[0]!;
      };
      return { hard: gradientOf(true), soft: gradientOf(false) };
    });
    out["soft"]!.data.forEach((value, i) => expect(out["hard"]!.data[i]).toBeCloseTo(value, 5));
  });

  // zero logits are uniform: no divergence; one certain code of K: ln K
  it("weighs the divergence from the uniform distribution", async () => {
    const [weight, bias, codebook] = scope.specs().map(({ name }) => name) as [
      string,
      string,
      string,
    ];
    const divergence = async (biases: readonly number[]): Promise<number> => {
      const values = new Map<string, Values>([
        [weight, { shape: [3, 5], data: new Float32Array(15) }],
        [bias, { shape: [5], data: Float32Array.from(biases) }],
        [codebook, parameters.get(codebook)!],
      ]);
      const { loss } = await run(values, { latents }, (_, x) => ({
        loss: quantizer.quantise(x["latents"]!).loss,
      }));
      return loss!.data[0]!;
    };
    expect(await divergence([0, 0, 0, 0, 0])).toBeCloseTo(0, 6);
    expect(await divergence([0, 50, 0, 0, 0])).toBeCloseTo(2 * Math.log(5), 5);
  });

  it("stands in a VQGAN", async () => {
    const whole: VqganConfig = {
      resolution: 8,
      channels: 4,
      multipliers: [1, 2],
      residualBlocks: 1,
      attentionResolutions: [],
      groups: 2,
      latentChannels: 3,
      quantizer: config,
    };
    const model = vqgan(whole);
    expect(model.gumbel).toBe(model.quantizer);
    expect(vqgan({ ...whole, quantizer: { codes: 5, width: 3 } }).gumbel).toBeUndefined();
    const image = drawn("image", [1, 8, 8, 3], 0.5);
    const out = await run(drawnParameters(model.parameters), { image }, (_, x) => ({
      tokens: model.tokenize(x["image"]!),
      likely: model.quantizer.indices(model.encode(x["image"]!)),
      back: model.detokenize(model.tokenize(x["image"]!)),
    }));
    expect([...out["tokens"]!.data]).toEqual([...out["likely"]!.data]);
    expect(out["back"]!.shape).toEqual([1, 8, 8, 3]);
  });

  it("refuses what it does not know", () => {
    const wrong = (changes: object) => () =>
      gumbelQuantizer(new ParamScope(), { ...config, ...changes } as GumbelQuantizerConfig);
    expect(wrong({ temperature: 0 })).toThrow(/temperature from 1e-9/);
    expect(wrong({ klWieght: 1 })).toThrow(/did you mean "klWeight"/);
    expect(wrong({ kind: "gumbl" })).toThrow(/kind to be one of gumbel/);
  });
});
