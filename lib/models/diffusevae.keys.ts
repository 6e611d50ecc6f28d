// DiffuseVAE checkpoints: names of kpandey008/DiffuseVAE are ours, only layouts differ. The U-Net of
// the main branch has the keys of the ADM U-Nets (adm.keys.ts), that of the reproduction branch those
// of the DDPM U-Net (ddpm-unet.keys.ts).
import type { KeyMap } from "../nn/key-map.js";

/** VAE and CVAE of main/models/vae.py. */
export const diffuseVaeKeys: KeyMap = {
  drop: [],
  rules: [
    { from: /^(enc\.in_conv\.weight|dec\.last_conv\.weight)$/, to: "$1", layout: "conv" },
    { from: /^((?:enc|dec)\..*\.c[23]\.weight)$/, to: "$1", layout: "conv" },
    { from: /^((?:enc|dec)\..*\.c[14]\.weight)$/, to: "$1", layout: "pointwise" },
    { from: /^(enc\.(?:mu|logvar)\.weight)$/, to: "$1", layout: "pointwise" },
    { from: /^((?:enc|dec)\.blocks?(?:_mod)?\.\d+\.weight)$/, to: "$1", layout: "pointwise" },
    { from: /^((?:enc|dec|y_emb)\..*)$/, to: "$1" },
  ],
};
