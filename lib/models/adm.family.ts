// How checkpoints of the ADM networks are recognised: openai/guided-diffusion and
// openai/improved-diffusion, whose files hold the state dict alone.
import { DiffusionError } from "../errors.js";
import { admClassifierConfigs, admUnetConfigs, admUpsamplerConfigs } from "./adm-configs.js";
import { admEncoderUnet } from "./adm-encoder-unet.js";
import type { AdmEncoderUnetConfig, EncoderPool } from "./adm-encoder-unet.js";
import type { AdmTrunkConfig } from "./adm-trunk.js";
import { admUnet } from "./adm-unet.js";
import type { AdmUnetConfig } from "./adm-unet.js";
import { admEncoderUnetKeys, admUnetKeys } from "./adm.keys.js";
import { limits, oneOf, whole } from "./check-config.js";
import { admPipeline } from "./pipeline-facts.js";
import type { Fact, FactValues, Family, ShapeView } from "./family.js";

const facts = {
  resolution: { what: "side of the training images in pixels", rule: whole(1, limits.side) },
  heads: { what: "attention heads, or 0 when headChannels is set", rule: whole(0, limits.width) },
  headChannels: {
    what: "channels of an attention head, or 0 when heads is set",
    rule: whole(0, limits.width),
  },
  attentionOrder: {
    what: "order of the attention projection: heads-first unless it was trained with use_new_attention_order",
    rule: oneOf("heads-first", "qkv-first"),
  },
  imageChannels: { what: "channels of a picture", rule: whole(1, limits.width), fixed: 3 },
  upHeads: {
    what: "attention heads of the up path (num_heads_upsample), or 0 for those of the down path",
    rule: whole(0, limits.width),
    fixed: 0,
  },
  groups: { what: "groups of the group norms", rule: whole(1, limits.width), fixed: 32 },
} as const satisfies Record<string, Fact>;

/** Exactly one of the two is set. */
export function headFacts(
  where: string,
  { heads, headChannels }: FactValues,
): { heads: number } | { headChannels: number } {
  if ((heads as number) > 0 && headChannels === 0) return { heads: heads as number };
  if ((headChannels as number) > 0 && heads === 0) return { headChannels: headChannels as number };
  throw new DiffusionError(
    "option",
    `${where}: expected one of heads and headChannels to be 0, got ${String(heads)} and ${String(headChannels)}`,
  );
}

/** Levels, widths and options of a down path with so many levels and blocks in each. */
function pathConfig(
  shapes: ShapeView,
  levels: number,
  residualBlocks: number,
): Omit<AdmTrunkConfig, "heads" | "groups"> {
  const channels = shapes.shape("time_embed.0.weight", 2)[1]!;
  const first = (level: number): string => `input_blocks.${1 + level * (residualBlocks + 1)}`;
  const all = Array.from({ length: levels }, (_, level) => level);
  const widths = all.map((l) => shapes.extent(`${first(l)}.0.in_layers.2.weight`, 0));
  const down = `input_blocks.${residualBlocks + 1}.0`;
  return {
    channels,
    multipliers: widths.map((width) => width / channels),
    residualBlocks,
    attentionFactors: all.filter((l) => shapes.has(`${first(l)}.1.norm.weight`)).map((l) => 2 ** l),
    scaleShiftNorm: shapes.extent("middle_block.0.emb_layers.1.weight", 0) === 2 * widths.at(-1)!,
    residualResample: levels > 1 && shapes.has(`${down}.in_layers.2.weight`),
  };
}

const blocksOf = (shapes: ShapeView, path: "input" | "output"): number =>
  shapes.count(new RegExp(`^${path}_blocks\\.(\\d+)\\.`));

/** Paths of a U-Net: each level but the finest ends with an upsampler, which without convolutions has no tensors. */
export function unetPaths(shapes: ShapeView): Omit<AdmTrunkConfig, "heads" | "groups"> {
  const all = blocksOf(shapes, "output");
  const plain = all - blocksOf(shapes, "input");
  const ups = shapes.count(/^output_blocks\.(\d+)\.[12]\.(?:conv|in_layers\.2)\.weight$/) + plain;
  const perLevel = shapes.ratio(all, ups + 1, "residual blocks of a level");
  const paths = pathConfig(shapes, ups + 1, perLevel - 1);
  return plain > 0 ? { ...paths, convResample: false } : paths;
}

/** Heads, order and groups, which no shape shows. */
const trunkFacts = (shapes: ShapeView, given: FactValues) => ({
  ...headFacts(shapes.where, given),
  attentionOrder: given["attentionOrder"] as "heads-first" | "qkv-first",
  groups: given["groups"] as number,
});

export const classesOf = (shapes: ShapeView): { classes?: number } =>
  shapes.has("label_emb.weight") ? { classes: shapes.extent("label_emb.weight", 0) } : {};

function configureUnet(shapes: ShapeView, given: FactValues): AdmUnetConfig {
  const imageChannels = given["imageChannels"] as number;
  const inputs = shapes.extent("input_blocks.0.0.weight", 1);
  return {
    ...unetPaths(shapes),
    ...trunkFacts(shapes, given),
    ...((given["upHeads"] as number) > 0 && { upHeads: given["upHeads"] as number }),
    ...classesOf(shapes),
    resolution: given["resolution"] as number,
    imageChannels,
    outChannels: shapes.extent("out.2.weight", 0),
    superResolution: shapes.ratio(inputs, imageChannels, "input images") === 2,
  };
}

/** Which head, by the names of its tensors. */
function poolOf(shapes: ShapeView): EncoderPool {
  if (shapes.has("out.2.positional_embedding")) return "attention";
  if (shapes.has("out.1.weight")) return "spatial-v2";
  return shapes.has("out.3.weight") ? "adaptive" : "spatial";
}

const lastLayers: Readonly<Record<EncoderPool, string>> = {
  attention: "out.2.c_proj.weight",
  adaptive: "out.3.weight",
  spatial: "out.2.weight",
  "spatial-v2": "out.3.weight",
};

function configureEncoder(shapes: ShapeView, given: FactValues): AdmEncoderUnetConfig {
  const residualBlocks = given["residualBlocks"] as number;
  const levels = shapes.ratio(blocksOf(shapes, "input"), residualBlocks + 1, "levels");
  const pool = poolOf(shapes);
  return {
    ...pathConfig(shapes, levels, residualBlocks),
    ...trunkFacts(shapes, given),
    resolution: given["resolution"] as number,
    imageChannels: shapes.extent("input_blocks.0.0.weight", 1),
    outputs: shapes.extent(lastLayers[pool], 0),
    pool,
  };
}

/** Published configurations without dropout, which belongs to training. */
export const recognisable = (configs: Readonly<Record<string, object>>): Record<string, object> =>
  Object.fromEntries(
    Object.entries(configs).map(([name, config]) => {
      const { dropout, ...rest } = config as { dropout?: number };
      void dropout;
      return [name, rest];
    }),
  );

const { imageChannels, upHeads, ...encoderFacts } = facts;
void [imageChannels, upHeads];

export const admFamilies: readonly Family[] = [
  {
    name: "adm-unet",
    title: "ADM U-Net or upsampler (openai/guided-diffusion, openai/improved-diffusion)",
    model: "adm-unet",
    role: "model",
    marks: [
      /^time_embed\.0\.weight$/,
      /^output_blocks\.0\.0\.in_layers\.2\.weight$/,
      /^out\.2\.weight$/,
    ],
    absent: [/\.transformer_blocks\./, /^proj\./],
    facts,
    configure: configureUnet,
    keys: () => admUnetKeys,
    build: (config) => admUnet(config as AdmUnetConfig),
    pipeline: admPipeline,
    published: {
      ...recognisable(admUnetConfigs),
      ...Object.fromEntries(
        Object.entries(recognisable(admUpsamplerConfigs)).map(([name, config]) => [
          `${name} upsampler`,
          config,
        ]),
      ),
    },
  },
  {
    name: "adm-encoder-unet",
    title: "ADM classifier (openai/guided-diffusion)",
    model: "adm-encoder-unet",
    role: "model",
    marks: [
      /^time_embed\.0\.weight$/,
      /^middle_block\.2\.in_layers\.2\.weight$/,
      /^out\.0\.weight$/,
    ],
    absent: [/^output_blocks\./],
    facts: {
      ...encoderFacts,
      residualBlocks: {
        what: "residual blocks of a level (classifier_depth)",
        rule: whole(0, 64),
      },
    },
    configure: configureEncoder,
    keys: () => admEncoderUnetKeys,
    build: (config) => admEncoderUnet(config as AdmEncoderUnetConfig),
    published: recognisable(admClassifierConfigs),
  },
];
