// Models as graphs: shapes, names, errors, and what they refuse. Nothing is executed.
import { describe, expect, it } from "vitest";
import { vqTransformer } from "../../lib/models/vq-transformer.js";
import type { VqTransformerConfig } from "../../lib/models/vq-transformer.js";
import { textToToken } from "../../lib/models/text-to-token.js";
import {
  codeRemap,
  replaceDeadCodes,
  usedCodesOfReduction,
} from "../../lib/models/vector-quantizer.js";
import { diffusersVqganKeys } from "../../lib/models/vqgan.keys.js";
import { vqgan } from "../../lib/models/vqgan.js";
import type { VqganConfig } from "../../lib/models/vqgan.js";
import { initialValue, initialValues } from "../../lib/nn/init.js";
import { fromLayout, mapKey, shapeInLayout, toLayout } from "../../lib/nn/key-map.js";
import { ParamScope } from "../../lib/nn/module.js";
import {
  diffusersVqTransformerKeys,
  microsoftVqTransformerKeys,
} from "../../lib/models/vq-transformer.keys.js";
import { trace } from "../../lib/trace/trace.js";

const tiny: VqganConfig = {
  resolution: 16,
  channels: 8,
  multipliers: [1, 2],
  residualBlocks: 1,
  attentionResolutions: [8],
  groups: 4,
  latentChannels: 6,
  quantizer: { codes: 12, width: 4 },
};

const transformer: VqTransformerConfig = {
  codes: 12,
  grid: [4, 4],
  width: 16,
  layers: 1,
  heads: 2,
  timesteps: 10,
  condition: { kind: "text", width: 16 },
};

describe("VQGAN graph", () => {
  it("turns images into tokens and back, square or not", () => {
    const model = vqgan(tiny);
    expect(model.stride).toBe(2);
    const shapes: Record<string, readonly number[]> = {};
    trace((t) => {
      const tokens = model.tokenize(t.input("images", { shape: [2, 16, 24, 3] }));
      const images = model.detokenize(tokens, [8, 12]);
      t.output("images", images);
      Object.assign(shapes, { tokens: tokens.shape, images: images.shape });
      expect(t.recorded.get("encoder.mid.attn_1")?.shape).toEqual([2, 8, 12, 16]);
    });
    expect(shapes).toEqual({ tokens: [2, 96], images: [2, 16, 24, 3] });
  });

  it("keeps an averaged codebook as state", () => {
    const model = vqgan({ ...tiny, quantizer: { ...tiny.quantizer, codebook: "ema" } });
    expect(model.parameters.some(({ name }) => name.startsWith("quantize"))).toBe(false);
    expect(model.states.map(({ name }) => name)).toEqual([
      "quantize.embedding.weight",
      "quantize.embedding.cluster_size",
      "quantize.embedding.embed_avg",
    ]);
  });

  it("refuses what cannot be", () => {
    expect(() => vqgan({ ...tiny, groups: 5 })).toThrow(/divisible by 5 groups, got 8/);
    expect(() => vqgan({ ...tiny, chanels: 3 } as unknown as VqganConfig)).toThrow(
      /did you mean "channels"/,
    );
    trace((t) => {
      const model = vqgan(tiny);
      const tokens = t.input("tokens", { shape: [1, 12], dtype: "i32" });
      expect(() => model.detokenize(tokens)).toThrow(/12 tokens to fill a grid/);
      t.output("images", model.detokenize(tokens, [3, 4]));
    });
  });
});

describe("VQGAN checkpoints", () => {
  it("map from diffusers onto every parameter", () => {
    const config = { ...tiny, attentionResolutions: [8] };
    const names = vqgan(config).parameters.map(({ name }) => name);
    const map = diffusersVqganKeys(2, 1);
    const mapped = names.map((name) => mapKey(map, diffusersVqganName(name), [1, 1]));
    expect(mapped.map((match) => (match as { name: string } | undefined)?.name)).toEqual(names);
  });
});

/** Name that diffusers gives a parameter of a VQGAN with two levels. */
const diffusersVqganName = (name: string): string =>
  name
    .replace(/\.up\.(\d)\./, (_, level: string) => `.up_blocks.${1 - Number(level)}.`)
    .replace(/\.down\.(\d)\./, ".down_blocks.$1.")
    .replace(/\.mid\.block_(\d)\./, (_, i: string) => `.mid_block.resnets.${Number(i) - 1}.`)
    .replace(".mid.attn_1.", ".mid_block.attentions.0.")
    .replace(/\.block\.(\d)\./, ".resnets.$1.")
    .replace(/\.attn\.(\d)\./, ".attentions.$1.")
    .replace(/(attentions\.\d)\.norm\./, "$1.group_norm.")
    .replace(/(attentions\.\d)\.q\./, "$1.query.")
    .replace(/(attentions\.\d)\.k\./, "$1.to_k.")
    .replace(/(attentions\.\d)\.v\./, "$1.value.")
    .replace(/(attentions\.\d)\.proj_out\./, "$1.to_out.0.")
    .replace("nin_shortcut", "conv_shortcut")
    .replace(/\.(down|up)sample\./, ".$1samplers.0.")
    .replace(".norm_out.", ".conv_norm_out.");

describe("VQ-Diffusion transformer graph", () => {
  it("asks for the condition that its kind needs", () => {
    trace((t) => {
      const input = {
        tokens: t.input("tokens", { shape: [2, 16], dtype: "i32" }),
        times: t.input("times", { shape: [2], dtype: "i32" }),
      };
      expect(() => vqTransformer(transformer).forward(input)).toThrow(/expected condition tokens/);
      const classes = { ...transformer, condition: { kind: "class", classes: 3 } } as const;
      expect(() => vqTransformer(classes).forward(input)).toThrow(/expected labels/);
      const wide = t.input("wide", { shape: [2, 17], dtype: "i32" });
      expect(() => vqTransformer(transformer).forward({ ...input, tokens: wide })).toThrow(
        /tokens \(B, 16\)/,
      );
      t.output("tokens", input.tokens.add(1));
    });
    expect(() => vqTransformer({ ...transformer, heads: 3 })).toThrow(/divisible by heads/);
  });

  it("maps both checkpoint dialects onto every parameter", () => {
    const names = vqTransformer(transformer).parameters.map(({ name }) => name);
    const ours = new Set(names);
    const microsoft = names.map((name) =>
      mapKey(microsoftVqTransformerKeys, `transformer.transformer.${name}`, [1]),
    );
    expect(new Set(microsoft.map((match) => (match as { name: string }).name))).toEqual(ours);
    const diffusers = diffusersNames(names);
    const mapped = diffusers.map((name) => mapKey(diffusersVqTransformerKeys, name, [1]));
    expect(new Set(mapped.map((match) => (match as { name: string }).name))).toEqual(ours);
    for (const dropped of ["log_at", "log_1_min_cumprod_ct", "Lt_history", "blocks.0.attn2.mask"]) {
      expect(mapKey(microsoftVqTransformerKeys, `transformer.${dropped}`, [1])).toBe("drop");
    }
  });
});

/** Names that diffusers gives the same parameters. */
const diffusersNames = (names: readonly string[]): string[] =>
  names.map((name) =>
    name
      .replace(/^content_emb\./, "latent_image_embedding.")
      .replace(/^blocks\.(\d+)\./, "transformer_blocks.$1.")
      .replace(/\.ln1\./, ".norm1.")
      .replace(/\.ln1_1\./, ".norm2.")
      .replace(/\.ln2\./, ".norm3.")
      .replace(/\.query\./, ".to_q.")
      .replace(/\.key\./, ".to_k.")
      .replace(/\.value\./, ".to_v.")
      .replace(/\.proj\./, ".to_out.0.")
      .replace(/\.mlp\.0\./, ".ff.net.0.proj.")
      .replace(/\.mlp\.2\./, ".ff.net.2.")
      .replace(/^to_logits\.0\./, "norm_out.")
      .replace(/^to_logits\.1\./, "out."),
  );

describe("text-to-token model", () => {
  it("adds attribute tokens and a null condition to the words", () => {
    const model = textToToken({
      condition: {
        text: { vocabulary: 30, length: 6, width: 16, layers: 1, heads: 2 },
        attributes: { style: 3, category: 5 },
      },
      transformer,
    });
    expect(model.conditioner.length).toBe(8);
    const logits: number[] = [];
    trace((t) => {
      const ids = (name: string, shape: number[]) => t.input(name, { shape, dtype: "i32" });
      const condition = model.conditioner.forward({
        words: ids("words", [2, 6]),
        attributes: { style: ids("style", [2]), category: ids("category", [2]) },
        isNull: t.input("isNull", { shape: [2] }),
      });
      expect(condition.tokens.shape).toEqual([2, 8, 16]);
      expect(condition.mask.shape).toEqual([2, 1, 1, 8]);
      const out = model.transformer.forward({
        tokens: ids("tokens", [2, 16]),
        times: ids("times", [2]),
        condition: condition.tokens,
        conditionMask: condition.mask,
      });
      logits.push(...out.shape);
      t.output("logits", out);
    });
    expect(logits).toEqual([2, 16, 12]);
  });
});

describe("parameters", () => {
  it("draws a value from the seed and the name alone", () => {
    const spec = {
      name: "a.b",
      shape: [32, 32],
      init: { kind: "normal", std: 0.5, mean: 1 },
    } as const;
    const alone = initialValue(spec, 9);
    const among = initialValues([{ ...spec, name: "a.a" }, spec], 9);
    expect(among.get("a.b")).toEqual(alone);
    expect(initialValue(spec, 10)).not.toEqual(alone);
    const mean = alone.reduce((sum, x) => sum + x, 0) / alone.length;
    const variance = alone.reduce((sum, x) => sum + (x - mean) ** 2, 0) / alone.length;
    expect(mean).toBeCloseTo(1, 1);
    expect(Math.sqrt(variance)).toBeCloseTo(0.5, 1);
  });

  it("refuses a name twice", () => {
    const scope = new ParamScope();
    scope.child("x").param("weight", [1], { kind: "zeros" });
    expect(() => scope.child("x").param("weight", [1], { kind: "zeros" })).toThrow(
      /x\.weight again/,
    );
  });

  it("moves foreign layouts and back", () => {
    const values = Float32Array.from({ length: 24 }, (_, i) => i);
    const foreign = [2, 3, 2, 2];
    const ours = toLayout(values, foreign, "conv");
    expect(shapeInLayout(foreign, "conv")).toEqual([2, 2, 3, 2]);
    // (out 1, in 2, row 0, column 1) -> (row 0, column 1, in 2, out 1)
    expect(ours[((0 * 2 + 1) * 3 + 2) * 2 + 1]).toBe(((1 * 3 + 2) * 2 + 0) * 2 + 1);
    expect(fromLayout(ours, foreign, "conv")).toEqual(values);
  });
});

describe("codes", () => {
  it("maps used codes there and back", () => {
    const remap = codeRemap([3, 7, 9], "extra");
    expect(remap.count).toBe(4);
    const compact = remap.toUsed(Int32Array.of(9, 3, 4, 7));
    expect([...compact]).toEqual([2, 0, 3, 1]);
    expect([...remap.toFull(compact)]).toEqual([9, 3, 3, 7]);
    expect([...codeRemap([3, 7], "random").toUsed(Int32Array.of(5), () => 0.9)]).toEqual([1]);
    const unknown = Int32Array.from({ length: 400 }, () => 5);
    const drawn = codeRemap([3, 7, 9, 11], "random").toUsed(unknown);
    expect(drawn).toEqual(codeRemap([3, 7, 9, 11], "random").toUsed(unknown));
    for (const id of [0, 1, 2, 3]) expect(drawn.filter((one) => one === id).length).toBeGreaterThan(70); // prettier-ignore
  });

  it("reads a reduction file: unused codes hold 0, the inverse rises", () => {
    expect([...usedCodesOfReduction([0, 0, 0, 1, 0, 2])]).toEqual([0, 3, 5]);
  });

  it("restarts dead codes from latents", () => {
    const codebook = new Float32Array(8).fill(1);
    const batch = { latents: Float32Array.of(5, 6), errors: Float32Array.of(41) };
    const result = replaceDeadCodes(codebook, Float32Array.of(10, 0, 8, 6), batch, {
      random: () => 0,
    });
    expect(result.replaced).toEqual([1]);
    expect([...result.codebook.subarray(2, 4)]).toEqual([5, 6]);
    expect(result.counts[1]).toBeCloseTo(0.6, 6);
    expect(codebook[2]).toBe(1);
  });

  it("restarts codes where the codebook is poor, not where latents are many", () => {
    const latents = Float32Array.of(0, 0, 0, 0, 0, 0, 9);
    const alive = Float32Array.of(0, 5, 5);
    const batch = { latents, errors: Float32Array.of(0, 0, 0, 0, 0, 0, 81) };
    const one = replaceDeadCodes(alive, Float32Array.of(10, 0, 0), batch, { random: () => 0.3 });
    expect([...one.codebook]).toEqual([0, 9, 0]); // after 9 is a code nothing is far: any latent will do
    const all = replaceDeadCodes(alive.subarray(0, 2), Float32Array.of(1, 1), batch, {
      threshold: Infinity,
      random: () => 0.3,
    });
    expect([...all.codebook]).toEqual([0, 9]);
  });
});
