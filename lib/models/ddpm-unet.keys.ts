// Checkpoints of the DDPM U-Net: names of ermongroup/ddim and of DiffuseVAE's reproduction branch are
// ours, only layouts differ.
import type { KeyMap } from "../nn/key-map.js";

export const ddpmUnetKeys: KeyMap = {
  drop: [],
  rules: [
    { from: /^(temb\.dense\.[01]\.weight)$/, to: "$1", layout: "linear" },
    { from: /^(proj\.[02]\.weight)$/, to: "$1", layout: "linear" },
    { from: /^(.*\.temb_proj\.weight)$/, to: "$1", layout: "linear" },
    { from: /^(.*\.(?:nin_shortcut|q|k|v|proj_out)\.weight)$/, to: "$1", layout: "pointwise" },
    {
      from: /^((?:.*\.)?(?:conv|conv1|conv2|conv_in|conv_out)\.weight)$/,
      to: "$1",
      layout: "conv",
    },
    {
      from: /^((?:temb|proj|label_emb|conv_in|down|mid|up|norm_out|conv_out)\..*)$/,
      to: "$1",
    },
  ],
};
