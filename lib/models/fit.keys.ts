// FiT and FiTv2 checkpoints: the names of whlzy/FiT are ours, only layouts differ.
import type { KeyMap } from "../nn/key-map.js";

/** whlzy/FiT, bare or from accelerate. */
export const fitKeys: KeyMap = {
  drop: [/^(?:module\.)?rel_pos_embed\./],
  rules: [
    {
      from: /^(?:module\.)?((?:[xty]_embedder|blocks|global_adaLN_modulation|final_layer)\..*(?<!embedding_table)\.weight)$/,
      to: "$1",
      rank: 2,
      layout: "linear",
    },
    {
      from: /^(?:module\.)?((?:[xty]_embedder|blocks|global_adaLN_modulation|final_layer)\..*)$/,
      to: "$1",
    },
  ],
};
