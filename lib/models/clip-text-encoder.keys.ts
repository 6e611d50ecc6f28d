// CLIP text towers: names of openai/CLIP and of huggingface/transformers (CLIPTextModel, with or
// without projection, alone or inside a CLIPModel).
import type { KeyMap, KeyRule } from "../nn/key-map.js";

const ourBlock = "transformer.resblocks.$1";

/** Names of openai/CLIP inside a block -> ours; the queries, keys and values are one tensor there too. */
const openAiBlock: KeyRule[] = [
  { from: "attn\\.in_proj_weight", to: "attn.qkv.weight", layout: "linear" as const },
  { from: "attn\\.in_proj_bias", to: "attn.qkv.bias" },
  { from: "attn\\.out_proj\\.weight", to: "attn.proj.weight", layout: "linear" as const },
  { from: "attn\\.out_proj\\.bias", to: "attn.proj.bias" },
  { from: "mlp\\.c_fc\\.weight", to: "mlp.fc1.weight", layout: "linear" as const },
  { from: "mlp\\.c_fc\\.bias", to: "mlp.fc1.bias" },
  { from: "mlp\\.c_proj\\.weight", to: "mlp.fc2.weight", layout: "linear" as const },
  { from: "mlp\\.c_proj\\.bias", to: "mlp.fc2.bias" },
  { from: "(ln_[12]\\.(?:weight|bias))", to: "$2" },
].map(({ from, to, ...rest }) => ({
  from: new RegExp(`^transformer\\.resblocks\\.(\\d+)\\.${from}$`),
  to: `${ourBlock}.${to}`,
  ...rest,
}));

/** openai/CLIP, the whole model or its text half. */
export const openAiClipTextKeys: KeyMap = {
  drop: [/^visual\./, /^(?:logit_scale|input_resolution|context_length|vocab_size)$/],
  rules: [
    ...openAiBlock,
    {
      from: /^(token_embedding\.weight|positional_embedding|text_projection|ln_final\..*)$/,
      to: "$1",
    },
  ],
};

const start = "^(?:text_model\\.)?";
const layer = `${start}encoder\\.layers\\.(\\d+)\\.`;

const transformersBlock: KeyRule[] = [
  ...["q", "k", "v"].flatMap((name, index): KeyRule[] => {
    const part = { index, of: 3 };
    const from = (end: string) => new RegExp(`${layer}self_attn\\.${name}_proj\\.${end}$`);
    return [
      { from: from("weight"), to: `${ourBlock}.attn.qkv.weight`, layout: "linear", part },
      { from: from("bias"), to: `${ourBlock}.attn.qkv.bias`, part },
    ];
  }),
  {
    from: new RegExp(`${layer}self_attn\\.out_proj\\.weight$`),
    to: `${ourBlock}.attn.proj.weight`,
    layout: "linear",
  },
  { from: new RegExp(`${layer}self_attn\\.out_proj\\.bias$`), to: `${ourBlock}.attn.proj.bias` },
  {
    from: new RegExp(`${layer}(mlp\\.fc[12]\\.weight)$`),
    to: `${ourBlock}.$2`,
    layout: "linear",
  },
  { from: new RegExp(`${layer}(mlp\\.fc[12]\\.bias)$`), to: `${ourBlock}.$2` },
  { from: new RegExp(`${layer}layer_norm([12]\\..*)$`), to: `${ourBlock}.ln_$2` },
];

/** huggingface/transformers CLIPTextModel, CLIPTextModelWithProjection or CLIPModel. */
export const transformersClipTextKeys: KeyMap = {
  drop: [/(?:^|\.)position_ids$/, /^vision_model\./, /^visual_projection\./, /^logit_scale$/],
  rules: [
    ...transformersBlock,
    {
      from: new RegExp(`${start}embeddings\\.token_embedding\\.weight$`),
      to: "token_embedding.weight",
    },
    {
      from: new RegExp(`${start}embeddings\\.position_embedding\\.weight$`),
      to: "positional_embedding",
    },
    { from: new RegExp(`${start}final_layer_norm\\.(.*)$`), to: "ln_final.$1" },
    { from: /^text_projection\.weight$/, to: "text_projection", layout: "linear" },
  ],
};
