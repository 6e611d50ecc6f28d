// How checkpoints of the DDPM U-Net are recognised: ermongroup/ddim and the ports of the TensorFlow
// originals, also as UNet2DModel of huggingface/diffusers.
import { mapKey } from "../nn/key-map.js";
import type { KeyMap } from "../nn/key-map.js";
import { limits, oneOf, real, whole } from "./check-config.js";
import { ddpmUnetConfigs, diffusersDdpmConfigs } from "./ddpm-configs.js";
import { ddpmUnetKeys, diffusersDdpmKeys } from "./ddpm-unet.keys.js";
import { ddpmUnet } from "./ddpm-unet.js";
import type { DdpmUnetConfig } from "./ddpm-unet.js";
import { classesOf, recognisable } from "./adm.family.js";
import { known, onlyValues } from "./config-file.js";
import { ddpmPipeline } from "./pipeline-facts.js";
import type { ConfigFile, Fact, FactValues, Family, ShapeView } from "./family.js";

export const ddpmFacts = {
  resolution: { what: "side of the training images in pixels", rule: whole(1, limits.side) },
  groups: { what: "groups of the group norms", rule: whole(1, limits.width), fixed: 32 },
} as const satisfies Record<string, Fact>;

export const latentOf = (shapes: ShapeView): { latentWidth?: number } =>
  shapes.has("proj.0.weight") ? { latentWidth: shapes.extent("proj.0.weight", 1) } : {};

/** Everything that shapes and facts show, for pictures of `imageChannels`. */
export function configureDdpm(
  shapes: ShapeView,
  given: FactValues,
  imageChannels: number,
): DdpmUnetConfig {
  const resolution = given["resolution"] as number;
  const channels = shapes.extent("conv_in.weight", 0);
  const levels = Array.from({ length: shapes.count(/^down\.(\d+)\./) }, (_, l) => l);
  return {
    resolution,
    imageChannels,
    outChannels: shapes.extent("conv_out.weight", 0),
    channels,
    multipliers: levels.map((l) =>
      shapes.ratio(
        shapes.extent(`down.${l}.block.0.conv1.weight`, 0),
        channels,
        `the multiplier of level ${l}`,
      ),
    ),
    residualBlocks: shapes.count(/^down\.0\.block\.(\d+)\./),
    attentionResolutions: levels
      .filter((l) => shapes.has(`down.${l}.attn.0.norm.weight`))
      .map((l) => Math.floor(resolution / 2 ** l)),
    convResample: levels.length < 2 || shapes.has("down.0.downsample.conv.weight"),
    groups: given["groups"] as number,
    ...classesOf(shapes),
    ...latentOf(shapes),
  };
}

export const ddpmMarks = [
  /^temb\.dense\.0\.weight$/,
  /^down\.0\.block\.0\.temb_proj\.weight$/,
  /^up\.0\./,
  /^conv_out\.weight$/,
];

/** Facts of UNet2DModel, which google's ports and networks trained with diffusers set differently. */
const diffusersFacts = {
  resolution: { ...ddpmFacts.resolution, what: "side of the training images (sample_size)" },
  groups: { what: ddpmFacts.groups.what, rule: ddpmFacts.groups.rule },
  headChannels: {
    what: "channels of an attention head (attention_head_dim), or 0 for one head of all channels",
    rule: whole(0, limits.width),
  },
  eps: { what: "eps of the group norms (norm_eps)", rule: real(1e-12, 1) },
  timeFirst: {
    what: "features of a time: sin (flip_sin_to_cos false, freq_shift 1) or cos (true, 0)",
    rule: oneOf("sin", "cos"),
  },
  downsamplePadding: {
    what: "zeros of the convolutions between levels: end (downsample_padding 0) or both (1)",
    rule: oneOf("end", "both"),
  },
} as const satisfies Record<string, Fact>;

/** What our network has no other of. */
const diffusersOnly = {
  act_fn: ["silu", "swish"],
  center_input_sample: [false],
  time_embedding_type: ["positional"],
  mid_block_scale_factor: [1],
  downsample_type: ["conv"],
  upsample_type: ["conv"],
  downsample_padding: [0, 1],
  resnet_time_scale_shift: ["default"],
  add_attention: [true],
  attn_norm_num_groups: [],
  class_embed_type: [],
};

const levelTypes = /^(?:Attn)?(?:Down|Up)Block2D$/;

/** config.json of a UNet2DModel; what it leaves out is diffusers' default. */
function readDiffusers(file: ConfigFile): Record<string, unknown> | undefined {
  if (file["_class_name"] !== "UNet2DModel") return undefined;
  onlyValues(file, diffusersOnly);
  for (const key of ["down_block_types", "up_block_types"]) {
    const types = file[key] as unknown;
    const other = Array.isArray(types) && types.find((type) => !levelTypes.test(String(type)));
    if (other) onlyValues({ [key]: other }, { [key]: ["DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"] }); // prettier-ignore
  }
  const { flip_sin_to_cos: isFlipped = true, freq_shift: shift = 0 } = file;
  onlyValues({ freq_shift: shift }, { freq_shift: [isFlipped === true ? 0 : 1] });
  const { attention_head_dim: headChannels = 8 } = file;
  return known({
    resolution: typeof file["sample_size"] === "number" ? file["sample_size"] : undefined,
    groups: file["norm_num_groups"] ?? 32,
    headChannels: headChannels ?? 0,
    eps: file["norm_eps"] ?? 1e-5,
    timeFirst: isFlipped === true ? "cos" : "sin",
    downsamplePadding: file["downsample_padding"] === 0 ? "end" : "both",
    imageChannels: file["in_channels"],
    outChannels: file["out_channels"],
    residualBlocks: file["layers_per_block"],
  });
}

const diffusersKeys = (shapes: ShapeView): KeyMap =>
  diffusersDdpmKeys(
    shapes.count(/^down_blocks\.(\d+)\./),
    shapes.count(/^down_blocks\.0\.resnets\.(\d+)\./),
  );

function configureDiffusers(shapes: ShapeView, given: FactValues): DdpmUnetConfig {
  const keys = diffusersKeys(shapes);
  const ours = shapes.renamed((name, shape) => {
    const match = mapKey(keys, name, shape);
    return typeof match === "object" ? match.name : undefined;
  });
  const headChannels = given["headChannels"] as number;
  return {
    ...configureDdpm(ours, given, ours.extent("conv_in.weight", 1)),
    ...(headChannels > 0 && { headChannels }),
    eps: given["eps"] as number,
    timeFirst: given["timeFirst"] as "sin" | "cos",
    downsamplePadding: given["downsamplePadding"] as "end" | "both",
  };
}

export const ddpmFamilies: readonly Family[] = [
  {
    name: "ddpm-unet",
    title: "DDPM U-Net (ermongroup/ddim)",
    model: "ddpm-unet",
    role: "model",
    places: [/^module\./],
    marks: ddpmMarks,
    absent: [/^proj\./],
    facts: {
      ...ddpmFacts,
      heads: { what: "attention heads", rule: whole(1, limits.width), fixed: 1 },
    },
    configure: (shapes, given) => ({
      ...configureDdpm(shapes, given, shapes.extent("conv_in.weight", 1)),
      heads: given["heads"] as number,
    }),
    keys: () => ddpmUnetKeys,
    build: (config) => ddpmUnet(config as DdpmUnetConfig),
    pipeline: ddpmPipeline,
    published: recognisable(ddpmUnetConfigs),
  },
  {
    name: "diffusers-ddpm-unet",
    title: "DDPM U-Net (huggingface/diffusers UNet2DModel)",
    model: "ddpm-unet",
    role: "model",
    marks: [
      /^conv_in\.weight$/,
      /^time_embedding\.linear_1\.weight$/,
      /^down_blocks\.0\.resnets\.0\.time_emb_proj\.weight$/,
      /^mid_block\.attentions\.0\.group_norm\.weight$/,
      /^conv_norm_out\.weight$/,
    ],
    absent: [/\.transformer_blocks\./],
    facts: diffusersFacts,
    readConfig: readDiffusers,
    configure: configureDiffusers,
    keys: (_, shapes) => diffusersKeys(shapes),
    build: (config) => ddpmUnet(config as DdpmUnetConfig),
    pipeline: ddpmPipeline,
    published: { ...recognisable(ddpmUnetConfigs), ...diffusersDdpmConfigs },
  },
];
