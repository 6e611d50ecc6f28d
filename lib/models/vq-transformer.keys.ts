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

/** huggingface/diffusers Transformer2DModel with discrete input (v0.11). */
export const diffusersVqTransformerKeys: KeyMap = {
  drop: [/\.attn2\.mask$/],
  rules: [
    { from: /^latent_image_embedding\.(.*)$/, to: "content_emb.$1" },
    {
      from: /^transformer_blocks\.(\d+)\.norm1\.linear\.weight$/,
      to: "blocks.$1.ln1.linear.weight",
      layout: "linear",
    },
    {
      from: /^transformer_blocks\.(\d+)\.norm2\.linear\.weight$/,
      to: "blocks.$1.ln1_1.linear.weight",
      layout: "linear",
    },
    { from: /^transformer_blocks\.(\d+)\.norm1\.(.*)$/, to: "blocks.$1.ln1.$2" },
    { from: /^transformer_blocks\.(\d+)\.norm2\.(.*)$/, to: "blocks.$1.ln1_1.$2" },
    { from: /^transformer_blocks\.(\d+)\.norm3\.(.*)$/, to: "blocks.$1.ln2.$2" },
    ...(["query", "key", "value"] as const).flatMap((name): KeyRule[] => [
      {
        from: new RegExp(`^transformer_blocks\\.(\\d+)\\.(attn[12])\\.to_${name[0]}\\.weight$`),
        to: `blocks.$1.$2.${name}.weight`,
        layout: "linear",
      },
      {
        from: new RegExp(`^transformer_blocks\\.(\\d+)\\.(attn[12])\\.to_${name[0]}\\.bias$`),
        to: `blocks.$1.$2.${name}.bias`,
      },
    ]),
    {
      from: /^transformer_blocks\.(\d+)\.(attn[12])\.to_out\.0\.weight$/,
      to: "blocks.$1.$2.proj.weight",
      layout: "linear",
    },
    {
      from: /^transformer_blocks\.(\d+)\.(attn[12])\.to_out\.0\.bias$/,
      to: "blocks.$1.$2.proj.bias",
    },
    {
      from: /^transformer_blocks\.(\d+)\.ff\.net\.0\.proj\.weight$/,
      to: "blocks.$1.mlp.0.weight",
      layout: "linear",
    },
    { from: /^transformer_blocks\.(\d+)\.ff\.net\.0\.proj\.bias$/, to: "blocks.$1.mlp.0.bias" },
    {
      from: /^transformer_blocks\.(\d+)\.ff\.net\.2\.weight$/,
      to: "blocks.$1.mlp.2.weight",
      layout: "linear",
    },
    { from: /^transformer_blocks\.(\d+)\.ff\.net\.2\.bias$/, to: "blocks.$1.mlp.2.bias" },
    { from: /^norm_out\.(.*)$/, to: "to_logits.0.$1" },
    { from: /^out\.weight$/, to: "to_logits.1.weight", layout: "linear" },
    { from: /^out\.bias$/, to: "to_logits.1.bias" },
  ],
};
