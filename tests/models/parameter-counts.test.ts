// Parameter counts of the published models, from their configurations alone: nothing is allocated.
import { describe, expect, it } from "vitest";
import { patchDiscriminator } from "../../lib/models/patch-discriminator.js";
import { vqTransformer } from "../../lib/models/vq-transformer.js";
import type { VqTransformerConfig } from "../../lib/models/vq-transformer.js";
import { vqgan } from "../../lib/models/vqgan.js";
import type { VqganConfig } from "../../lib/models/vqgan.js";
import { parameterCount } from "../../lib/nn/module.js";

const text = { kind: "text", width: 512 } as const;
const onGrid16 = {
  grid: [16, 16],
  positions: [32, 32],
  heads: 16,
  width: 512,
  mlp: "conv",
} as const;

const transformers: [string, VqTransformerConfig, number][] = [
  [
    "S",
    {
      codes: 2887,
      grid: [32, 32],
      width: 192,
      layers: 18,
      heads: 16,
      mlp: "conv",
      mlpRatio: 2,
      condition: text,
    },
    35_936_647,
  ],
  [
    "B",
    { codes: 2887, grid: [32, 32], width: 1024, layers: 19, heads: 16, condition: text },
    388_780_871,
  ],
  [
    "L",
    { codes: 4096, grid: [32, 32], width: 1408, layers: 36, heads: 16, condition: text },
    1_359_274_624,
  ],
  [
    "ImageNet",
    { ...onGrid16, codes: 974, layers: 24, condition: { kind: "class", classes: 1000 } },
    518_025_678,
  ],
  [
    "ImageNet, 1001 classes",
    { ...onGrid16, codes: 974, layers: 24, condition: { kind: "class", classes: 1001 } },
    518_037_966,
  ],
  ["FFHQ", { ...onGrid16, codes: 1024, layers: 20 }, 411_185_664],
];

describe("VQ-Diffusion transformers", () => {
  it.each(transformers)("%s", (_, config, count) => {
    expect(parameterCount(vqTransformer(config).parameters)).toBe(count);
  });

  it.each([
    ["S", 1_934_016],
    ["B", 20_147_200],
    ["L", 37_434_496],
  ])("%s per block", (name, count) => {
    const config = transformers.find(([found]) => found === name)![1];
    const { parameters } = vqTransformer(config);
    expect(parameterCount(parameters.filter((spec) => spec.name.startsWith("blocks.0.")))).toBe(
      count,
    );
  });
});

const f16: Omit<VqganConfig, "quantizer"> = {
  resolution: 256,
  channels: 128,
  multipliers: [1, 1, 2, 2, 4],
  residualBlocks: 2,
  attentionResolutions: [16],
  latentChannels: 256,
};

describe("VQGAN", () => {
  it.each([
    ["f16-1024", { ...f16, quantizer: { codes: 1024, width: 256 } }, 72_141_699],
    ["f16-16384", { ...f16, quantizer: { codes: 16384, width: 256 } }, 76_073_859],
    [
      "ITHQ f8",
      {
        ...f16,
        channels: 64,
        multipliers: [1, 2, 4, 8],
        attentionResolutions: [32],
        quantizer: { codes: 4096, width: 128 },
      },
      64_009_667,
    ],
  ] as [string, VqganConfig, number][])("%s", (_, config, count) => {
    expect(parameterCount(vqgan(config).parameters)).toBe(count);
  });

  it("f16 encoder and decoder", () => {
    const { parameters } = vqgan({ ...f16, quantizer: { codes: 1024, width: 256 } });
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
