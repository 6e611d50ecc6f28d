// VQ-Diffusion transformer checkpoints. Ours are the names of microsoft/VQ-Diffusion without its
// leading "transformer.".
import type { KeyMap, KeyRule } from "../nn/key-map.js";

const linears = "(?:key|query|value|proj|linear|mlp\\.[02]|to_logits\\.1)";
/**
 * Prefix of a whole model ("transformer.transformer."), of its diffusion module ("transformer."),
 * or none.
 */
const prefix = "^(?:transformer\\.){0,2}";

const rules: KeyRule[] = [
  {
    from: new RegExp(`${prefix}(content_emb\\.(?:height|width)_emb)$`),
    to: "$1",
    layout: "squeeze",
  },
  { from: new RegExp(`${prefix}(content_emb\\..*)$`), to: "$1" },
  { from: new RegExp(`${prefix}(blocks\\..*\\.conv[12]\\.weight)$`), to: "$1", layout: "conv" },
  {
    from: new RegExp(`${prefix}((?:blocks\\..*\\.)?${linears}\\.weight)$`),
    to: "$1",
    layout: "linear",
  },
  { from: new RegExp(`${prefix}((?:blocks|to_logits)\\..*)$`), to: "$1" },
];

/**
 * microsoft/VQ-Diffusion DiffusionTransformer and its exponential average ("ema" lacks the leading
 * "transformer.").
 */
export const microsoftVqTransformerKeys: KeyMap = {
  drop: [
    /attn2\.mask$/,
    /(?:^|\.)log_(?:1_min_)?(?:cumprod_)?[abc]t$/,
    /(?:^|\.)Lt_(?:history|count)$/,
    /(?:^|\.)empty_text_embed$/,
    /(?:^|\.)condition_emb\./,
    /^content_codec\./,
  ],
  rules,
};

const block = "^transformer_blocks\\.(\\d+)\\.";

/** Weight and bias of a linear layer. */
const linearRules = (from: string, to: string): KeyRule[] => [
  { from: new RegExp(`${block}${from}\\.weight$`), to: `blocks.$1.${to}.weight`, layout: "linear" },
  { from: new RegExp(`${block}${from}\\.bias$`), to: `blocks.$1.${to}.bias` },
];

const attentionRules = (from: string, to: string): KeyRule[] => [
  ...(["query", "key", "value"] as const).flatMap((name) =>
    linearRules(`${from}\\.to_${name[0]}`, `${to}.${name}`),
  ),
  ...linearRules(`${from}\\.to_out\\.0`, `${to}.proj`),
];

/** Norms with a table of timesteps, or plain. */
const normRules = (from: string, to: string): KeyRule[] => [
  ...linearRules(`${from}\\.linear`, `${to}.linear`),
  { from: new RegExp(`${block}${from}\\.(.*)$`), to: `blocks.$1.${to}.$2` },
];

const diffusersRules = (blockRules: readonly KeyRule[]): KeyMap => ({
  drop: [/\.attn2\.mask$/],
  rules: [
    { from: /^latent_image_embedding\.(.*)$/, to: "content_emb.$1" },
    ...blockRules,
    ...normRules("norm3", "ln2"),
    ...linearRules("ff\\.net\\.0\\.proj", "mlp.0"),
    ...linearRules("ff\\.net\\.2", "mlp.2"),
    { from: /^norm_out\.(.*)$/, to: "to_logits.0.$1" },
    { from: /^out\.weight$/, to: "to_logits.1.weight", layout: "linear" },
    { from: /^out\.bias$/, to: "to_logits.1.bias" },
  ],
});

/** huggingface/diffusers Transformer2DModel with discrete input (v0.11) and a text condition. */
export const diffusersVqTransformerKeys: KeyMap = diffusersRules([
  ...normRules("norm1", "ln1"),
  ...normRules("norm2", "ln1_1"),
  ...attentionRules("attn1", "attn1"),
  ...attentionRules("attn2", "attn2"),
]);

/** The same without a condition. */
export const diffusersUnconditionalVqTransformerKeys: KeyMap = diffusersRules([
  ...normRules("norm1", "ln1"),
  ...attentionRules("attn1", "attn"),
]);
