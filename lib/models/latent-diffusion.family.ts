// How U-Nets of latent diffusion are recognised: CompVis/latent-diffusion and Stable Diffusion, alone or inside a whole
// model. Those without transformers have the names of ADM's U-Nets, so they are known by their place only.
import { isObject, limits, oneOf, whole } from "./check-config.js";
import { headFacts, unetPaths, classesOf } from "./adm.family.js";
import type { ConfigFile, Fact, FactValues, Family, ShapeView } from "./family.js";
import { latentDiffusionUnetConfigs } from "./latent-diffusion-configs.js";
import {
  latentDiffusionCodeUnetKeys,
  latentDiffusionUnetKeys,
} from "./latent-diffusion-unet.keys.js";
import { latentDiffusionUnet } from "./latent-diffusion-unet.js";
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
  const at = ["model", "params", "unet_config", "params"].reduce<unknown>(
    (value, key) => (isObject(value) ? value[key] : undefined),
    file,
  );
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
];
