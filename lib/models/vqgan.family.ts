// How VQGAN checkpoints are recognised: CompVis/taming-transformers, the ITHQ codec of microsoft/VQ-Diffusion and
// huggingface/diffusers VQModel.
import { DiffusionError } from "../errors.js";
import { isObject, limits, shown, whole } from "./check-config.js";
import type { ConfigFile, Fact, Family, ShapeView } from "./family.js";
import { diffusersVqganKeys, tamingVqganKeys } from "./vqgan.keys.js";
import { vqgan, type VqganConfig } from "./vqgan.js";

const resolution: Fact = {
  what: "side of the training images in pixels",
  rule: whole(1, limits.side),
};

const groups: Fact = {
  what: "groups of the group norms",
  rule: whole(1, limits.width),
};

/** Names of the tensors that show the topology, in both code bases. */
interface Names {
  level(index: number): string;
  block: string;
  attention: string;
  middle: string;
}

const taming: Names = {
  level: (l) => `encoder.down.${l}`,
  block: "block",
  attention: "attn.0.norm.weight",
  middle: "encoder.mid.attn_1.norm.weight",
};

const diffusers: Names = {
  level: (l) => `encoder.down_blocks.${l}`,
  block: "resnets",
  attention: "attentions.0.group_norm.weight",
  middle: "encoder.mid_block.attentions.0.group_norm.weight",
};

const codebookName = (shapes: ShapeView): string =>
  shapes.has("quantize.embedding.weight") ? "quantize.embedding.weight" : "quantize.embedding";

function configure(
  names: Names,
  shapes: ShapeView,
  facts: Readonly<Record<string, unknown>>,
): VqganConfig {
  if (shapes.some(/^quantize\.proj\./))
    throw new DiffusionError(
      "option",
      `${shapes.where}: expected a codebook of nearest codes, got a Gumbel quantiser, which is not among the families yet`,
    );
  const [channels, imageChannels] = shapes.shape("encoder.conv_in.weight", 4) as [number, number];
  const escaped = names.level(0).replace(/0$/, "").replaceAll(".", "\\.");
  const levels = shapes.count(new RegExp(`^${escaped}(\\d+)\\.`));
  const residualBlocks = shapes.count(
    new RegExp(`^${escaped}0\\.${names.block}\\.(\\d+)\\.conv1\\.weight$`),
  );
  const side = facts["resolution"] as number;
  const [codes, width] = shapes.shape(codebookName(shapes), 2) as [number, number];
  const levelNames = Array.from({ length: levels }, (_, l) => names.level(l));
  return {
    resolution: side,
    imageChannels,
    channels,
    multipliers: levelNames.map((level, l) =>
      shapes.ratio(
        shapes.extent(`${level}.${names.block}.0.conv1.weight`, 0),
        channels,
        `the multiplier of level ${l}`,
      ),
    ),
    residualBlocks,
    attentionResolutions: levelNames.flatMap((level, l) =>
      shapes.has(`${level}.${names.attention}`) ? [side / 2 ** l] : [],
    ),
    middleAttention: shapes.has(names.middle),
    groups: facts["groups"] as number,
    latentChannels: shapes.extent("encoder.conv_out.weight", 0),
    quantizer: {
      codes,
      width,
      codebook: shapes.has("quantize.cluster_size") ? "ema" : "gradient",
    },
  };
}

const build = (config: object): ReturnType<typeof vqgan> => vqgan(config as VqganConfig);

/** A key of an object that may not be there. */
const inside = (value: unknown, ...path: readonly string[]): unknown =>
  path.reduce<unknown>((at, key) => (isObject(at) ? at[key] : undefined), value);

/** Keys with a value. */
const known = (entries: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(entries).filter(([, value]) => value !== undefined && value !== null),
  );

/** A project's yaml: model.params.ddconfig, below first_stage_config in a transformer's file. */
function readTamingConfig(file: ConfigFile): Record<string, unknown> | undefined {
  const params = inside(file, "model", "params");
  const dd =
    inside(params, "ddconfig") ??
    inside(params, "first_stage_config", "params", "ddconfig") ??
    inside(file, "ddconfig");
  if (!isObject(dd)) return undefined;
  return known({
    resolution: dd["resolution"],
    imageChannels: dd["in_channels"],
    channels: dd["ch"],
    multipliers: dd["ch_mult"],
    residualBlocks: dd["num_res_blocks"],
    attentionResolutions: dd["attn_resolutions"],
    latentChannels: dd["z_channels"],
  });
}

/** config.json of a VQModel; settings that our network does not have are refused. */
function readDiffusersConfig(file: ConfigFile): Record<string, unknown> | undefined {
  if (file["_class_name"] !== undefined && file["_class_name"] !== "VQModel") return undefined;
  const fixed: Record<string, unknown> = { act_fn: "silu", norm_type: "group" };
  for (const [key, value] of Object.entries(fixed)) {
    if (file[key] === undefined || file[key] === value) continue;
    throw new DiffusionError(
      "option",
      `config.json: expected ${key} ${shown(value)}, got ${shown(file[key])}`,
    );
  }
  return known({
    resolution: file["sample_size"],
    imageChannels: file["in_channels"],
    residualBlocks: file["layers_per_block"],
    latentChannels: file["latent_channels"],
    groups: file["norm_num_groups"],
  });
}

export const vqganFamilies: readonly Family[] = [
  {
    name: "taming-vqgan",
    title: "VQGAN (CompVis/taming-transformers; codec of microsoft/VQ-Diffusion)",
    model: "vqgan",
    role: "codec",
    places: [/^first_stage_model\./, /^content_codec\.(?:enc|dec)\./],
    marks: [
      /^encoder\.down\.0\.block\.0\.conv1\.weight$/,
      /^decoder\.up\.0\./,
      /^quantize\.(?:embedding(?:\.weight)?|proj\.weight)$/,
    ],
    facts: {
      resolution,
      groups: { ...groups, fixed: 32 },
    },
    readConfig: readTamingConfig,
    configure: (shapes, facts) => configure(taming, shapes, facts),
    keys: () => tamingVqganKeys,
    build,
    published: {
      "f16-1024 (ImageNet, FFHQ)": {
        channels: 128,
        multipliers: [1, 1, 2, 2, 4],
        latentChannels: 256,
        quantizer: { codes: 1024, width: 256, codebook: "gradient" },
      },
      "f16-16384 (ImageNet)": {
        channels: 128,
        multipliers: [1, 1, 2, 2, 4],
        latentChannels: 256,
        quantizer: { codes: 16384, width: 256, codebook: "gradient" },
      },
      "f8-4096 (ITHQ)": {
        channels: 64,
        multipliers: [1, 2, 4, 8],
        latentChannels: 256,
        quantizer: { codes: 4096, width: 128, codebook: "ema" },
      },
    },
  },
  {
    name: "diffusers-vqmodel",
    title: "VQGAN (huggingface/diffusers VQModel)",
    model: "vqgan",
    role: "codec",
    marks: [
      /^encoder\.down_blocks\.0\.resnets\.0\.conv1\.weight$/,
      /^quantize\.embedding\.weight$/,
    ],
    diffusersClass: "VQModel",
    facts: { resolution, groups },
    readConfig: readDiffusersConfig,
    configure: (shapes, facts) => configure(diffusers, shapes, facts),
    keys: (config) => {
      const { multipliers, residualBlocks } = config as VqganConfig;
      return diffusersVqganKeys(multipliers.length, residualBlocks);
    },
    build,
    published: {
      "vqvae of microsoft/vq-diffusion-ithq": {
        channels: 64,
        multipliers: [1, 2, 4, 8],
        latentChannels: 256,
        quantizer: { codes: 4096, width: 128, codebook: "gradient" },
      },
    },
  },
];
