// VQGAN checkpoints: names of CompVis/taming-transformers are ours, only layouts differ; diffusers
// (huggingface/diffusers VQModel, old and new attention names) is renamed. `levels` is the number
// of resolutions.
import type { KeyMap, KeyRule } from "../nn/key-map.js";
import { blockRules, indexed, type BlockNames } from "./diffusers-blocks.keys.js";

const layouts: KeyRule[] = [
  {
    from: /^((?:encoder|decoder)\.(?:.*\.)?(?:conv|conv1|conv2|conv_in|conv_out)\.weight)$/,
    to: "$1",
    layout: "conv",
  },
  {
    from: /^((?:encoder|decoder)\..*\.(?:nin_shortcut|q|k|v|proj_out|to_qkv|to_out)\.weight)$/,
    to: "$1",
    layout: "pointwise",
  },
  { from: /^((?:post_)?quant_conv\.weight)$/, to: "$1", layout: "pointwise" },
  { from: /^(quantize\.proj\.weight)$/, to: "$1", layout: "pointwise" },
];

/**
 * taming-transformers VQModel and GumbelVQ, and VQModel and AutoencoderKL of latent-diffusion; ITHQ's moving-average
 * codebook has no ".weight".
 */
export const tamingVqganKeys: KeyMap = {
  drop: [/^loss\./, /^model_ema\./, /^colorize$/, /num_batches_tracked$/],
  rules: [
    ...layouts,
    { from: /^quantize\.embedding$/, to: "quantize.embedding.weight" },
    { from: /^quantize\.cluster_size$/, to: "quantize.embedding.cluster_size" },
    { from: /^quantize\.embedding_avg$/, to: "quantize.embedding.embed_avg" },
    { from: /^(.*)$/, to: "$1" },
  ],
};

/**
 * taming-transformers NLayerDiscriminator, with or without the "discriminator." of a loss module.
 */
export const tamingDiscriminatorKeys: KeyMap = {
  drop: [/num_batches_tracked$/, /\.initialized$/],
  rules: [
    { from: /^(?:discriminator\.)?(main\.\d+\.(?:loc|scale))$/, to: "$1", layout: "squeeze" },
    { from: /^(?:discriminator\.)?(main\.\d+\.(?:bias|running_mean|running_var))$/, to: "$1" },
    { from: /^(?:discriminator\.)?(main\.\d+\.weight)$/, to: "$1", rank: 4, layout: "conv" },
    { from: /^(?:discriminator\.)?(main\.\d+\.weight)$/, to: "$1", rank: 1 },
  ],
};

/**
 * huggingface/diffusers VQModel with `levels` resolutions and `residualBlocks` in each level of the
 * encoder. Its up blocks run from the coarsest, ours are numbered from the finest.
 */
export function diffusersVqganKeys(levels: number, residualBlocks: number): KeyMap {
  const level = (side: "down" | "up", l: number, blocks: number): BlockNames => ({
    theirs: `${side === "down" ? "encoder" : "decoder"}\\.${side}_blocks\\.${side === "down" ? l : levels - 1 - l}`,
    ours: `${side === "down" ? "encoder" : "decoder"}.${side}.${l}`,
    resnets: indexed("block", blocks),
    attention: indexed("attn", blocks),
  });
  const middle = (side: string): BlockNames => ({
    theirs: `${side}\\.mid_block`,
    ours: `${side}.mid`,
    resnets: ["block_1", "block_2"],
    attention: ["attn_1"],
  });
  const blocks = Array.from({ length: levels }, (_, l) => [
    level("down", l, residualBlocks),
    level("up", l, residualBlocks + 1),
  ]).flat();
  return {
    drop: [],
    rules: [
      ...[...blocks, middle("encoder"), middle("decoder")].flatMap(blockRules),
      { from: /^(encoder|decoder)\.conv_norm_out\.(.*)$/, to: "$1.norm_out.$2" },
      { from: /^((?:encoder|decoder)\.conv_(?:in|out)\.weight)$/, to: "$1", layout: "conv" },
      { from: /^((?:encoder|decoder)\.conv_(?:in|out)\.bias)$/, to: "$1" },
      { from: /^((?:post_)?quant_conv\.weight)$/, to: "$1", layout: "pointwise" },
      { from: /^((?:post_)?quant_conv\.bias|quantize\.embedding\.weight)$/, to: "$1" },
    ],
  };
}
