// DiT and SiT checkpoints: the names of facebookresearch/DiT and willisma/SiT are ours, only layouts
// differ; huggingface/diffusers is renamed. The stored position table is the fixed one that the model
// computes.
import type { KeyMap, KeyRule } from "../nn/key-map.js";

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

const theirBlock = "^transformer_blocks\\.(\\d+)\\.";

/** Weight and bias of a linear layer of theirs, which is ours of another name, or a part of it. */
const linearOf = (theirs: string, ours: string, part?: KeyRule["part"]): KeyRule[] => [
  {
    from: new RegExp(`${theirs}\\.weight$`),
    to: `${ours}.weight`,
    layout: "linear",
    ...(part && { part }),
  },
  { from: new RegExp(`${theirs}\\.bias$`), to: `${ours}.bias`, ...(part && { part }) },
];

const embedderAt = (block: string): string => `^transformer_blocks\\.${block}\\.norm1\\.emb\\.`;

/** The embedding of time and class of some blocks, ours at `to`. */
const embedder = (block: string, to: string): KeyRule[] => [
  ...["0", "2"].flatMap((place, i) =>
    linearOf(
      `${embedderAt(block)}timestep_embedder\\.linear_${i + 1}`,
      `${to}t_embedder.mlp.${place}`,
    ),
  ),
  {
    from: new RegExp(`${embedderAt(block)}class_embedder\\.embedding_table\\.weight$`),
    to: `${to}y_embedder.embedding_table.weight`,
  },
];

/**
 * huggingface/diffusers DiTTransformer2DModel. Every block there has its own time and label embedding;
 * in files made from the published ones they are copies of one.
 */
export const diffusersDitKeys: KeyMap = {
  drop: [/^pos_embed\.pos_embed$/],
  copies: [
    {
      from: /^transformer_blocks\.[1-9]\d*\.(norm1\.emb\..*)$/,
      of: "transformer_blocks.0.$1",
      hint: "if diffusers trained this network, say --set trainedBy=diffusers",
    },
  ],
  rules: [
    { from: /^pos_embed\.proj\.weight$/, to: "x_embedder.proj.weight", layout: "conv" },
    { from: /^pos_embed\.proj\.bias$/, to: "x_embedder.proj.bias" },
    ...embedder("0", ""),
    ...linearOf(`${theirBlock}norm1\\.linear`, "blocks.$1.adaLN_modulation.1"),
    ...["q", "k", "v"].flatMap((name, index) =>
      linearOf(`${theirBlock}attn1\\.to_${name}`, "blocks.$1.attn.qkv", { index, of: 3 }),
    ),
    ...linearOf(`${theirBlock}attn1\\.to_out\\.0`, "blocks.$1.attn.proj"),
    ...linearOf(`${theirBlock}ff\\.net\\.0\\.proj`, "blocks.$1.mlp.fc1"),
    ...linearOf(`${theirBlock}ff\\.net\\.2`, "blocks.$1.mlp.fc2"),
    ...linearOf("^proj_out_1", "final_layer.adaLN_modulation.1"),
    ...linearOf("^proj_out_2", "final_layer.linear"),
  ],
};

/** The same of a network that diffusers trained: each block keeps its own embedding. */
export const diffusersTrainedDitKeys: KeyMap = {
  drop: diffusersDitKeys.drop,
  rules: [...embedder("(\\d+)", "blocks.$1."), ...diffusersDitKeys.rules],
};
