// How LPIPS is recognised: the perceptual loss of CompVis/taming-transformers, alone or inside an autoencoder's checkpoint.
import type { Family } from "./family.js";
import { tamingLpipsKeys } from "./lpips.keys.js";
import { lpips } from "./lpips.js";
import type { LpipsConfig } from "./lpips.js";

/** A convolution of each stage. */
const stages = ["1.0", "2.5", "3.10", "4.17", "5.24"];

export const lpipsFamilies: readonly Family[] = [
  {
    name: "taming-lpips",
    title: "LPIPS on VGG16 (CompVis/taming-transformers)",
    model: "lpips",
    role: "perceptual",
    places: [/^loss\.perceptual_loss\./, /^perceptual_loss\./],
    marks: [/^net\.slice1\.0\.weight$/, /^lin0\.model\.1\.weight$/],
    facts: {},
    configure: (shapes): LpipsConfig => ({
      widths: stages.map((place) => shapes.extent(`net.slice${place}.weight`, 0)),
    }),
    keys: () => tamingLpipsKeys,
    build: (config) => lpips(config as LpipsConfig),
    published: { vgg16: { widths: [64, 128, 256, 512, 512] } },
  },
];
