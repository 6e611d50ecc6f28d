// DiVAE checkpoints of apple/ml-4m. Ours are its names, but for the codebook and the residual blocks of the U-ViT. Tables
// of positions are left out: they are constants of ours. A layer that diffusers stores twice is read once.
import type { KeyMap, KeyRule } from "../nn/key-map.js";

const named = (pattern: string, layout: NonNullable<KeyRule["layout"]>, to = "$1"): KeyRule => ({
  from: new RegExp(`^${pattern}$`),
  to,
  layout,
});

const unet: KeyRule[] = [
  named("(decoder\\.time_embed\\.[02]\\.weight)", "linear"),
  named("(decoder\\.\\w+\\..*emb_layers\\.1\\.weight)", "linear"),
  named(
    "(decoder\\.(?:input|output)_blocks\\..*\\.(?:skip_connection|qkv|proj_out)\\.weight)",
    "pointwise",
  ),
  named("(decoder\\.middle_block\\..*\\.(?:qkv|proj_out)\\.weight)", "pointwise"),
  named("(decoder\\..*\\.(?:in_layers\\.2|out_layers\\.3|op)\\.weight)", "conv"),
  named("(decoder\\.(?:input_blocks\\.0\\.0|out\\.2)\\.weight)", "conv"),
];

const uvit: KeyRule[] = [
  named("(decoder\\.time_embedding\\.linear_[12]\\.weight)", "linear"),
  named("(decoder\\.mid_block\\.(?!.*norm).*weight)", "linear"),
  named("(decoder\\..*\\.)time_emb_proj\\.weight", "linear", "$1temb_proj.weight"),
  { from: /^(decoder\..*\.)time_emb_proj\.bias$/, to: "$1temb_proj.bias" },
  named("(decoder\\..*\\.)conv_shortcut\\.weight", "pointwise", "$1nin_shortcut.weight"),
  { from: /^(decoder\..*\.)conv_shortcut\.bias$/, to: "$1nin_shortcut.bias" },
  named("(decoder\\.conv_in\\.weight)", "conv"),
  named("(decoder\\.conv_out\\.weight)", "flatten"),
];

export const divaeKeys: KeyMap = {
  drop: [/pos_emb$/, /\.Conv2d_0\./, /\._codebook\.initted$/],
  rules: [
    named("(encoder\\.proj\\.weight)", "conv"),
    named("(encoder\\.blocks\\.\\d+\\.(?:attn|mlp)\\..*weight)", "linear"),
    named("(encoder\\.post_mlp\\.fc[12]\\.weight)", "linear"),
    named("(quant_proj\\.weight)", "pointwise"),
    { from: /^quantize\._codebook\.(embed|embed_avg|cluster_size)$/, to: "quantize.$1" },
    ...unet,
    ...uvit,
    named("(decoder\\..*\\.(?:conv|conv1|conv2)\\.weight)", "conv"),
    { from: /^((?:cls_emb|encoder|quant_proj|decoder)\..*)$/, to: "$1" },
  ],
};
