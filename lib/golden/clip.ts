// Golden kinds clip_text_encoder and hf_clip_text_model: hidden states, text vectors, the condition
// of VQ-Diffusion, taps and gradients.
import { checkFields, limits, oneOf, optional, real, whole } from "../models/check-config.js";
import type { Rules } from "../models/check-config.js";
import { clipTextEncoder, unitTokens } from "../models/clip-text-encoder.js";
import type { ClipTextEncoder, ClipTextEncoderConfig } from "../models/clip-text-encoder.js";
import { openAiClipTextKeys, transformersClipTextKeys } from "../models/clip-text-encoder.keys.js";
import type { KeyMap } from "../nn/key-map.js";
import type { GoldenCase, Values } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { givenValues, runModel, tapResults } from "./model-run.js";
import type { ModelRun } from "./model-run.js";

/** What differs between the two code bases. */
interface Layout {
  rules: Rules;
  configOf: (config: Readonly<Record<string, unknown>>) => ClipTextEncoderConfig;
  keys: KeyMap;
  /** Our tap of one of theirs. */
  tapOf: (name: string) => string;
}

const size = whole(1, limits.width);

const openAi: Layout = {
  rules: {
    context_length: whole(1, limits.side),
    vocab_size: whole(1, limits.codes),
    width: size,
    heads: size,
    layers: whole(1, limits.layers),
    embed_dim: size,
  },
  configOf: (config) => ({
    vocabulary: config["vocab_size"] as number,
    length: config["context_length"] as number,
    width: config["width"] as number,
    layers: config["layers"] as number,
    heads: config["heads"] as number,
    projection: config["embed_dim"] as number,
  }),
  keys: openAiClipTextKeys,
  tapOf: (name) => name.replace(/mlp\.c_fc$/, "mlp.fc1").replace(/mlp\.c_proj$/, "mlp.fc2"),
};

const activations: Readonly<Record<string, "quickGelu" | "gelu">> = {
  quick_gelu: "quickGelu",
  gelu: "gelu",
};

const transformers: Layout = {
  rules: {
    vocab_size: whole(1, limits.codes),
    hidden_size: size,
    intermediate_size: size,
    num_hidden_layers: whole(1, limits.layers),
    num_attention_heads: size,
    max_position_embeddings: whole(1, limits.side),
    hidden_act: oneOf(...Object.keys(activations)),
    layer_norm_eps: real(0, 1),
    // dropout acts in training only; the cases are in eval mode
    attention_dropout: optional(real(0, 1)),
    dropout: optional(real(0, 1)),
    projection_dim: optional(size),
  },
  configOf: (config) => ({
    vocabulary: config["vocab_size"] as number,
    length: config["max_position_embeddings"] as number,
    width: config["hidden_size"] as number,
    layers: config["num_hidden_layers"] as number,
    heads: config["num_attention_heads"] as number,
    hidden: config["intermediate_size"] as number,
    activation: activations[config["hidden_act"] as string]!,
    eps: config["layer_norm_eps"] as number,
  }),
  keys: transformersClipTextKeys,
  tapOf: (name) =>
    name
      .replace(/^text_model\./, "")
      .replace(/^encoder\.layers\.(\d+)/, "transformer.resblocks.$1")
      .replace(/^encoder$/, "transformer")
      .replace(/\.self_attn$/, ".attn")
      .replace(/\.self_attn\.out_proj$/, ".attn.proj")
      .replace(/\.layer_norm([12])$/, ".ln_$1")
      .replace(/^final_layer_norm$/, "ln_final")
      .replace(/^embeddings\.token_embedding$/, "token_embedding"),
};

function buildResults(
  golden: GoldenCase,
  { tapOf }: Layout,
  model: ClipTextEncoder,
  { t, x, gradientsOf }: ModelRun,
): Tensors {
  const { hidden, pooled, embedding } = model.forward(x["tokens"]!);
  const results: Tensors = {
    ...tapResults(golden, t, tapOf),
    last_hidden_state: hidden,
    pooler_output: pooled,
    ...(embedding && { text_embedding: embedding }),
    vqdiffusion_condition: unitTokens(hidden),
  };
  const terms = [
    [embedding, x["upstream_embedding"]],
    [hidden, x["upstream_hidden"] ?? x["upstream"]],
  ] as const;
  const means = terms.flatMap(([value, upstream]) =>
    value && upstream ? [value.mul(upstream).mean()] : [],
  );
  if (means.length === 0) return results;
  const loss = means.reduce((a, b) => a.add(b));
  return { ...results, loss, ...gradientsOf(loss) };
}

const runner =
  (layout: Layout): GoldenRunner =>
  (golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> => {
    checkFields(`parity: ${golden.name}`, golden.config, layout.rules);
    const model = clipTextEncoder(layout.configOf(golden.config));
    const inputs = givenValues(golden);
    const options = { parameters: model.parameters, keys: layout.keys, inputs };
    return runModel(golden, evaluate, options, (run) => buildResults(golden, layout, model, run));
  };

export const clipRunners: Readonly<Record<string, GoldenRunner>> = {
  clip_text_encoder: runner(openAi),
  hf_clip_text_model: runner(transformers),
};
