// LPIPS checkpoints: names of CompVis/taming-transformers are ours, and those of richzhang/PerceptualSimilarity (vgg.pth: the
// five linear layers alone) are among them; the features of torchvision's VGG16 have a map of their own.
import type { KeyMap } from "../nn/key-map.js";

/** LPIPS of taming-transformers, alone or as part of a loss module. */
export const tamingLpipsKeys: KeyMap = {
  drop: [],
  rules: [
    {
      from: /^(?:perceptual_loss\.)?(scaling_layer\.(?:shift|scale))$/,
      to: "$1",
      layout: "squeeze",
    },
    { from: /^(?:perceptual_loss\.)?(net\.slice\d\.\d+\.weight)$/, to: "$1", layout: "conv" },
    { from: /^(?:perceptual_loss\.)?(net\.slice\d\.\d+\.bias)$/, to: "$1" },
    { from: /^(?:perceptual_loss\.)?(lin\d\.model\.1\.weight)$/, to: "$1", layout: "pointwise" },
  ],
};

/** Stage of VGG16's features that holds a convolution, by its place in the flat list. */
const stageOf: readonly [stage: number, places: string][] = [
  [1, "0|2"],
  [2, "5|7"],
  [3, "10|12|14"],
  [4, "17|19|21"],
  [5, "24|26|28"],
];

/** VGG16 of torchvision: its features; the classifier is not needed. */
export const torchvisionVgg16Keys: KeyMap = {
  drop: [/^classifier\./],
  rules: stageOf.flatMap(([stage, places]) => [
    {
      from: new RegExp(`^features\\.(${places})\\.weight$`),
      to: `net.slice${stage}.$1.weight`,
      layout: "conv" as const,
    },
    { from: new RegExp(`^features\\.(${places})\\.bias$`), to: `net.slice${stage}.$1.bias` },
  ]),
};
