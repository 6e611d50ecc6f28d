// Blocks of huggingface/diffusers' convolutional networks (VQModel, AutoencoderKL, UNet2DModel) in the names of the
// taming and DDPM code, which are ours.
import type { KeyRule } from "../nn/key-map.js";

/** One block: its pattern there, our name, and our names of its parts in order. */
export interface BlockNames {
  theirs: string;
  ours: string;
  resnets: readonly string[];
  attention: readonly string[];
}

const attentionNames: Readonly<Record<string, string>> = {
  "query|to_q": "q",
  "key|to_k": "k",
  "value|to_v": "v",
  "proj_attn|to_out\\.0": "proj_out",
};

type Inside = (pattern: string) => RegExp;

/** Of the residual block `j`, ours at `to`. */
const residualRules = (inside: Inside, to: string, j: number): KeyRule[] => {
  const from = (part: string): RegExp => inside(`resnets\\.${j}\\.${part}`);
  return [
    { from: from("conv_shortcut\\.weight"), to: `${to}.nin_shortcut.weight`, layout: "pointwise" },
    { from: from("conv_shortcut\\.bias"), to: `${to}.nin_shortcut.bias` },
    { from: from("time_emb_proj\\.weight"), to: `${to}.temb_proj.weight`, layout: "linear" },
    { from: from("time_emb_proj\\.bias"), to: `${to}.temb_proj.bias` },
    { from: from("(conv[12]\\.weight)"), to: `${to}.$1`, layout: "conv" },
    { from: from("(.*)"), to: `${to}.$1` },
  ];
};

/** Of the attention `j`, ours at `to`. */
const attentionRules = (inside: Inside, to: string, j: number): KeyRule[] => [
  { from: inside(`attentions\\.${j}\\.group_norm\\.(.*)`), to: `${to}.norm.$1` },
  ...Object.entries(attentionNames).flatMap(([pattern, own]): KeyRule[] => {
    const place = `attentions\\.${j}\\.(?:${pattern})\\.`;
    const from = inside(`${place}weight`);
    return [
      { from, to: `${to}.${own}.weight`, rank: 4, layout: "pointwise" },
      { from, to: `${to}.${own}.weight`, rank: 2, layout: "linear" },
      { from: inside(`${place}bias`), to: `${to}.${own}.bias` },
    ];
  }),
];

/** Residual blocks, attention over pixels (old and new names) and the convolution between levels. */
export function blockRules({ theirs, ours, resnets, attention }: BlockNames): KeyRule[] {
  const inside: Inside = (pattern) => new RegExp(`^${theirs}\\.${pattern}$`);
  const sampler = theirs.includes("down_blocks") ? "downsample" : "upsample";
  const from = (part: string): RegExp => inside(`${sampler}rs\\.0\\.conv\\.${part}`);
  return [
    ...resnets.flatMap((name, j) => residualRules(inside, `${ours}.${name}`, j)),
    ...attention.flatMap((name, j) => attentionRules(inside, `${ours}.${name}`, j)),
    { from: from("weight"), to: `${ours}.${sampler}.conv.weight`, layout: "conv" },
    { from: from("bias"), to: `${ours}.${sampler}.conv.bias` },
  ];
}

/** name.0, name.1, … */
export const indexed = (name: string, count: number): string[] =>
  Array.from({ length: count }, (_, i) => `${name}.${i}`);
