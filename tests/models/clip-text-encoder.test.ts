// Text towers of CLIP: published sizes, what a token sees, where a text's vector is read, names of checkpoints.
import { describe, expect, it } from "vitest";
import type { Values } from "../../lib/golden/case.js";
import {
  clipTextConfigs,
  clipTextEncoder,
  unitTokens,
} from "../../lib/models/clip-text-encoder.js";
import type { ClipTextEncoderConfig } from "../../lib/models/clip-text-encoder.js";
import {
  openAiClipTextKeys,
  transformersClipTextKeys,
} from "../../lib/models/clip-text-encoder.keys.js";
import { mapKey } from "../../lib/nn/key-map.js";
import { parameterCount } from "../../lib/nn/module.js";
import { trace } from "../../lib/trace/trace.js";
import { drawnParameters, run } from "./run-model.js";

const tiny: ClipTextEncoderConfig = {
  vocabulary: 20,
  length: 6,
  width: 16,
  layers: 2,
  heads: 2,
  projection: 8,
};
const model = clipTextEncoder(tiny);
const parameters = drawnParameters(model.parameters);

describe("published sizes", () => {
  it.each([
    ["ViT-B/32", 63_165_952],
    ["ViT-B/16", 63_165_952],
    ["ViT-L/14", 123_060_480],
    ["ViT-H/14", 352_984_064],
    ["ViT-bigG/14", 693_021_440],
  ] as [keyof typeof clipTextConfigs, number][])("%s without its projection", (name, count) => {
    const config = clipTextConfigs[name];
    const { parameters } = clipTextEncoder(config);
    expect(parameterCount(parameters)).toBe(count + config.width * config.projection);
    const isTower = ({ name }: { name: string }): boolean => name !== "text_projection";
    expect(parameterCount(parameters.filter(isTower))).toBe(count);
  });
});

const ids = (...rows: number[][]): Values => ({
  shape: [rows.length, 6],
  data: Int32Array.from(rows.flat()),
});

const encode = (given: Values, encoder = model): Promise<Record<string, Values>> =>
  run(parameters, { ids: given }, (_, x) => {
    const { hidden, pooled } = encoder.forward(x["ids"]!);
    return { hidden, pooled, unit: unitTokens(hidden) };
  });

const close = (values: ArrayLike<number>): unknown[] =>
  Array.from(values, (value) => expect.closeTo(value, 4) as unknown);

const row = ({ data }: Values, index: number, width = 16): number[] =>
  Array.from(data.subarray(index * width, (index + 1) * width));

describe("a text", () => {
  it("shows a token only what stands before it", async () => {
    const a = await encode(ids([18, 3, 4, 19, 0, 0]));
    const b = await encode(ids([18, 3, 4, 7, 8, 9]));
    for (const place of [0, 1, 2])
      expect(row(a["hidden"]!, place)).toEqual(close(row(b["hidden"]!, place)));
    expect(row(a["hidden"]!, 3)).not.toEqual(close(row(b["hidden"]!, 3)));
  });

  it("is read at its first highest id, or at its first end token", async () => {
    const given = ids([18, 3, 19, 19, 5, 19], [18, 19, 2, 5, 5, 1]);
    const byHighest = await encode(given);
    expect(row(byHighest["pooled"]!, 0)).toEqual(row(byHighest["hidden"]!, 2));
    expect(row(byHighest["pooled"]!, 1)).toEqual(row(byHighest["hidden"]!, 6 + 1));
    const byToken = await encode(given, clipTextEncoder({ ...tiny, endToken: 5 }));
    expect(row(byToken["pooled"]!, 0)).toEqual(row(byToken["hidden"]!, 4));
    expect(row(byToken["pooled"]!, 1)).toEqual(row(byToken["hidden"]!, 6 + 3));
  });

  it("has tokens of unit length as a condition", async () => {
    const { unit } = await encode(ids([18, 3, 4, 19, 0, 0]));
    for (let place = 0; place < 6; ++place)
      expect(Math.hypot(...row(unit!, place))).toBeCloseTo(1, 5);
  });
});

describe("names of checkpoints", () => {
  const ours = model.parameters.map(({ name }) => name).sort();
  const block = (names: readonly string[], start: string): string[] =>
    [0, 1].flatMap((i) => names.map((name) => `${start}.${i}.${name}`));
  const both = (...names: string[]): string[] =>
    names.flatMap((name) => [`${name}.weight`, `${name}.bias`]);

  it("of openai/CLIP", () => {
    const inside = both("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj");
    const names = [
      "token_embedding.weight", "positional_embedding", "text_projection", ...both("ln_final"),
      ...block([...inside, "attn.in_proj_weight", "attn.in_proj_bias"], "transformer.resblocks"),
    ]; // prettier-ignore
    const mapped = names.map(
      (name) => mapKey(openAiClipTextKeys, name, [1, 1]) as { name: string },
    );
    expect(mapped.map(({ name }) => name).sort()).toEqual(ours);
    for (const dropped of ["visual.conv1.weight", "logit_scale", "input_resolution"])
      expect(mapKey(openAiClipTextKeys, dropped, [1])).toBe("drop");
  });

  it("of huggingface/transformers, with and without their prefix", () => {
    const attention = both(
      "self_attn.q_proj",
      "self_attn.k_proj",
      "self_attn.v_proj",
      "self_attn.out_proj",
    );
    const inside = [...attention, ...both("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")];
    const names = [
      "embeddings.token_embedding.weight", "embeddings.position_embedding.weight",
      ...both("final_layer_norm"), ...block(inside, "encoder.layers"),
    ]; // prettier-ignore
    for (const prefix of ["", "text_model."]) {
      const all = [...names.map((name) => prefix + name), "text_projection.weight"];
      const mapped = all.map(
        (name) => mapKey(transformersClipTextKeys, name, [1, 1]) as { name: string },
      );
      expect([...new Set(mapped.map(({ name }) => name))].sort()).toEqual(ours);
    }
    expect(
      mapKey(transformersClipTextKeys, "encoder.layers.1.self_attn.k_proj.weight", [4, 4]),
    ).toEqual({
      name: "transformer.resblocks.1.attn.qkv.weight",
      layout: "linear",
      part: { index: 1, of: 3 },
    });
    for (const dropped of [
      "text_model.embeddings.position_ids",
      "vision_model.x",
      "visual_projection.weight",
    ])
      expect(mapKey(transformersClipTextKeys, dropped, [1])).toBe("drop");
  });
});

describe("refusals", () => {
  it.each([
    [{ ...tiny, heads: 3 }, /width divisible by heads, got 16 and 3/],
    [{ ...tiny, endToken: 20 }, /endToken below the vocabulary of 20, got 20/],
    [{ ...tiny, activation: "relu" }, /quickGelu, gelu, got "relu"/],
    [{ ...tiny, lenght: 6 }, /did you mean "length"/],
  ])("%#", (config, message) => {
    expect(() => clipTextEncoder(config as unknown as ClipTextEncoderConfig)).toThrow(message);
  });

  it("ids of another length", () => {
    trace((t) => {
      const given = t.input("ids", { shape: [1, 5], dtype: "i32" });
      expect(() => model.forward(given)).toThrow(/ids \(B, 6\), got \[1, 5\]/);
      t.output("y", given);
    });
  });
});
