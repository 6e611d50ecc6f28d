// Latent diffusion: first stages and U-Net. Published parameter counts from configurations alone, what configurations
// and inputs are refused, the posterior's identities, and both kinds of first stage around scaled latents.
import { describe, expect, it } from "vitest";
import { autoencoderKlConfigs } from "../../lib/models/autoencoder-kl-configs.js";
import { autoencoderKl } from "../../lib/models/autoencoder-kl.js";
import type { AutoencoderKlConfig } from "../../lib/models/autoencoder-kl.js";
import { klFirstStage, vqFirstStage } from "../../lib/models/first-stage.js";
import { latentDiffusionUnetConfigs } from "../../lib/models/latent-diffusion-configs.js";
import { latentDiffusionUnet } from "../../lib/models/latent-diffusion-unet.js";
import type {
  LatentDiffusionInput,
  LatentDiffusionUnetConfig,
} from "../../lib/models/latent-diffusion-unet.js";
import { diffusersVqganKeys, tamingVqganKeys } from "../../lib/models/vqgan.keys.js";
import { vqganConfigs } from "../../lib/models/vqgan-configs.js";
import { vqgan } from "../../lib/models/vqgan.js";
import type { VqganConfig } from "../../lib/models/vqgan.js";
import type { ParamSpec } from "../../lib/ir/param.js";
import { mapKey, shapeInLayout } from "../../lib/nn/key-map.js";
import type { KeyMap } from "../../lib/nn/key-map.js";
import { parameterCount } from "../../lib/nn/module.js";
import { diagonalGaussian } from "../../lib/processes/diagonal-gaussian.js";
import { trace } from "../../lib/trace/trace.js";
import { drawn, drawnParameters, integers, run } from "./run-model.js";

const below = (specs: readonly ParamSpec[], prefix: string): number =>
  parameterCount(specs.filter(({ name }) => name.startsWith(prefix)));

describe("published parameter counts", () => {
  // of encoder, decoder and all
  it.each<[keyof typeof autoencoderKlConfigs, number, number, number]>([
    ["kl-f4", 22_351_238, 32_960_771, 55_312_063],
    ["kl-f8", 34_163_592, 49_490_179, 83_653_863],
    ["kl-f16", 28_265_760, 41_343_875, 69_610_963],
    ["kl-f32", 42_614_656, 61_244_803, 103_880_131],
  ])("%s", (name, encoder, decoder, all) => {
    const { parameters } = autoencoderKl(autoencoderKlConfigs[name]);
    expect(below(parameters, "encoder.")).toBe(encoder);
    expect(below(parameters, "decoder.")).toBe(decoder);
    expect(parameterCount(parameters)).toBe(all);
  });

  it.each<[keyof typeof vqganConfigs, number, number, number]>([
    ["vq-f4", 22_337_411, 32_960_771, 55_322_782],
    ["vq-f8", 27_397_764, 40_253_955, 67_717_295],
    ["vq-f16", 28_155_144, 41_307_011, 69_593_371],
  ])("%s", (name, encoder, decoder, all) => {
    const { parameters } = vqgan(vqganConfigs[name]);
    expect(below(parameters, "encoder.")).toBe(encoder);
    expect(below(parameters, "decoder.")).toBe(decoder);
    expect(parameterCount(parameters)).toBe(all);
  });

  // vq-f4 less the attention in the middle; vq-f8 less 16,128 codes of width 4
  it("vq-f4-noattn and vq-f8-n256", () => {
    const attention = 2 * (4 * (512 * 512 + 512) + 2 * 512);
    expect(parameterCount(vqgan(vqganConfigs["vq-f4-noattn"]).parameters)).toBe(
      55_322_782 - attention,
    );
    expect(parameterCount(vqgan(vqganConfigs["vq-f8-n256"]).parameters)).toBe(
      67_717_295 - 16_128 * 4,
    );
  });

  it.each<[keyof typeof latentDiffusionUnetConfigs, number]>([
    ["celeba256", 274_056_163],
    ["ffhq256", 274_056_163],
    ["lsun_beds256", 274_056_163],
    ["lsun_churches256", 294_966_916],
    ["cin256", 394_984_196],
    ["cin256-v2", 400_920_579],
    ["text2img256", 403_623_939],
    ["text2img-large", 872_300_484],
    ["layout2img-openimages256", 246_277_379],
    ["bsr_sr", 113_622_563],
    ["inpainting_big", 387_245_827],
    ["semantic_synthesis256", 215_229_315],
    ["semantic_synthesis512", 215_229_315],
    ["rdm-768", 1_335_480_400],
    ["stable-diffusion-1", 859_520_964],
    ["stable-diffusion-2", 865_910_724],
  ])("U-Net %s", (name, count) => {
    expect(parameterCount(latentDiffusionUnet(latentDiffusionUnetConfigs[name]).parameters)).toBe(
      count,
    );
  });
});

const codec: AutoencoderKlConfig = {
  resolution: 16,
  channels: 8,
  multipliers: [1, 2],
  residualBlocks: 1,
  attentionResolutions: [8],
  groups: 4,
  latentChannels: 3,
};

const unet: LatentDiffusionUnetConfig = {
  resolution: 8,
  inChannels: 3,
  outChannels: 3,
  channels: 8,
  multipliers: [1, 2],
  residualBlocks: 1,
  attentionFactors: [2],
  heads: 2,
  groups: 4,
  transformer: { contextWidth: 5 },
};

describe("configurations", () => {
  it("of the autoencoder are checked", () => {
    expect(() => autoencoderKl({ ...codec, groups: 3 })).toThrow(/divisible by 3 groups, got 8/);
    expect(() => autoencoderKl({ ...codec, multipliers: [1, 1.3] })).toThrow(/got 10\.4/);
    expect(() =>
      autoencoderKl({ ...codec, embedChanels: 2 } as unknown as AutoencoderKlConfig),
    ).toThrow(/autoencoderKl: .*did you mean "embedChannels"/);
    expect(() =>
      autoencoderKl({ ...codec, attentionKind: "cosine" } as unknown as AutoencoderKlConfig),
    ).toThrow(/attentionKind to be one of softmax, linear, got "cosine"/);
  });

  it("of the U-Net are checked", () => {
    const wrong = (changes: object) => () =>
      latentDiffusionUnet({ ...unet, ...changes } as LatentDiffusionUnetConfig);
    expect(wrong({ multipliers: [2, 2] })).toThrow(/expected 1 as the first multiplier, got 2/);
    expect(wrong({ heads: 9 })).toThrow(/at most 8 heads, got 9/);
    expect(wrong({ transformer: { contextWidht: 5 } })).toThrow(/did you mean "contextWidth"/);
    expect(wrong({ transformer: undefined, heads: 3 })).toThrow(/divisible by heads 3, got 16/);
    expect(wrong({ transformer: undefined, heads: 3, legacyHeads: false })).toThrow(
      /heads of a width that divides 16 channels, got 3 heads/,
    );
  });

  it("count heads that do not divide the width", () => {
    const inner = (changes: object): readonly number[] =>
      latentDiffusionUnet({ ...unet, ...changes }).parameters.find(
        ({ name }) => name === "middle_block.1.proj_in.weight",
      )!.shape;
    expect(inner({ heads: 3 })).toEqual([16, 15]);
    expect(inner({ headChannels: 6 })).toEqual([16, 16]);
    expect(inner({ headChannels: 6, legacyHeads: false })).toEqual([16, 12]);
  });

  it("name codecs by level and with any multiple", () => {
    const model = vqgan({
      ...codec,
      channels: 12,
      multipliers: [1, 4 / 3],
      attentionResolutions: [],
      decoderAttentionResolutions: [16],
      quantizer: { codes: 7, width: 4 },
    });
    const names = model.parameters.map(({ name }) => name);
    expect(names).toContain("decoder.up.0.attn.1.q.weight");
    expect(names.some((name) => /^encoder\.down\.\d\.attn/.test(name))).toBe(false);
    expect(model.parameters.find(({ name }) => name === "encoder.mid.block_1.conv1.weight")!.shape)
      .toEqual([3, 3, 16, 16]); // prettier-ignore
  });
});

/** Names of huggingface/diffusers AutoencoderKL, before and after its attention was renamed. */
const diffusersName = (name: string, levels: number, isOld: boolean): string => {
  const [q, k, v, out] = isOld
    ? ["query", "key", "value", "proj_attn"]
    : ["to_q", "to_k", "to_v", "to_out.0"];
  return name
    .replace(/^encoder\.down\.(\d+)/, "encoder.down_blocks.$1")
    .replace(/^decoder\.up\.(\d+)/, (_, l: string) => `decoder.up_blocks.${levels - 1 - Number(l)}`)
    .replace(/\.mid\.block_([12])/, (_, i: string) => `.mid_block.resnets.${Number(i) - 1}`)
    .replace(".mid.attn_1", ".mid_block.attentions.0")
    .replace(/\.block\.(\d+)/, ".resnets.$1")
    .replace(/\.attn\.(\d+)/, ".attentions.$1")
    .replace(/\.(down|up)sample\./, ".$1samplers.0.")
    .replace("nin_shortcut", "conv_shortcut")
    .replace(/(attentions\.\d+)\.norm\./, "$1.group_norm.")
    .replace(/(attentions\.\d+)\.q\./, `$1.${q}.`)
    .replace(/(attentions\.\d+)\.k\./, `$1.${k}.`)
    .replace(/(attentions\.\d+)\.v\./, `$1.${v}.`)
    .replace(/(attentions\.\d+)\.proj_out\./, `$1.${out}.`)
    .replace("norm_out", "conv_norm_out");
};

describe("checkpoint names of first stages", () => {
  /** Shape of a convolution's or linear layer's weight in PyTorch. */
  const foreign = (shape: readonly number[], isLinear: boolean): number[] => {
    if (shape.length === 4) return [shape[3]!, shape[2]!, shape[0]!, shape[1]!];
    if (shape.length === 2) return [shape[1]!, shape[0]!, ...(isLinear ? [] : [1, 1])];
    return [...shape];
  };

  it.each(Object.entries(autoencoderKlConfigs as Record<string, AutoencoderKlConfig>))(
    "%s, of CompVis and of diffusers, old and new",
    (_, config) => {
      const { parameters } = autoencoderKl(config);
      const levels = config.multipliers.length;
      const diffusers = diffusersVqganKeys(levels, config.residualBlocks);
      for (const { name, shape } of parameters) {
        const check = (keys: KeyMap, theirs: string, isLinear: boolean): void => {
          const theirShape = foreign(shape, isLinear);
          const match = mapKey(keys, theirs, theirShape);
          expect(match, theirs).toMatchObject({ name });
          if (typeof match !== "object") return;
          expect(shapeInLayout(theirShape, match.layout), theirs).toEqual(shape);
        };
        check(tamingVqganKeys, name, false);
        for (const isOld of [true, false]) {
          const theirs = diffusersName(name, levels, isOld);
          check(diffusers, theirs, theirs.includes("attentions"));
        }
      }
      expect(mapKey(tamingVqganKeys, "loss.logvar", [])).toBe("drop");
    },
  );
});

describe("inputs of the U-Net", () => {
  const model = latentDiffusionUnet(unet);
  const call = (context: readonly number[] | undefined, side = 8) =>
    trace((t) => {
      const input: LatentDiffusionInput = {
        x: t.input("x", { shape: [2, side, 8, 3] }),
        times: t.input("times", { shape: [2], dtype: "i32" }),
        ...(context && { context: t.input("context", { shape: context }) }),
      };
      expect(model.forward(input).shape).toEqual([2, side, 8, 3]);
    });

  it("may have any length of condition and any fitting sides", () => {
    call([2, 1, 5]);
    call([2, 9, 5], 4);
  });

  it("are checked", () => {
    expect(() => call(undefined)).toThrow(/expected context \(2, M, 5\), got none/);
    expect(() => call([2, 3, 4])).toThrow(/expected context \(2, M, 5\), got/);
    expect(() => call([2, 3, 5], 7)).toThrow(/sides divisible by 2/);
  });

  it("can be hidden by a mask", async () => {
    const parameters = drawnParameters(model.parameters);
    const inputs = {
      x: drawn("x", [1, 4, 4, 3]),
      times: integers(7),
      context: drawn("context", [1, 2, 5]),
    };
    const { masked, alone } = await run(parameters, inputs, (t, { x, times, context }) => {
      const first = context!.slice([0, 0, 0], [1, 1, 5]);
      const call = { x: x!, times: times! };
      const contextMask = t.constant([0, -1e9], [1, 1, 1, 2]);
      return {
        masked: model.forward({ ...call, context: context!, contextMask }),
        alone: model.forward({ ...call, context: first }),
      };
    });
    masked!.data.forEach((value, i) => expect(value).toBeCloseTo(alone!.data[i]!, 5));
  });
});

describe("diagonal Gaussian", () => {
  it("agrees with its closed forms", async () => {
    const moments = { shape: [1, 4], data: Float32Array.of(0.5, -2, Math.log(0.25), 100) };
    const at = { shape: [1, 2], data: Float32Array.of(1, -2) };
    const values = await run(new Map(), { moments, at }, (_, x) => {
      const posterior = diagonalGaussian(x["moments"]!);
      return {
        logVariance: posterior.logVariance,
        sample: posterior.sample(x["at"]!),
        kl: posterior.kl(),
        nll: posterior.nll(x["at"]!),
      };
    });
    const top = Math.exp(20); // the upper bound of the log variance
    expect(values["logVariance"]!.data[1]).toBe(20);
    expect(values["sample"]!.data[0]).toBeCloseTo(0.5 + 0.5 * 1, 6);
    const kl = (mean: number, variance: number): number =>
      0.5 * (mean ** 2 + variance - 1 - Math.log(variance));
    expect(values["kl"]!.data[0]! / (kl(0.5, 0.25) + kl(-2, top))).toBeCloseTo(1, 5);
    const nll = (z: number, mean: number, variance: number): number =>
      0.5 * (Math.log(2 * Math.PI) + Math.log(variance) + (z - mean) ** 2 / variance);
    expect(values["nll"]!.data[0]).toBeCloseTo(nll(1, 0.5, 0.25) + nll(-2, -2, top), 4);
  });
});

describe("first stages", () => {
  const image = drawn("image", [1, 8, 8, 3], 0.5);

  it("scale the latents of a KL autoencoder", async () => {
    const model = autoencoderKl({ ...codec, embedChannels: 2 });
    const [plain, scaled] = [klFirstStage(model), klFirstStage(model, { scale: 0.25 })];
    expect([plain.channels, plain.stride]).toEqual([2, 2]);
    const parameters = drawnParameters(model.parameters);
    const out = await run(parameters, { image }, (t, { image: x }) => {
      const noise = t.constant(1).broadcastTo([1, 4, 4, 2]);
      return {
        mean: plain.encode(x!),
        drawn: plain.encode(x!, noise),
        small: scaled.encode(x!),
        direct: model.decode(model.encode(x!).mean),
        through: scaled.decode(scaled.encode(x!)),
        deviation: model.encode(x!).logVariance.mul(0.5).exp(),
      };
    });
    out["small"]!.data.forEach((value, i) => {
      expect(value).toBeCloseTo(0.25 * out["mean"]!.data[i]!, 6);
      const step = out["drawn"]!.data[i]! - out["mean"]!.data[i]!;
      expect(step).toBeCloseTo(out["deviation"]!.data[i]!, 5);
    });
    out["through"]!.data.forEach((value, i) =>
      expect(value).toBeCloseTo(out["direct"]!.data[i]!, 4),
    );
  });

  it("quantise the latents of a VQGAN when they decode", async () => {
    const config: VqganConfig = { ...codec, quantizer: { codes: 5, width: 3 } };
    const model = vqgan(config);
    const stage = vqFirstStage(model, { scale: 2 });
    const parameters = drawnParameters(model.parameters);
    const out = await run(parameters, { image }, (_, { image: x }) => ({
      direct: model.detokenize(model.tokenize(x!)),
      through: stage.decode(stage.encode(x!)),
    }));
    out["through"]!.data.forEach((value, i) =>
      expect(value).toBeCloseTo(out["direct"]!.data[i]!, 5),
    );
  });
});
