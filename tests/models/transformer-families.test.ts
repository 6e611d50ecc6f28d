// Checkpoints of DiT, SiT, FiT and CLIP text towers are recognised from names and shapes: what comes back is the
// configuration that made them.
import { describe, expect, it } from "vitest";
import { clipTextConfigs, clipTextEncoder } from "../../lib/models/clip-text-encoder.js";
import type { ClipTextEncoderConfig } from "../../lib/models/clip-text-encoder.js";
import { clipTextEncoderFamilies } from "../../lib/models/clip-text-encoder.family.js";
import { ditConfigs, publishedDit } from "../../lib/models/dit.js";
import type { DitConfig } from "../../lib/models/dit.js";
import { ditFamilies } from "../../lib/models/dit.family.js";
import { families, recognise } from "../../lib/models/families.js";
import type { Family } from "../../lib/models/family.js";
import { fitConfigs } from "../../lib/models/fit.js";
import { mapKey, shapeInLayout } from "../../lib/nn/key-map.js";

const all: readonly Family[] = [...ditFamilies, ...clipTextEncoderFamilies];
const familyOf = (name: string): Family => all.find((family) => family.name === name)!;

type Shapes = Map<string, readonly number[]>;

/** A checkpoint of their names for a configuration: each tries to become one of ours with `rename`. */
function checkpoint(
  family: Family,
  config: object,
  rename: (name: string) => readonly string[] = (name) => [name],
): Shapes {
  const keys = family.keys(config, undefined as never);
  const shapes: Shapes = new Map();
  for (const { name, shape } of family.build(config).parameters) {
    for (const theirs of rename(name)) {
      const flat = [...shape];
      const third = [...shape.slice(0, -1), shape.at(-1)! / 3];
      const candidates = [flat, third].flatMap((s) => [
        s,
        [...s].reverse(),
        [s[3]!, s[2]!, s[0]!, s[1]!],
      ]);
      const found = candidates.find((candidate) => {
        const match = mapKey(keys, theirs, candidate);
        if (typeof match !== "object" || match.name !== name) return false;
        return shapeInLayout(candidate, match.layout, match.part).join() === shape.join();
      });
      expect(found, theirs).toBeDefined();
      shapes.set(theirs, found!);
    }
  }
  return shapes;
}

function roundTrip(name: string, shapes: Shapes, facts: Record<string, unknown>): object {
  const found = recognise("test", shapes, families);
  expect(found.map(({ family }) => family.name)).toEqual([name]);
  const { family, shapes: view } = found[0]!;
  const fixed = Object.fromEntries(
    Object.entries(family.facts).map(([key, fact]) => [key, fact.fixed]),
  );
  const values = { ...fixed, ...facts };
  for (const [key, { rule }] of Object.entries(family.facts))
    expect(rule(values[key]), key).toBeUndefined();
  return family.configure(view, values);
}

describe("DiT and SiT", () => {
  const published = { ...ditConfigs, "XL/2 at 512": publishedDit("XL", 2, 64) };

  it.each(Object.entries(published))("%s", (_, config) => {
    const bare = checkpoint(familyOf("dit"), config);
    const tokens = (config.size[0] / config.patch) ** 2;
    bare.set("pos_embed", [1, tokens, config.width]);
    const inTraining: Shapes = new Map([...bare].map(([name, shape]) => [`ema.${name}`, shape]));
    for (const shapes of [bare, inTraining]) {
      const learned = roundTrip("dit", shapes, { heads: config.heads, sigma: "learned" });
      expect(learned).toMatchObject({ ...config, channels: 4, mlpRatio: 4, sigma: "learned" });
    }
    const sit = roundTrip("dit", bare, { heads: config.heads, sigma: "discarded" });
    expect(sit).toMatchObject({ sigma: "discarded" });
  });

  it("has an MLP of the width that it came with", () => {
    for (let hidden = 4; hidden < 200; ++hidden) {
      const config = {
        ...publishedDit("S", 8),
        layers: 1,
        width: 196,
        heads: 1,
        mlpRatio: (hidden + 0.5) / 196,
      };
      const shapes = checkpoint(familyOf("dit"), config).set("pos_embed", [1, 16, 196]);
      const back = roundTrip("dit", shapes, { heads: 1, sigma: "learned" }) as DitConfig;
      expect(Math.floor(196 * back.mlpRatio!)).toBe(hidden);
    }
  });

  it("without a variance or a null class", () => {
    const config = { ...publishedDit("S", 4), sigma: "none", nullClass: false } as const;
    const shapes = checkpoint(familyOf("dit"), config);
    shapes.set("pos_embed", [1, 64, 384]);
    const back = roundTrip("dit", shapes, { heads: 6, sigma: "learned", nullClass: false });
    expect(back).toMatchObject(config);
    shapes.set("pos_embed", [1, 63, 384]);
    expect(() => roundTrip("dit", shapes, { heads: 6, sigma: "learned" })).toThrow(
      /side of the token grid/,
    );
  });

  const diffusersName = (name: string): string[] => {
    const block = name
      .replace(/^blocks\.(\d+)\./, "transformer_blocks.$1.")
      .replace("adaLN_modulation.1", "norm1.linear")
      .replace("attn.proj", "attn1.to_out.0")
      .replace("mlp.fc1", "ff.net.0.proj")
      .replace("mlp.fc2", "ff.net.2")
      .replace(/^x_embedder/, "pos_embed")
      .replace(/^t_embedder\.mlp\.0/, "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1")
      .replace(/^t_embedder\.mlp\.2/, "transformer_blocks.0.norm1.emb.timestep_embedder.linear_2")
      .replace(/^y_embedder/, "transformer_blocks.0.norm1.emb.class_embedder")
      .replace("final_layer.linear", "proj_out_2")
      .replace("final_layer.norm1.linear", "proj_out_1");
    const thirds = ["q", "k", "v"].map((part) => block.replace("attn.qkv", `attn1.to_${part}`));
    return block.includes("attn.qkv") ? thirds : [block];
  };

  it("of diffusers, with its config.json", () => {
    const config = publishedDit("XL", 2);
    const family = familyOf("diffusers-dit");
    const facts = family.readConfig!({
      _class_name: "Transformer2DModel",
      norm_type: "ada_norm_zero",
      sample_size: 32,
      num_attention_heads: 16,
      activation_fn: "gelu-approximate",
    })!;
    const back = roundTrip("diffusers-dit", checkpoint(family, config, diffusersName), facts);
    expect(back).toMatchObject({ ...config, channels: 4, sigma: "learned" });
    expect(
      family.readConfig!({ _class_name: "Transformer2DModel", norm_type: "layer_norm" }),
    ).toBeUndefined();
    const other = { _class_name: "DiTTransformer2DModel", activation_fn: "geglu" };
    expect(() => family.readConfig!(other)).toThrow(
      /activation_fn of "gelu-approximate", got "geglu"/,
    );
  });
});

describe("FiT", () => {
  it("is configured by the yaml of its training", () => {
    const params = { context_size: 1024, patch_size: 2, in_channels: 4, hidden_size: 1152, depth: 36, num_heads: 16, mlp_ratio: 4, class_dropout_prob: 0.1, num_classes: 1000, learn_sigma: false, use_sit: true, use_swiglu: true, q_norm: "layernorm", k_norm: "layernorm", rel_pos_embed: "rope", custom_freqs: "ntk-aware", decouple: true, ori_max_pe_len: 16, online_rope: true, adaln_type: "lora", adaln_lora_dim: 288 }; // prettier-ignore
    const read = (changed: object): Record<string, unknown> =>
      familyOf("fit").readConfig!({
        diffusion: { network_config: { params: { ...params, ...changed } } },
      })!;
    const config = fitConfigs["FiTv2-XL"];
    const { layers, width, channels, ...facts } = read({});
    expect([layers, width, channels]).toEqual([36, 1152, 4]);
    const rotary = { stretch: "ntk", trainedSide: 16, decouple: true };
    expect(roundTrip("fit", checkpoint(familyOf("fit"), config), facts)).toMatchObject({ ...config, rotary, queryNorm: "layer" }); // prettier-ignore
    expect(read({ qk_norm_weight: true, k_norm: "w_rmsnorm", q_norm: null })).toMatchObject({ queryNorm: "none", keyNorm: "scaledRms" }); // prettier-ignore
    expect(read({ qk_norm_weight: true, time_shifting: 3 })).toMatchObject({ queryNorm: "scaledLayer", timeShift: 3 }); // prettier-ignore
    expect(() => read({ q_norm: "batchnorm" })).toThrow(/q_norm of "none", .*got "batchnorm"/);
    expect(() => read({ rel_pos_embed: "alibi" })).toThrow(/rel_pos_embed of "rope", "xpos"/);
  });

  it.each(Object.entries(fitConfigs))("%s", (_, config) => {
    const { heads, patch } = config;
    const norm = "queryNorm" in config ? config.queryNorm : "layer";
    const facts = { heads, patch, queryNorm: norm, keyNorm: norm };
    expect(roundTrip("fit", checkpoint(familyOf("fit"), config), facts)).toMatchObject({
      channels: 4, qkvBias: true, mlpBias: true, modulationBias: true, ...config,
    }); // prettier-ignore
  });

  it("with other networks", () => {
    const config = {
      patch: 1, channels: 3, width: 24, layers: 1, heads: 2, classes: 4, mlp: "gelu", mlpRatio: 2, modulation: "swiglu",
      qkvBias: false, mlpBias: false, modulationBias: false, sigma: "learned",
    } as const; // prettier-ignore
    const facts = { heads: 2, patch: 1, queryNorm: "scaledRms", keyNorm: "none" };
    const shapes = checkpoint(familyOf("fit"), {
      ...config,
      queryNorm: "scaledRms",
      keyNorm: "none",
    });
    expect(roundTrip("fit", shapes, facts)).toMatchObject({ ...config, ...facts });
  });
});

describe("CLIP", () => {
  const openAiName = (name: string): string[] => [
    name
      .replace(/attn\.qkv\.(\w+)$/, "attn.in_proj_$1")
      .replace("attn.proj", "attn.out_proj")
      .replace("mlp.fc1", "mlp.c_fc")
      .replace("mlp.fc2", "mlp.c_proj"),
  ];
  const transformersName = (name: string): string[] => {
    const theirs = name
      .replace(/^transformer\.resblocks/, "text_model.encoder.layers")
      .replace("attn.proj", "self_attn.out_proj")
      .replace(/ln_([12])/, "layer_norm$1")
      .replace("ln_final", "text_model.final_layer_norm")
      .replace(/^token_embedding/, "text_model.embeddings.token_embedding")
      .replace(/^positional_embedding/, "text_model.embeddings.position_embedding.weight")
      .replace(/^text_projection$/, "text_projection.weight");
    const thirds = ["q", "k", "v"].map((part) =>
      theirs.replace("attn.qkv", `self_attn.${part}_proj`),
    );
    return theirs.includes("attn.qkv") ? thirds : [theirs];
  };

  it.each(Object.entries(clipTextConfigs) as [string, ClipTextEncoderConfig][])(
    "%s",
    (_, config) => {
      const { activation = "quickGelu", heads } = config;
      expect(clipTextEncoder(config).parameters.length).toBeGreaterThan(100);
      const theirs = checkpoint(familyOf("clip-text"), config, openAiName);
      expect(roundTrip("clip-text", theirs, { activation })).toMatchObject({
        ...config,
        activation,
      });
      const file = {
        model_type: "clip_text_model",
        num_attention_heads: heads,
        hidden_act: activation === "gelu" ? "gelu" : "quick_gelu",
      };
      const facts = familyOf("transformers-clip-text").readConfig!(file)!;
      const hf = checkpoint(familyOf("transformers-clip-text"), config, transformersName);
      expect(roundTrip("transformers-clip-text", hf, facts)).toMatchObject({
        ...config,
        activation,
      });
    },
  );

  it("inside a checkpoint of VQ-Diffusion", () => {
    const theirs = checkpoint(familyOf("clip-text"), clipTextConfigs["ViT-B/32"], openAiName);
    const shapes: Shapes = new Map(
      [...theirs].map(([name, shape]) => [`transformer.condition_emb.${name}`, shape]),
    );
    const found = recognise("test", shapes, all);
    expect(found.map(({ family }) => family.name)).toEqual(["clip-text"]);
  });

  it("needs an activation that it has", () => {
    const read = familyOf("transformers-clip-text").readConfig!;
    expect(() => read({ model_type: "clip", text_config: { hidden_act: "relu" } })).toThrow(
      /hidden_act of "quick_gelu", "gelu", got "relu"/,
    );
    expect(read({ model_type: "bert" })).toBeUndefined();
  });
});
