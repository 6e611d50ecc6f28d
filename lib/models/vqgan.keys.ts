// VQGAN checkpoints: names of CompVis/taming-transformers are ours, only layouts differ; diffusers
// (huggingface/diffusers VQModel, old and new attention names) is renamed. `levels` is the number
// of resolutions.
import type { KeyMap, KeyRule } from "../nn/key-map.js";

const layouts: KeyRule[] = [
  {
    from: /^((?:encoder|decoder)\.(?:.*\.)?(?:conv|conv1|conv2|conv_in|conv_out)\.weight)$/,
    to: "$1",
    layout: "conv",
  },
  {
    from: /^((?:encoder|decoder)\..*\.(?:nin_shortcut|q|k|v|proj_out)\.weight)$/,
    to: "$1",
    layout: "pointwise",
  },
  { from: /^((?:post_)?quant_conv\.weight)$/, to: "$1", layout: "pointwise" },
];

/** taming-transformers VQModel; ITHQ's moving-average codebook has no ".weight". */
export const tamingVqganKeys: KeyMap = {
  drop: [/^loss\./, /num_batches_tracked$/],
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
