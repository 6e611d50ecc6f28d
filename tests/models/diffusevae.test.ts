// DiffuseVAE and the DDPM U-Net: published sizes, names of checkpoints, block strings, what they refuse, and the
// reproduction variant, which no golden case covers.
import { describe, expect, it } from "vitest";
import type { Values } from "../../lib/golden/case.js";
import { admUnetKeys } from "../../lib/models/adm.keys.js";
import { parseBlocks, parseChannels } from "../../lib/models/block-string.js";
import { ddpmUnetConfigs } from "../../lib/models/ddpm-configs.js";
import { ddpmUnetKeys } from "../../lib/models/ddpm-unet.keys.js";
import { ddpmUnet } from "../../lib/models/ddpm-unet.js";
import type { DdpmUnetConfig } from "../../lib/models/ddpm-unet.js";
import { diffuseVaeConfigs, diffuseVaeUnetConfigs } from "../../lib/models/diffusevae-configs.js";
import { diffuseVaeUnet } from "../../lib/models/diffusevae-unet.js";
import type { DiffuseVaeUnetConfig } from "../../lib/models/diffusevae-unet.js";
import { diffuseVae } from "../../lib/models/diffusevae-vae.js";
import type { DiffuseVaeConfig } from "../../lib/models/diffusevae-vae.js";
import { diffuseVaeKeys } from "../../lib/models/diffusevae.keys.js";
import { mapKey } from "../../lib/nn/key-map.js";
import { parameterCount } from "../../lib/nn/module.js";
import { trace } from "../../lib/trace/trace.js";
import { drawn, drawnParameters, integers, run } from "./run-model.js";

describe("published sizes of the VAEs", () => {
  // parameters of all, of the encoder and of the decoder; tensors
  it.each([
    ["cifar10", 9_243_107, 5_830_528, 3_412_579, 437, 512],
    ["celeba64", 14_011_907, 8_029_184, 5_982_723, 511, 512],
    ["celebahq128", 21_098_275, 14_404_480, 6_693_795, 369, 1024],
    ["ffhq128", 21_098_275, 14_404_480, 6_693_795, 369, 1024],
    ["celebahq256", 32_632_579, 19_463_168, 13_169_411, 667, 1024],
    ["afhq256", 32_632_579, 19_463_168, 13_169_411, 667, 1024],
  ] as [keyof typeof diffuseVaeConfigs, number, number, number, number, number][])(
    "%s",
    (name, total, encoder, decoder, tensors, latentWidth) => {
      const model = diffuseVae(diffuseVaeConfigs[name]);
      const below = (prefix: string): number =>
        parameterCount(model.parameters.filter((spec) => spec.name.startsWith(prefix)));
      expect(parameterCount(model.parameters)).toBe(total);
      expect(below("enc.")).toBe(encoder);
      expect(below("dec.")).toBe(decoder);
      expect(model.parameters).toHaveLength(tensors);
      expect(model.latentWidth).toBe(latentWidth);
    },
  );
});

describe("published sizes of the U-Nets", () => {
  const rows: [keyof typeof diffuseVaeUnetConfigs, number, number][] = [
    ["cifar10", 34_431_363, 274],
    ["cifar10-unconditional", 34_427_907, 274],
    ["cifar10-large", 70_875_203, 362],
    ["cifar10-large-unconditional", 70_870_883, 362],
    ["celeba64", 82_644_099, 366],
    ["celeba64-unconditional", 82_640_643, 366],
    ["celebahq128", 95_167_747, 368],
    ["celebahq128-unconditional", 95_164_291, 368],
    ["ffhq128", 87_903_747, 368],
    ["ffhq128-unconditional", 87_900_291, 368],
    ["celebahq256", 113_676_675, 426],
    ["celebahq256-unconditional", 113_673_219, 426],
    ["afhq256", 113_676_675, 426],
    ["afhq256-unconditional", 113_673_219, 426],
    ["cifar10-reproduction", 35_749_763, 328],
    ["cifar10-reproduction-unconditional", 35_746_307, 328],
    ["cifar10-reproduction-large", 73_755_843, 436],
  ];

  it.each(rows)("%s", (name, count, tensors) => {
    const { parameters } = diffuseVaeUnet(diffuseVaeUnetConfigs[name]);
    expect(parameterCount(parameters)).toBe(count);
    expect(parameters).toHaveLength(tensors);
  });

  it("names each of them", () => {
    expect(rows.map(([name]) => name).sort()).toEqual(Object.keys(diffuseVaeUnetConfigs).sort());
  });

  it.each([
    ["cifar10", 35_746_307],
    ["lsun-celebahq-256", 113_673_219],
  ] as [keyof typeof ddpmUnetConfigs, number][])("DDPM %s", (name, count) => {
    expect(parameterCount(ddpmUnet(ddpmUnetConfigs[name]).parameters)).toBe(count);
  });
});

const tinyVae: DiffuseVaeConfig = {
  resolution: 8,
  encoder: "8x1,8d2,8t4,4x1,4d4,4t1,1x1",
  decoder: "1x1,1u4,1t4,4x1,4u2,4t8,8x1",
  encoderChannels: "8:64,4:32,1:16",
  decoderChannels: "8:16,4:32,1:16",
};

const tinyUnet = {
  channels: 8,
  multipliers: [1, 2],
  residualBlocks: 1,
  groups: 4,
} as const;

const main: DiffuseVaeUnetConfig = { ...tinyUnet, attentionFactors: [2] };
const reproduction: DiffuseVaeUnetConfig = {
  ...tinyUnet,
  variant: "reproduction",
  resolution: 8,
  attentionResolutions: [4],
};

describe("checkpoints", () => {
  it("have our names", () => {
    const vae = diffuseVae(tinyVae).parameters;
    const classVae = diffuseVae({ ...tinyVae, classes: 3, classWidth: 4, decoderChannels: "8:16,4:32,1:20" });
    for (const { name, shape } of [...vae, ...classVae.parameters])
      expect(mapKey(diffuseVaeKeys, name, shape), name).toMatchObject({ name });
    expect(vae.filter(({ name }) => name.endsWith("weight")).map(({ name, shape }) => {
      const match = mapKey(diffuseVaeKeys, name, shape) as { layout: string };
      return match.layout === (shape.length === 4 ? "conv" : "pointwise");
    })).not.toContain(false);
    const withLatent = { latentWidth: 10, classes: 3 };
    for (const { name, shape } of diffuseVaeUnet({ ...main, ...withLatent }).parameters)
      expect(mapKey(admUnetKeys, name, shape), name).toMatchObject({ name });
    for (const { name, shape } of diffuseVaeUnet({ ...reproduction, ...withLatent }).parameters)
      expect(mapKey(ddpmUnetKeys, name, shape), name).toMatchObject({ name });
  });

  it("number blocks as the reference does, upsampling included", () => {
    const names = diffuseVae(diffuseVaeConfigs.cifar10).parameters.map(({ name }) => name);
    for (const name of ["enc.block_mod.8.weight", "enc.block_mod.28.c1.weight", "dec.block_mod.2.weight", "dec.block_mod.20.weight", "dec.block_mod.35.c4.bias"])
      expect(names).toContain(name);
    expect(names.some((name) => /^dec\.block_mod\.(?:1|5|10|19)\./.test(name))).toBe(false);
  });

  it("keep the reference's order of parameters", () => {
    const order = (config: DiffuseVaeUnetConfig): string[] => [
      ...new Set(diffuseVaeUnet({ ...config, latentWidth: 10, classes: 3 }).parameters.map(({ name }) => name.split(".")[0]!)),
    ];
    expect(order(main)).toEqual(["time_embed", "proj", "label_emb", "input_blocks", "middle_block", "output_blocks", "out"]);
    expect(order(reproduction)).toEqual(["temb", "proj", "label_emb", "conv_in", "down", "mid", "up", "norm_out", "conv_out"]);
  });
}); // prettier-ignore

describe("block strings", () => {
  it("read items", () => {
    expect(parseBlocks("here", "8x2,8,8d2,8t4,4u2")).toEqual([
      { kind: "block", label: 8 },
      { kind: "block", label: 8 },
      { kind: "block", label: 8 },
      { kind: "block", label: 8, pool: 2 },
      { kind: "transition", from: 8, to: 4 },
      { kind: "upsample", factor: 2 },
    ]);
    expect([...parseChannels("here", "8:64,1:16", 100)]).toEqual([[8, 64], [1, 16]]);
  }); // prettier-ignore

  it("refuse what they cannot mean", () => {
    expect(() => parseBlocks("here", "8x2,8z3")).toThrow(/here: expected items like .*, got "8z3"/);
    expect(() => parseBlocks("here", "8x9999")).toThrow(/at most 1024 blocks/);
    expect(() => parseBlocks("here", "")).toThrow(/got ""/);
    expect(() => parseChannels("here", "8:64,1", 100)).toThrow(/got "1"/);
    expect(() => parseChannels("here", "8:101", 100)).toThrow(/at most 100 channels/);
    const broken = (change: object) => () => diffuseVae({ ...tinyVae, ...change });
    expect(broken({ encoder: "8x1,8u2" })).toThrow(/diffuseVae.encoder: expected no upsampling/);
    expect(broken({ decoder: "1d2" })).toThrow(/diffuseVae.decoder: expected no pooling/);
    expect(broken({ encoder: "8x1,4x1" })).toThrow(/expected 64 channels for 4 .* got 32/);
    expect(broken({ encoder: "8x1,16x1" })).toThrow(/expected channels for 16, got them for \[8, 4, 1\]/);
    expect(broken({ encoderChannels: "8:32,4:32,1:16" })).toThrow(/expected 64 channels for 8/);
    expect(broken({ encoder: "8x1,8t4" })).toThrow(/expected 32 channels for 1/);
    expect(broken({ decoder: "1x1,1u4,1t4" })).toThrow(/expected 32 channels for 8/);
    expect(broken({ decodr: "1x1" })).toThrow(/did you mean "decoder"/);
  }); // prettier-ignore
});

describe("U-Net graph", () => {
  it("takes a condition of any size, a latent or none, and labels", () => {
    for (const base of [main, reproduction]) {
      const model = diffuseVaeUnet({ ...base, latentWidth: 10, classes: 3 });
      trace((t) => {
        const input = {
          x: t.input("x", { shape: [2, 8, 8, 3] }),
          times: t.input("times", { shape: [2], dtype: "i32" }),
          labels: t.input("labels", { shape: [2], dtype: "i32" }),
          lowRes: t.input("lowRes", { shape: [2, 2, 4, 3] }),
        };
        const latent = t.input("z", { shape: [2, 10] });
        expect(model.forward({ ...input, latent }).shape).toEqual([2, 8, 8, 3]);
        expect(model.forward(input).shape).toEqual([2, 8, 8, 3]);
        const { lowRes, ...rest } = input;
        expect(() => model.forward(rest)).toThrow(/expected lowRes for this model/);
        const plain = diffuseVaeUnet({ ...base, conditional: false });
        expect(() => plain.forward({ x: input.x, times: input.times, lowRes })).toThrow(/expected no lowRes/);
        expect(() => plain.forward({ x: input.x, times: input.times, latent })).toThrow(/expected no latent/);
        t.output("y", model.forward(input));
      });
    }
  }); // prettier-ignore

  it("refuses options of the other variant", () => {
    const unet = (config: object) => () => diffuseVaeUnet(config as DiffuseVaeUnetConfig);
    expect(unet({ ...main, attentionResolutions: [4] })).toThrow(/got "attentionResolutions"/);
    expect(unet({ ...reproduction, scaleShiftNorm: true })).toThrow(/got "scaleShiftNorm"/);
    expect(unet({ ...main, multipliers: [2, 2] })).toThrow(/start with 1/);
    expect(unet({ ...reproduction, heads: 3 })).toThrow(/divisible by heads 3/);
    expect(unet({ ...main, variant: "third" })).toThrow(/main, reproduction/);
  });
});

/** Attention of (B, H, W, C) q, k, v with heads side by side and scores scaled by `scale`. */
function plainAttention([q, k, v]: Values[], heads: number, scale: number): Float32Array {
  const [B, H, W, C] = q!.shape as [number, number, number, number];
  const [N, D] = [H * W, C / heads];
  const out = new Float32Array(B * N * C);
  const at = (b: number, n: number, h: number, d: number): number => (b * N + n) * C + h * D + d;
  const each = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
  for (const b of each(B))
    for (const h of each(heads))
      for (const n of each(N)) {
        const scores = each(N).map((m) =>
          Math.exp(scale * each(D).reduce((s, d) => s + q!.data[at(b, n, h, d)]! * k!.data[at(b, m, h, d)]!, 0)),
        );
        const total = scores.reduce((a, s) => a + s, 0);
        for (const d of each(D))
          out[at(b, n, h, d)] = each(N).reduce((s, m) => s + (scores[m]! / total) * v!.data[at(b, m, h, d)]!, 0);
      }
  return out;
} // prettier-ignore

const config: DdpmUnetConfig = {
  ...tinyUnet,
  resolution: 8,
  attentionResolutions: [4],
  heads: 4,
};

describe("numbers of the reproduction variant", () => {
  const x = drawn("x", [2, 8, 8, 3]);
  const t = integers(3, 700);

  it("scales the scores of several heads by the width of all", async () => {
    const model = ddpmUnet(config);
    const parameters = drawnParameters(model.parameters);
    const results = await run(parameters, { x, t }, (trace, given) => {
      model.forward({ x: given["x"]!, times: given["t"]! });
      const tap = (name: string) => trace.recorded.get(`mid.${name}`)!;
      const map = tap("block_1").shape;
      const parts = ["q", "k", "v"].map((name) => [name, tap(`attn_1.${name}`).reshape(map)]);
      const projected = tap("attn_1.proj_out").reshape(map);
      return { ...Object.fromEntries(parts), projected, before: tap("block_1"), after: tap("attn_1") };
    });
    const width = 16;
    const parts = ["q", "k", "v"].map((name) => results[name]!);
    const mixed = plainAttention(parts, 4, 1 / Math.sqrt(width));
    const weight = parameters.get("mid.attn_1.proj_out.weight")!.data;
    const bias = parameters.get("mid.attn_1.proj_out.bias")!.data;
    for (let i = 0; i < mixed.length; ++i) {
      const [row, o] = [i - (i % width), i % width];
      let expected = bias[o]!;
      for (let c = 0; c < width; ++c) expected += mixed[row + c]! * weight[c * width + o]!;
      expect(results["projected"]!.data[i]).toBeCloseTo(expected, 4);
      expect(results["after"]!.data[i]).toBeCloseTo(results["before"]!.data[i]! + expected, 4);
    }
  }); // prettier-ignore

  it("embeds times with sines first and frequencies that end at 1 / 10000", async () => {
    const model = ddpmUnet({ ...config, multipliers: [1] });
    const parameters = drawnParameters(model.parameters);
    const { first } = await run(parameters, { x, t }, (trace, given) => {
      model.forward({ x: given["x"]!, times: given["t"]! });
      return { first: trace.recorded.get("temb.dense.0")! };
    });
    const weight = parameters.get("temb.dense.0.weight")!;
    const bias = parameters.get("temb.dense.0.bias")!;
    const rates = [1, 10000 ** (-1 / 3), 10000 ** (-2 / 3), 1e-4];
    [3, 700].forEach((time, b) => {
      const features = [...rates.map((f) => Math.sin(time * f)), ...rates.map((f) => Math.cos(time * f))];
      for (let o = 0; o < 32; ++o) {
        const expected = features.reduce((sum, f, i) => sum + f * weight.data[i * 32 + o]!, bias.data[o]!);
        expect(first!.data[b * 32 + o]).toBeCloseTo(expected, 4);
      }
    });
  }); // prettier-ignore

  it("equals the DDPM U-Net when nothing is joined", async () => {
    const ours = diffuseVaeUnet({ ...config, variant: "reproduction", conditional: false });
    const ddpm = ddpmUnet(config);
    expect(ours.parameters).toEqual(ddpm.parameters);
    const { a, b } = await run(drawnParameters(ddpm.parameters), { x, t }, (_, given) => {
      const input = { x: given["x"]!, times: given["t"]! };
      return { a: ours.forward(input), b: ddpm.forward(input) };
    });
    expect(a!.data).toEqual(b!.data);
    expect(a!.shape).toEqual([2, 8, 8, 3]);
  });
});

describe("class-conditional VAE", () => {
  it("adds a row in each block of the encoder and joins one to the latent", async () => {
    const model = diffuseVae({ ...tinyVae, classes: 3, classWidth: 4, decoderChannels: "8:16,4:32,1:20" });
    const parameters = drawnParameters(model.parameters);
    const image = drawn("image", [1, 8, 8, 3]);
    const { first, second, decoded } = await run(parameters, { image, a: integers(0), b: integers(2) }, (_, x) => {
      const [one, two] = [model.encode(x["image"]!, x["a"]), model.encode(x["image"]!, x["b"])];
      return { first: one.mean, second: two.mean, decoded: model.decode(one.mean, x["a"]) };
    });
    expect(first!.data).not.toEqual(second!.data);
    expect(decoded!.shape).toEqual([1, 8, 8, 3]);
    expect(decoded!.data.every((value) => value >= 0 && value <= 1)).toBe(true);
    expect(() => trace((t) => t.output("y", model.decode(t.input("z", { shape: [1, 1, 1, 16] }))))).toThrow(
      /expected labels, got none/,
    );
  }); // prettier-ignore
});
