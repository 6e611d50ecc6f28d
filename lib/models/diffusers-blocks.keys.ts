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

/** Residual blocks, attention over pixels (old and new names) and the convolution between levels. */
export function blockRules({ theirs, ours, resnets, attention }: BlockNames): KeyRule[] {
  const inside = (pattern: string): RegExp => new RegExp(`^${theirs}\\.${pattern}$`);
  const residual = resnets.flatMap((name, j): KeyRule[] => [
    {
      from: inside(`resnets\\.${j}\\.conv_shortcut\\.weight`),
      to: `${ours}.${name}.nin_shortcut.weight`,
      layout: "pointwise",
    },
    {
      from: inside(`resnets\\.${j}\\.conv_shortcut\\.bias`),
      to: `${ours}.${name}.nin_shortcut.bias`,
    },
    {
      from: inside(`resnets\\.${j}\\.time_emb_proj\\.weight`),
      to: `${ours}.${name}.temb_proj.weight`,
      layout: "linear",
    },
    {
      from: inside(`resnets\\.${j}\\.time_emb_proj\\.bias`),
      to: `${ours}.${name}.temb_proj.bias`,
    },
    {
      from: inside(`resnets\\.${j}\\.(conv[12]\\.weight)`),
      to: `${ours}.${name}.$1`,
      layout: "conv",
    },
    { from: inside(`resnets\\.${j}\\.(.*)`), to: `${ours}.${name}.$1` },
  ]);
  const mixing = attention.flatMap((name, j): KeyRule[] => [
    { from: inside(`attentions\\.${j}\\.group_norm\\.(.*)`), to: `${ours}.${name}.norm.$1` },
    ...Object.entries(attentionNames).flatMap(([pattern, own]): KeyRule[] => {
      const from = inside(`attentions\\.${j}\\.(?:${pattern})\\.weight`);
      const to = `${ours}.${name}.${own}`;
      return [
        { from, to: `${to}.weight`, rank: 4, layout: "pointwise" },
        { from, to: `${to}.weight`, rank: 2, layout: "linear" },
        { from: inside(`attentions\\.${j}\\.(?:${pattern})\\.bias`), to: `${to}.bias` },
      ];
    }),
  ]);
  const sampler = theirs.includes("down_blocks") ? "downsample" : "upsample";
  const sampling: KeyRule[] = [
    {
      from: inside(`${sampler}rs\\.0\\.conv\\.weight`),
      to: `${ours}.${sampler}.conv.weight`,
      layout: "conv",
    },
    { from: inside(`${sampler}rs\\.0\\.conv\\.bias`), to: `${ours}.${sampler}.conv.bias` },
  ];
  return [...residual, ...mixing, ...sampling];
}

/** name.0, name.1, … */
export const indexed = (name: string, count: number): string[] =>
  Array.from({ length: count }, (_, i) => `${name}.${i}`);
