// Parameter counts of the published models, from their configurations alone: nothing is allocated.
import { describe, expect, it } from "vitest";
import { patchDiscriminator } from "../../lib/models/patch-discriminator.js";
import { vqTransformer } from "../../lib/models/vq-transformer.js";
import { vqgan } from "../../lib/models/vqgan.js";
import { parameterCount } from "../../lib/nn/module.js";
import { transformers, vqgans } from "./published.js";

describe("VQ-Diffusion transformers", () => {
  it.each<[keyof typeof transformers, number]>([
    ["S", 35_936_647],
    ["B", 388_780_871],
    ["L", 1_359_274_624],
    ["ImageNet", 518_025_678],
    ["ImageNet, 1001 classes", 518_037_966],
    ["FFHQ", 411_185_664],
  ])("%s", (name, count) => {
    expect(parameterCount(vqTransformer(transformers[name]).parameters)).toBe(count);
  });

  it.each<[keyof typeof transformers, number]>([
    ["S", 1_934_016],
    ["B", 20_147_200],
    ["L", 37_434_496],
  ])("%s per block", (name, count) => {
    const { parameters } = vqTransformer(transformers[name]);
    expect(parameterCount(parameters.filter((spec) => spec.name.startsWith("blocks.0.")))).toBe(
      count,
    );
  });
});

describe("VQGAN", () => {
  it.each<[keyof typeof vqgans, number]>([
    ["f16-1024", 72_141_699],
    ["f16-16384", 76_073_859],
    ["f8-8192 Gumbel", 68_995_971],
    ["ITHQ f8", 64_009_667],
  ])("%s", (name, count) => {
    expect(parameterCount(vqgan(vqgans[name]).parameters)).toBe(count);
  });

  it("f16 encoder and decoder", () => {
    const { parameters } = vqgan(vqgans["f16-1024"]);
    const below = (prefix: string): number =>
      parameterCount(parameters.filter(({ name }) => name.startsWith(prefix)));
    expect(below("encoder.")).toBe(29_298_176);
    expect(below("decoder.")).toBe(42_449_795);
  });
});

describe("PatchGAN discriminator", () => {
  it.each([
    [3, 2_765_633],
    [2, 663_361],
  ])("%i layers", (layers, count) => {
    expect(parameterCount(patchDiscriminator({ layers }).parameters)).toBe(count);
  });
});
