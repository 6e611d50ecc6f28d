// How U-Nets of latent diffusion are recognised: CompVis/latent-diffusion and Stable Diffusion, alone or inside a whole
// model, and UNet2DConditionModel of huggingface/diffusers. Those without transformers have the names of ADM's U-Nets, so they are known by their place only.
import { DiffusionError } from "../errors.js";
import { mapKey } from "../nn/key-map.js";
import type { KeyMap } from "../nn/key-map.js";
import { flag, isObject, limits, oneOf, shown, whole } from "./check-config.js";
import { headFacts, unetPaths, classesOf } from "./adm.family.js";
import { inside, known, onlyValues } from "./config-file.js";
import type { ConfigFile, Fact, FactValues, Family, ShapeView } from "./family.js";
import { latentDiffusionUnetConfigs } from "./latent-diffusion-configs.js";
import {
  compVisName,
  latentDiffusionCodeUnetKeys,
  latentDiffusionUnetKeys,
} from "./latent-diffusion-unet.keys.js";
import { latentDiffusionUnet } from "./latent-diffusion-unet.js";
import { classEmbedder } from "./class-embedder.js";
import type { ClassEmbedderConfig } from "./class-embedder.js";
import { latentDiffusionPipeline } from "./pipeline-facts.js";
import type { LatentDiffusionUnetConfig } from "./latent-diffusion-unet.js";

const facts = {
  resolution: { what: "side of the training latents (image_size)", rule: whole(1, limits.side) },
  heads: {
    what: "attention heads (num_heads), or 0 when headChannels is set",
    rule: whole(0, limits.width),
  },
  headChannels: {
    what: "channels of an attention head (num_head_channels), or 0 when heads is set",
    rule: whole(0, limits.width),
  },
  attentionOrder: {
    what: "order of the attention projection: heads-first unless it was trained with use_new_attention_order",
    rule: oneOf("heads-first", "qkv-first"),
    fixed: "heads-first",
  },
  groups: { what: "groups of the group norms", rule: whole(1, limits.width), fixed: 32 },
} as const satisfies Record<string, Fact>;

const middle = "middle_block.1";
const firstBlock = `${middle}.transformer_blocks.0`;

function transformerOf(shapes: ShapeView): Pick<LatentDiffusionUnetConfig, "transformer"> {
  if (!shapes.has(`${middle}.proj_in.weight`)) return {};
  const depth = shapes.count(/^middle_block\.1\.transformer_blocks\.(\d+)\./);
  return {
    transformer: {
      contextWidth: shapes.extent(`${firstBlock}.attn2.to_k.weight`, 1),
      ...(depth !== 1 && { depth }),
    },
  };
}

/** Legacy heads fill the width of a map as far as whole heads can; others have headChannels whatever the width. */
function legacyOf(shapes: ShapeView, { headChannels }: FactValues): { legacyHeads?: false } {
  const width = headChannels as number;
  if (width === 0) return {};
  const isOther = [...shapes.shapes].some(([name, [inner, channels]]) => {
    if (!name.endsWith(".proj_in.weight") || inner === undefined || channels === undefined)
      return false;
    const heads = Math.max(1, Math.floor(channels / width));
    return inner !== heads * Math.floor(channels / heads);
  });
  return isOther ? { legacyHeads: false } : {};
}

function configure(shapes: ShapeView, given: FactValues): LatentDiffusionUnetConfig {
  return {
    ...unetPaths(shapes),
    ...headFacts(shapes.where, given),
    ...legacyOf(shapes, given),
    ...classesOf(shapes),
    ...transformerOf(shapes),
    ...(shapes.has("id_predictor.1.weight") && {
      codes: shapes.extent("id_predictor.1.weight", 0),
    }),
    attentionOrder: given["attentionOrder"] as "heads-first" | "qkv-first",
    groups: given["groups"] as number,
    resolution: given["resolution"] as number,
    inChannels: shapes.extent("input_blocks.0.0.weight", 1),
    outChannels: shapes.extent("out.2.weight", 0),
  };
}

/** A project's yaml: model.params.unet_config.params. */
function readConfig(file: ConfigFile): Record<string, unknown> | undefined {
  const at = inside(file, "model", "params", "unet_config", "params");
  if (!isObject(at) || at["model_channels"] === undefined) return undefined;
  const count = (name: string): number => {
    const value = at[name];
    return typeof value === "number" && value > 0 ? value : 0;
  };
  const headChannels = count("num_head_channels");
  return {
    ...(typeof at["image_size"] === "number" && { resolution: at["image_size"] }),
    heads: headChannels > 0 ? 0 : count("num_heads"),
    headChannels,
    attentionOrder: at["use_new_attention_order"] === true ? "qkv-first" : "heads-first",
  };
}

/** Published configurations by what shapes and facts show: legacy heads differ only where headChannels do not divide. */
const published = Object.fromEntries(
  Object.entries(latentDiffusionUnetConfigs).map(([name, config]) => {
    const { legacyHeads, multipliers, attentionFactors, ...rest } =
      config as LatentDiffusionUnetConfig;
    void legacyHeads;
    const deepest = 2 ** (multipliers.length - 1);
    const factors = attentionFactors.filter((factor) => factor <= deepest).sort((a, b) => a - b);
    return [name, { ...rest, multipliers, attentionFactors: factors }];
  }),
);

/** What our network has no other of. */
const diffusersOnly = {
  act_fn: ["silu", "swish"],
  center_input_sample: [false],
  flip_sin_to_cos: [true],
  freq_shift: [0],
  downsample_padding: [1],
  mid_block_type: ["UNetMidBlock2DCrossAttn"],
  mid_block_scale_factor: [1],
  norm_eps: [1e-5],
  only_cross_attention: [false],
  dual_cross_attention: [false],
  time_embedding_type: ["positional"],
  conv_in_kernel: [3],
  conv_out_kernel: [3],
  attention_type: ["default"],
  resnet_skip_time_act: [false],
  resnet_out_scale_factor: [1],
  class_embeddings_concat: [false],
  class_embed_type: [],
  addition_embed_type: [],
  encoder_hid_dim: [],
  time_embedding_dim: [],
  time_embedding_act_fn: [],
  timestep_post_act: [],
  time_cond_proj_dim: [],
  cross_attention_norm: [],
  mid_block_only_cross_attention: [false],
};

/** Heads of each level: attention_head_dim of a UNet2DConditionModel is their number, not their width. */
function headsOf(file: ConfigFile): { heads: number; headChannels: number } {
  const count = file["num_attention_heads"] ?? file["attention_head_dim"] ?? 8;
  if (typeof count === "number") return { heads: count, headChannels: 0 };
  const widths = file["block_out_channels"];
  if (Array.isArray(count) && Array.isArray(widths)) {
    const channels = new Set(widths.map((width, l) => (width as number) / (count[l] as number)));
    const [width] = channels;
    if (new Set(count).size === 1) return { heads: count[0] as number, headChannels: 0 };
    if (channels.size === 1 && Number.isInteger(width)) return { heads: 0, headChannels: width! };
  }
  throw new DiffusionError(
    "option",
    `config.json: expected attention_head_dim to be the same in all levels or to give heads of one width, got ${shown(count)}`,
  );
}

/** config.json of a UNet2DConditionModel. */
function readDiffusers(file: ConfigFile): Record<string, unknown> | undefined {
  if (file["_class_name"] !== "UNet2DConditionModel") return undefined;
  onlyValues(file, diffusersOnly);
  return known({
    ...headsOf(file),
    resolution: typeof file["sample_size"] === "number" ? file["sample_size"] : undefined,
    groups: file["norm_num_groups"] ?? 32,
    inChannels: file["in_channels"],
    outChannels: file["out_channels"],
    residualBlocks: file["layers_per_block"],
  });
}

/** CompVis' name of a tensor of a UNet2DConditionModel. */
function nameOf(shapes: ShapeView): (theirs: string) => string | undefined {
  const levels = shapes.count(/^down_blocks\.(\d+)\./);
  const blocks = shapes.count(/^down_blocks\.0\.resnets\.(\d+)\./);
  const all = Array.from({ length: levels }, (_, l) => l);
  const attended = all.filter((l) => shapes.has(`up_blocks.${l}.attentions.0.norm.weight`));
  return compVisName(levels, blocks, new Set(attended));
}

/** One rule a tensor: what it is called by CompVis, with the layout that it has there. */
function diffusersKeys(shapes: ShapeView): KeyMap {
  const name = nameOf(shapes);
  const rules = [...shapes.shapes].flatMap(([theirs, shape]) => {
    const compVis = name(theirs);
    const match =
      compVis === undefined ? undefined : mapKey(latentDiffusionUnetKeys, compVis, shape);
    if (typeof match !== "object") return [];
    const from = new RegExp(`^${theirs.replaceAll(".", "\\.")}$`);
    return [{ from, to: match.name, layout: match.layout }];
  });
  return { drop: [/\.Conv2d_0\./], rules };
}

const common = {
  model: "latent-diffusion-unet",
  role: "model",
  places: [/^model\.diffusion_model\./],
  facts,
  readConfig,
  configure,
  keys: (config: object) =>
    (config as LatentDiffusionUnetConfig).codes === undefined
      ? latentDiffusionUnetKeys
      : latentDiffusionCodeUnetKeys,
  build: (config: object) => latentDiffusionUnet(config as LatentDiffusionUnetConfig),
  pipeline: latentDiffusionPipeline,
  published,
} as const;

const marks = [
  /^time_embed\.0\.weight$/,
  /^input_blocks\.0\.0\.weight$/,
  /^output_blocks\.0\.0\.in_layers\.2\.weight$/,
  /^out\.2\.weight$/,
];

export const latentDiffusionFamilies: readonly Family[] = [
  {
    ...common,
    name: "ldm-unet",
    title: "U-Net with cross-attention (CompVis/latent-diffusion, Stable Diffusion)",
    marks: [...marks, /^middle_block\.1\.transformer_blocks\.0\./],
  },
  {
    ...common,
    name: "ldm-unet-plain",
    title: "U-Net without cross-attention (CompVis/latent-diffusion)",
    whole: false,
    marks,
    absent: [/\.transformer_blocks\./],
  },
  {
    name: "ldm-class-embedder",
    title: "vectors of classes (CompVis/latent-diffusion ClassEmbedder)",
    model: "class-embedder",
    role: "class-embedder",
    whole: false,
    places: [/^cond_stage_model\./],
    marks: [/^embedding\.weight$/],
    facts: {
      nullClass: {
        what: "whether the last row stands for no class (1001 rows for the classes of ImageNet)",
        rule: flag,
      },
    },
    configure(shapes, given): ClassEmbedderConfig {
      const [rows, width] = shapes.shape("embedding.weight", 2) as [number, number];
      const nullClass = given["nullClass"] as boolean;
      return { classes: rows - Number(nullClass), nullClass, width };
    },
    keys: () => ({ drop: [], rules: [{ from: /^(embedding\.weight)$/, to: "$1" }] }),
    build: (config) => classEmbedder(config as ClassEmbedderConfig),
  },
  {
    ...common,
    name: "diffusers-ldm-unet",
    title: "U-Net with cross-attention (huggingface/diffusers UNet2DConditionModel)",
    places: [],
    marks: [
      /^conv_in\.weight$/,
      /^time_embedding\.linear_1\.weight$/,
      /^down_blocks\.0\.resnets\.0\.time_emb_proj\.weight$/,
      /^mid_block\.attentions\.0\.transformer_blocks\.0\./,
      /^conv_norm_out\.weight$/,
    ],
    readConfig: readDiffusers,
    configure: (shapes, given) => configure(shapes.renamed(nameOf(shapes)), given),
    keys: (_, shapes) => diffusersKeys(shapes),
  },
];
