// How first stages are recognised: VQGANs and KL autoencoders of CompVis (taming-transformers, latent-diffusion), the
// ITHQ codec of microsoft/VQ-Diffusion, and VQModel and AutoencoderKL of huggingface/diffusers.
import { autoencoderKl, type AutoencoderKlConfig } from "./autoencoder-kl.js";
import { autoencoderKlConfigs } from "./autoencoder-kl-configs.js";
import { isObject, limits, oneOf, whole } from "./check-config.js";
import type { ConvCodecConfig } from "./conv-codec.js";
import { inside, known, onlyValues } from "./config-file.js";
import type { ConfigFile, Fact, FactValues, Family, ShapeView } from "./family.js";
import { vqganConfigs } from "./vqgan-configs.js";
import { diffusersVqganKeys, tamingVqganKeys } from "./vqgan.keys.js";
import { vqgan, type VqganConfig } from "./vqgan.js";

const resolution: Fact = {
  what: "side of the training images in pixels",
  rule: whole(1, limits.side),
};

const groups: Fact = { what: "groups of the group norms", rule: whole(1, limits.width) };

const compVisFacts = {
  resolution,
  groups: { ...groups, fixed: 32 },
  outputActivation: {
    what: "activation of the decoded picture (tanh_out)",
    rule: oneOf("none", "tanh"),
    fixed: "none",
  },
} as const satisfies Record<string, Fact>;

const diffusersFacts = {
  resolution: {
    what: "side of the training images in pixels (sample_size of config.json is often not it)",
    rule: whole(1, limits.side),
  },
  groups,
  activation: { what: "activation of the residual blocks (act_fn)", rule: oneOf("silu", "mish") },
} as const satisfies Record<string, Fact>;

/** Names of the tensors that show the topology; levels count from the finest on both sides. */
interface Names {
  down(level: number): string;
  up(level: number, levels: number): string;
  block: string;
  attention: string;
  middle: string;
}

const compVis: Names = {
  down: (l) => `encoder.down.${l}`,
  up: (l) => `decoder.up.${l}`,
  block: "block",
  attention: "attn.0.",
  middle: "encoder.mid.attn_1.",
};

const diffusers: Names = {
  down: (l) => `encoder.down_blocks.${l}`,
  up: (l, levels) => `decoder.up_blocks.${levels - 1 - l}`,
  block: "resnets",
  attention: "attentions.0.",
  middle: "encoder.mid_block.attentions.0.",
};

const literal = (text: string): string => text.replaceAll(".", "\\.");
const startsWith = (shapes: ShapeView, start: string): boolean =>
  shapes.some(new RegExp(`^${literal(start)}`));

/** Encoder and decoder as shapes and facts show them. */
function codecOf(names: Names, shapes: ShapeView, facts: FactValues): ConvCodecConfig {
  const [channels, imageChannels] = shapes.shape("encoder.conv_in.weight", 4) as [number, number];
  const numbered = literal(names.down(0)).replace(/0$/, "(\\d+)");
  const levels = shapes.count(new RegExp(`^${numbered}\\.`));
  const all = Array.from({ length: levels }, (_, l) => l);
  const side = facts["resolution"] as number;
  const attended = (place: (level: number) => string): number[] =>
    all
      .filter((l) => startsWith(shapes, `${place(l)}.${names.attention}`))
      .map((l) => Math.floor(side / 2 ** l));
  const down = attended(names.down);
  const up = attended((l) => names.up(l, levels));
  const outputs = shapes.extent("decoder.conv_out.weight", 0);
  const isLinear = shapes.some(/\.to_qkv\.weight$/);
  const isPlain = levels > 1 && !shapes.some(/^encoder\..*downsample(?:rs\.0)?\.conv\.weight$/);
  const activation = facts["activation"];
  return {
    resolution: side,
    imageChannels,
    ...(outputs !== imageChannels && { outputChannels: outputs }),
    channels,
    multipliers: all.map((l) =>
      shapes.ratio(
        shapes.extent(`${names.down(l)}.${names.block}.0.conv1.weight`, 0),
        channels,
        `the multiplier of level ${l}`,
      ),
    ),
    residualBlocks: shapes.count(
      new RegExp(`^${literal(names.down(0))}\\.${names.block}\\.(\\d+)\\.conv1\\.weight$`),
    ),
    attentionResolutions: down,
    ...(up.join() !== down.join() && { decoderAttentionResolutions: up }),
    middleAttention: startsWith(shapes, names.middle),
    ...(isLinear && { attentionKind: "linear" as const }),
    ...(isPlain && { resample: "plain" as const }),
    ...(activation === "mish" && { activation }),
    ...(facts["outputActivation"] === "tanh" && { outputActivation: "tanh" as const }),
    groups: facts["groups"] as number,
    latentChannels: shapes.extent("decoder.conv_in.weight", 1),
  };
}

function quantizerOf(shapes: ShapeView): VqganConfig["quantizer"] {
  if (shapes.has("quantize.embed.weight")) {
    const [codes, width] = shapes.shape("quantize.embed.weight", 2) as [number, number];
    return { kind: "gumbel", codes, width };
  }
  const hasWeight = shapes.has("quantize.embedding.weight");
  const [codes, width] = shapes.shape(
    hasWeight ? "quantize.embedding.weight" : "quantize.embedding",
    2,
  ) as [number, number];
  return { codes, width, ...(shapes.has("quantize.cluster_size") && { codebook: "ema" }) };
}

const configureVqgan = (names: Names, shapes: ShapeView, facts: FactValues): VqganConfig => ({
  ...codecOf(names, shapes, facts),
  quantizer: quantizerOf(shapes),
});

function configureKl(names: Names, shapes: ShapeView, facts: FactValues): AutoencoderKlConfig {
  const codec = codecOf(names, shapes, facts);
  if (!shapes.has("post_quant_conv.weight")) return { ...codec, projections: false };
  const embedChannels = shapes.extent("post_quant_conv.weight", 1);
  return { ...codec, ...(embedChannels !== codec.latentChannels && { embedChannels }) };
}

const buildVqgan = (config: object): ReturnType<typeof vqgan> => vqgan(config as VqganConfig);
const buildKl = (config: object): ReturnType<typeof autoencoderKl> =>
  autoencoderKl(config as AutoencoderKlConfig);

/** A project's yaml: model.params.ddconfig, below first_stage_config in the file of a diffusion model. */
function readCompVis(file: ConfigFile): Record<string, unknown> | undefined {
  const params = inside(file, "model", "params");
  const dd =
    inside(params, "ddconfig") ??
    inside(params, "first_stage_config", "params", "ddconfig") ??
    inside(file, "ddconfig");
  if (!isObject(dd)) return undefined;
  const kind = dd["use_linear_attn"] === true ? "linear" : (dd["attn_type"] ?? "vanilla");
  return known({
    resolution: dd["resolution"],
    imageChannels: dd["in_channels"],
    channels: dd["ch"],
    multipliers: dd["ch_mult"],
    residualBlocks: dd["num_res_blocks"],
    ...(kind !== "none" && { attentionResolutions: dd["attn_resolutions"] }),
    latentChannels: dd["z_channels"],
    ...(dd["tanh_out"] !== undefined && { outputActivation: dd["tanh_out"] ? "tanh" : "none" }),
  });
}

/** config.json of a VQModel or AutoencoderKL; settings that our network does not have are refused. */
function readDiffusers(name: string, file: ConfigFile): Record<string, unknown> | undefined {
  if (file["_class_name"] !== name) return undefined;
  onlyValues(file, {
    norm_type: ["group"],
    mid_block_add_attention: [true, false],
    act_fn: ["silu", "swish", "mish"],
    lookup_from_codebook: [false],
  });
  const act = file["act_fn"] ?? "silu";
  return known({
    imageChannels: file["in_channels"],
    residualBlocks: file["layers_per_block"],
    latentChannels: file["latent_channels"],
    groups: file["norm_num_groups"] ?? 32,
    activation: act === "mish" ? "mish" : "silu",
  });
}

const diffusersKeys = (config: object): ReturnType<typeof diffusersVqganKeys> => {
  const { multipliers, residualBlocks } = config as ConvCodecConfig;
  return diffusersVqganKeys(multipliers.length, residualBlocks);
};

/** Published configurations without what belongs to training only. */
const published = Object.fromEntries(
  Object.entries<VqganConfig>(vqganConfigs).map(([name, { quantizer, ...config }]) => {
    const seen = "kind" in quantizer ? { ...quantizer, klWeight: undefined } : quantizer;
    return [name, { ...config, quantizer: known(seen) }];
  }),
);

const compVisMarks = [
  /^encoder\.down\.0\.block\.0\.conv1\.weight$/,
  /^decoder\.up\.0\.block\.0\.conv1\.weight$/,
];
const diffusersMarks = [
  /^encoder\.down_blocks\.0\.resnets\.0\.conv1\.weight$/,
  /^decoder\.up_blocks\.0\.resnets\.0\.conv1\.weight$/,
];
const codebook = /^quantize\.(?:embedding(?:\.weight)?|embed\.weight)$/;
const places = [/^first_stage_model\./, /^content_codec\.(?:enc|dec)\./];

export const vqganFamilies: readonly Family[] = [
  {
    name: "taming-vqgan",
    title: "VQGAN (CompVis/taming-transformers, latent-diffusion; codec of microsoft/VQ-Diffusion)",
    model: "vqgan",
    role: "codec",
    places,
    marks: [...compVisMarks, codebook],
    facts: compVisFacts,
    readConfig: readCompVis,
    configure: (shapes, facts) => configureVqgan(compVis, shapes, facts),
    keys: () => tamingVqganKeys,
    build: buildVqgan,
    published,
  },
  {
    name: "compvis-autoencoder-kl",
    title: "KL autoencoder (CompVis/latent-diffusion, Stable Diffusion)",
    model: "autoencoder-kl",
    role: "codec",
    places,
    marks: compVisMarks,
    absent: [/^quantize\./],
    facts: compVisFacts,
    readConfig: readCompVis,
    configure: (shapes, facts) => configureKl(compVis, shapes, facts),
    keys: () => tamingVqganKeys,
    build: buildKl,
    published: autoencoderKlConfigs,
  },
  {
    name: "diffusers-vqmodel",
    title: "VQGAN (huggingface/diffusers VQModel)",
    model: "vqgan",
    role: "codec",
    marks: [...diffusersMarks, codebook],
    facts: diffusersFacts,
    readConfig: (file) => readDiffusers("VQModel", file),
    configure: (shapes, facts) => configureVqgan(diffusers, shapes, facts),
    keys: diffusersKeys,
    build: buildVqgan,
    published,
  },
  {
    name: "diffusers-autoencoder-kl",
    title: "KL autoencoder (huggingface/diffusers AutoencoderKL)",
    model: "autoencoder-kl",
    role: "codec",
    marks: diffusersMarks,
    absent: [/^quantize\./],
    facts: diffusersFacts,
    readConfig: (file) => readDiffusers("AutoencoderKL", file),
    configure: (shapes, facts) => configureKl(diffusers, shapes, facts),
    keys: diffusersKeys,
    build: buildKl,
    published: autoencoderKlConfigs,
  },
];
