// Checkpoints of latent diffusion's U-Net: names of CompVis/latent-diffusion are ours, only layouts differ. Stable
// Diffusion has the same names; its later versions keep proj_in and proj_out as linear layers. UNet2DConditionModel of
// huggingface/diffusers is renamed.
import type { KeyMap, KeyRule } from "../nn/key-map.js";

const linears =
  "attn[12]\\.to_[qkv]|attn[12]\\.to_out\\.0|ff\\.net\\.0\\.proj|ff\\.net\\.2|emb_layers\\.1";

const rules: KeyRule[] = [
  { from: /^(time_embed\.[02]\.weight)$/, to: "$1", layout: "linear" },
  { from: new RegExp(`^(.*\\.(?:${linears})\\.weight)$`), to: "$1", layout: "linear" },
  { from: /^(.*\.proj_(?:in|out)\.weight)$/, to: "$1", rank: 2, layout: "linear" },
  {
    from: /^(.*\.(?:skip_connection|qkv|proj_in|proj_out)\.weight)$/,
    to: "$1",
    layout: "pointwise",
  },
  { from: /^(.*\.(?:in_layers\.2|out_layers\.3|op|conv)\.weight)$/, to: "$1", layout: "conv" },
  { from: /^((?:input_blocks\.0\.0|out\.2)\.weight)$/, to: "$1", layout: "conv" },
  { from: /^(id_predictor\.1\.weight)$/, to: "$1", layout: "pointwise" },
  {
    from: /^((?:time_embed|label_emb|input_blocks|middle_block|output_blocks|out|id_predictor)\..*)$/,
    to: "$1",
  },
];

export const latentDiffusionUnetKeys: KeyMap = { drop: [], rules };

/** A model that predicts codes keeps an output for latents that it never uses. */
export const latentDiffusionCodeUnetKeys: KeyMap = { drop: [/^out\./], rules };

/** Parts of a residual block there and here. */
const residualParts: Readonly<Record<string, string>> = {
  norm1: "in_layers.0",
  conv1: "in_layers.2",
  time_emb_proj: "emb_layers.1",
  norm2: "out_layers.0",
  conv2: "out_layers.3",
  conv_shortcut: "skip_connection",
};

/** Where the numbered parts of their blocks are among ours: [theirs, ours]. */
function places(levels: number, blocks: number): [string, string][] {
  const all = Array.from({ length: levels }, (_, l) => l);
  return [
    ...all.flatMap((l) => [
      ...Array.from({ length: blocks }, (_, i): [string, string][] => {
        const at = `input_blocks.${1 + l * (blocks + 1) + i}`;
        return [[`down_blocks.${l}.resnets.${i}`, `${at}.0`], [`down_blocks.${l}.attentions.${i}`, `${at}.1`]]; // prettier-ignore
      }).flat(),
      [`down_blocks.${l}.downsamplers.0`, `input_blocks.${(l + 1) * (blocks + 1)}.0`] as [string, string], // prettier-ignore
      ...Array.from({ length: blocks + 1 }, (_, i): [string, string][] => {
        const at = `output_blocks.${l * (blocks + 1) + i}`;
        return [[`up_blocks.${l}.resnets.${i}`, `${at}.0`], [`up_blocks.${l}.attentions.${i}`, `${at}.1`]]; // prettier-ignore
      }).flat(),
    ]),
    ["mid_block.resnets.0", "middle_block.0"],
    ["mid_block.attentions.0", "middle_block.1"],
    ["mid_block.resnets.1", "middle_block.2"],
    ["time_embedding.linear_1", "time_embed.0"],
    ["time_embedding.linear_2", "time_embed.2"],
    ["class_embedding", "label_emb"],
    ["conv_in", "input_blocks.0.0"],
    ["conv_norm_out", "out.0"],
    ["conv_out", "out.2"],
  ];
}

/**
 * CompVis' name of a tensor of huggingface/diffusers UNet2DConditionModel with `levels` resolutions and `blocks` residual
 * blocks in each level of the down path. Their up blocks run from the coarsest, as ours; an upsampler is the last part of
 * its block, after attention where there is some (`attended`: their numbers of up blocks with attention).
 */
export function compVisName(
  levels: number,
  blocks: number,
  attended: ReadonlySet<number>,
): (theirs: string) => string | undefined {
  const table = new Map(places(levels, blocks));
  return (theirs) => {
    const [, start = "", rest = ""] =
      /^((?:down|up)_blocks\.\d+\.\w+\.\d+|mid_block\.\w+\.\d+|time_embedding\.\w+|\w+)\.(.*)$/.exec(theirs) ?? []; // prettier-ignore
    const up = /^up_blocks\.(\d+)\.upsamplers\.0$/.exec(start);
    if (up) {
      const level = Number(up[1]);
      return `output_blocks.${(level + 1) * (blocks + 1) - 1}.${attended.has(level) ? 2 : 1}.${rest}`;
    }
    const ours = table.get(start);
    if (ours === undefined) return undefined;
    if (start.includes(".downsamplers.")) return `${ours}.${rest.replace(/^conv\./, "op.")}`;
    if (!start.includes(".resnets.")) return `${ours}.${rest}`;
    const [part = "", ending = ""] = rest.split(".");
    const own = residualParts[part];
    return own && `${ours}.${own}.${ending}`;
  };
}
