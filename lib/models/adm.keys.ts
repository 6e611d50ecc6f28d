// Checkpoints of the ADM U-Nets and of DiffuseVAE's main U-Net: names of openai/guided-diffusion are
// ours, only layouts differ.
import type { KeyMap, KeyRule } from "../nn/key-map.js";

/** Everything below the embeddings and the two paths. */
const trunk: KeyRule[] = [
  { from: /^((?:time_embed|proj)\.[02]\.weight)$/, to: "$1", layout: "linear" },
  { from: /^(.*\.emb_layers\.1\.weight)$/, to: "$1", layout: "linear" },
  { from: /^(.*\.(?:skip_connection|qkv|proj_out)\.weight)$/, to: "$1", layout: "pointwise" },
  { from: /^(.*\.(?:in_layers\.2|out_layers\.3|op|conv)\.weight)$/, to: "$1", layout: "conv" },
  { from: /^(input_blocks\.0\.0\.weight)$/, to: "$1", layout: "conv" },
];

const rest: KeyRule = {
  from: /^((?:time_embed|proj|label_emb|input_blocks|middle_block|output_blocks|out)\..*)$/,
  to: "$1",
};

/** UNetModel and SuperResModel. */
export const admUnetKeys: KeyMap = {
  drop: [],
  rules: [...trunk, { from: /^(out\.2\.weight)$/, to: "$1", layout: "conv" }, rest],
};

/** EncoderUNetModel with any of its heads. */
export const admEncoderUnetKeys: KeyMap = {
  drop: [],
  rules: [
    ...trunk,
    { from: /^(out\.3\.weight)$/, to: "$1", rank: 4, layout: "pointwise" },
    { from: /^(out\.2\.(?:qkv_proj|c_proj)\.weight)$/, to: "$1", layout: "pointwise" },
    { from: /^(out\.2\.positional_embedding)$/, to: "$1", layout: "linear" },
    { from: /^(out\.[023]\.weight)$/, to: "$1", rank: 2, layout: "linear" },
    rest,
  ],
};
