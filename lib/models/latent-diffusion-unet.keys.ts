// Checkpoints of latent diffusion's U-Net: names of CompVis/latent-diffusion are ours, only layouts differ. Stable
// Diffusion has the same names; its later versions keep proj_in and proj_out as linear layers.
import type { KeyMap, KeyRule } from "../nn/key-map.js";

const linears =
  "attn[12]\\.to_[qkv]|attn[12]\\.to_out\\.0|ff\\.net\\.0\\.proj|ff\\.net\\.2|emb_layers\\.1";

const rules: KeyRule[] = [
  { from: /^(time_embed\.[02]\.weight)$/, to: "$1", layout: "linear" },
  { from: new RegExp(`^(.*\\.(?:${linears})\\.weight)$`), to: "$1", layout: "linear" },
  { from: /^(.*\.proj_(?:in|out)\.weight)$/, to: "$1", rank: 2, layout: "linear" },
  {
    from: /^(.*\.(?:skip_connection|qkv|proj_in|proj_out)\.weight)$/,
    to: "$1",
    layout: "pointwise",
  },
  { from: /^(.*\.(?:in_layers\.2|out_layers\.3|op|conv)\.weight)$/, to: "$1", layout: "conv" },
  { from: /^((?:input_blocks\.0\.0|out\.2)\.weight)$/, to: "$1", layout: "conv" },
  { from: /^(id_predictor\.1\.weight)$/, to: "$1", layout: "pointwise" },
  {
    from: /^((?:time_embed|label_emb|input_blocks|middle_block|output_blocks|out|id_predictor)\..*)$/,
    to: "$1",
  },
];

export const latentDiffusionUnetKeys: KeyMap = { drop: [], rules };

/** A model that predicts codes keeps an output for latents that it never uses. */
export const latentDiffusionCodeUnetKeys: KeyMap = { drop: [/^out\./], rules };
