// DiT and SiT checkpoints: the names of facebookresearch/DiT and willisma/SiT are ours, only layouts
// differ. The stored position table is the fixed one that the model computes.
import type { KeyMap } from "../nn/key-map.js";

const linears = "(?:qkv|proj|fc[12]|adaLN_modulation\\.1|final_layer\\.linear|mlp\\.[02])";

/** facebookresearch/DiT and willisma/SiT, bare or as the "ema" or "model" of a training checkpoint. */
export const facebookDitKeys: KeyMap = {
  drop: [/^(?:module\.)?pos_embed$/],
  rules: [
    { from: /^(?:module\.)?(x_embedder\.proj\.weight)$/, to: "$1", layout: "conv" },
    {
      from: new RegExp(`^(?:module\\.)?((?:.*\\.)?${linears}\\.weight)$`),
      to: "$1",
      rank: 2,
      layout: "linear",
    },
    {
      from: /^(?:module\.)?((?:[xty]_embedder|blocks|final_layer)\..*)$/,
      to: "$1",
    },
  ],
};
