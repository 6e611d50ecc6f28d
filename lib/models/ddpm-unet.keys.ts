// Checkpoints of the DDPM U-Net: names of ermongroup/ddim and of DiffuseVAE's reproduction branch are
// ours, only layouts differ; huggingface/diffusers UNet2DModel is renamed.
import type { KeyMap, KeyRule } from "../nn/key-map.js";
import { blockRules, indexed, type BlockNames } from "./diffusers-blocks.keys.js";

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

/**
 * huggingface/diffusers UNet2DModel with `levels` resolutions and `residualBlocks` in each level of the down path. Its up
 * blocks run from the coarsest, ours are numbered from the finest. A layer that old versions store twice is read once.
 */
export function diffusersDdpmKeys(levels: number, residualBlocks: number): KeyMap {
  const level = (side: "down" | "up", l: number, blocks: number): BlockNames => ({
    theirs: `${side}_blocks\\.${side === "down" ? l : levels - 1 - l}`,
    ours: `${side}.${l}`,
    resnets: indexed("block", blocks),
    attention: indexed("attn", blocks),
  });
  const middle = { theirs: "mid_block", ours: "mid", resnets: ["block_1", "block_2"], attention: ["attn_1"] }; // prettier-ignore
  const blocks = Array.from({ length: levels }, (_, l) => [
    level("down", l, residualBlocks),
    level("up", l, residualBlocks + 1),
  ]).flat();
  const embedding = [1, 2].flatMap((n): KeyRule[] => [
    { from: new RegExp(`^time_embedding\\.linear_${n}\\.weight$`), to: `temb.dense.${n - 1}.weight`, layout: "linear" }, // prettier-ignore
    { from: new RegExp(`^time_embedding\\.linear_${n}\\.bias$`), to: `temb.dense.${n - 1}.bias` },
  ]);
  return {
    drop: [/\.Conv2d_0\./],
    rules: [
      ...[...blocks, middle].flatMap(blockRules),
      ...embedding,
      { from: /^class_embedding\.weight$/, to: "label_emb.weight" },
      { from: /^conv_norm_out\.(.*)$/, to: "norm_out.$1" },
      { from: /^(conv_(?:in|out)\.weight)$/, to: "$1", layout: "conv" },
      { from: /^(conv_(?:in|out)\.bias)$/, to: "$1" },
    ],
  };
}
