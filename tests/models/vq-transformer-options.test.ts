// Options of VQ-Diffusion's transformer that the released models do not use: gated networks, no biases, no timesteps,
// cross-attention only and sinusoids of the class; and their names in diffusers' checkpoints.
import { describe, expect, it } from "vitest";
import {
  diffusersUnconditionalVqTransformerKeys,
  diffusersVqTransformerKeys,
} from "../../lib/models/vq-transformer.keys.js";
import { vqTransformer } from "../../lib/models/vq-transformer.js";
import type { VqTransformerConfig } from "../../lib/models/vq-transformer.js";
import { mapKey } from "../../lib/nn/key-map.js";
import { drawnParameters, integers, run } from "./run-model.js";

const tiny: VqTransformerConfig = {
  codes: 7,
  grid: [2, 2],
  width: 8,
  layers: 1,
  heads: 2,
  timesteps: 10,
};
const text = { ...tiny, condition: { kind: "text", width: 5 } } as const;

const names = (config: VqTransformerConfig): string[] =>
  vqTransformer(config).parameters.map(({ name }) => name);
const shapeOf = (config: VqTransformerConfig, name: string): readonly number[] =>
  vqTransformer(config).parameters.find((spec) => spec.name === name)!.shape;

describe("options", () => {
  it("decide which parameters there are", () => {
    expect(shapeOf({ ...tiny, activation: "geglu" }, "blocks.0.mlp.0.weight")).toEqual([8, 64]);
    expect(shapeOf({ ...tiny, activation: "geglu" }, "blocks.0.mlp.2.weight")).toEqual([32, 8]);
    const unbiased = names({ ...text, projectionBias: false });
    expect(unbiased.filter((name) => /(?:key|query|value)\.bias$/.test(name))).toEqual([]);
    expect(unbiased).toContain("blocks.0.attn2.proj.bias");
    expect(names({ ...tiny, timeFeatures: "none" })).toContain("blocks.0.ln1.weight");
    expect(shapeOf({ ...text, onlyCrossAttention: true }, "blocks.0.attn1.key.weight")).toEqual([5, 8]); // prettier-ignore
    const sinusoids = { kind: "class", classes: 3, features: "sinusoid" } as const;
    expect(names({ ...tiny, condition: sinusoids })).not.toContain("blocks.0.ln2.emb.weight");
  });

  it("exclude each other", () => {
    const wrong = (changes: object) => () =>
      vqTransformer({ ...tiny, ...changes } as VqTransformerConfig);
    expect(wrong({ activation: "geglu", mlp: "conv" })).toThrow(/mlp "linear" for activation/);
    expect(wrong({ timeFeatures: "none", timeNorm: "instance" })).toThrow(/timeNorm "layer"/);
    expect(wrong({ onlyCrossAttention: true })).toThrow(/text condition .*, got none/);
    const odd = { kind: "class", classes: 3, features: "sinusoid" };
    expect(wrong({ width: 9, heads: 3, condition: odd })).toThrow(/even width/);
  });

  it("hide the timestep when asked to, and tell classes apart", async () => {
    const blind = vqTransformer({ ...tiny, timeFeatures: "none" });
    const tokens = { shape: [2, 4], data: Int32Array.of(1, 2, 7, 0, 1, 2, 7, 0) };
    const { logits } = await run(
      drawnParameters(blind.parameters),
      { tokens, times: integers(0, 9) },
      (_, x) => ({ logits: blind.forward({ tokens: x["tokens"]!, times: x["times"]! }) }),
    );
    const half = logits!.data.length / 2;
    expect([...logits!.data.slice(0, half)]).toEqual([...logits!.data.slice(half)]);

    const classes = vqTransformer({
      ...tiny,
      condition: { kind: "class", classes: 3, features: "sinusoid" },
    });
    const { told } = await run(
      drawnParameters(classes.parameters),
      { tokens, times: integers(4, 4), labels: integers(0, 2) },
      (_, x) => ({
        told: classes.forward({ tokens: x["tokens"]!, times: x["times"]!, labels: x["labels"]! }),
      }),
    );
    expect([...told!.data.slice(0, half)]).not.toEqual([...told!.data.slice(half)]);
  });
});

describe("diffusers names", () => {
  const block = (attentions: readonly string[]): string[] => [
    ...attentions.flatMap((attention) =>
      ["to_q", "to_k", "to_v", "to_out.0"].flatMap((part) => [
        `${attention}.${part}.weight`,
        `${attention}.${part}.bias`,
      ]),
    ),
    ...["ff.net.0.proj", "ff.net.2", "norm3"].flatMap((part) => [`${part}.weight`, `${part}.bias`]),
  ];
  const learnedNorm = (name: string): string[] =>
    ["emb.weight", "linear.weight", "linear.bias"].map((part) => `${name}.${part}`);
  const whole = (parts: readonly string[]): string[] => [
    ...["emb", "height_emb", "width_emb"].map((part) => `latent_image_embedding.${part}.weight`),
    ...parts.map((part) => `transformer_blocks.0.${part}`),
    ...["norm_out.weight", "norm_out.bias", "out.weight", "out.bias"],
  ];

  it.each([
    ["text", text, diffusersVqTransformerKeys, whole([...block(["attn1", "attn2"]), ...learnedNorm("norm1"), ...learnedNorm("norm2")])],
    ["nothing", tiny, diffusersUnconditionalVqTransformerKeys, whole([...block(["attn1"]), ...learnedNorm("norm1")])],
    ["nothing, without timesteps", { ...tiny, timeFeatures: "none" as const }, diffusersUnconditionalVqTransformerKeys, whole([...block(["attn1"]), "norm1.weight", "norm1.bias"])],
  ])("of a model for %s", (_, config, keys, theirs) => {
    const ours = theirs.map((name) => {
      const match = mapKey(keys, name, name.endsWith("bias") || /norm(?:_out|\d)\.weight$/.test(name) ? [1] : [1, 1]); // prettier-ignore
      return typeof match === "object" ? match.name : name;
    });
    expect(new Set(ours)).toEqual(new Set(names(config)));
  }); // prettier-ignore
});
