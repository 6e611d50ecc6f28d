// How tokenizers with diffusion decoders are recognised: the DiVAE checkpoints of apple/ml-4m, one family for each kind
// of decoder.
import { recognisable, unetPaths } from "./adm.family.js";
import { flag, limits, whole } from "./check-config.js";
import { divae } from "./divae.js";
import type { DivaeConfig, DivaeDecoderConfig } from "./divae.js";
import { divaeConfigs } from "./divae-configs.js";
import { divaeKeys } from "./divae.keys.js";
import { divaePipeline } from "./pipeline-facts.js";
import { ShapeView } from "./family.js";
import type { Fact, FactValues, Family } from "./family.js";

const facts = {
  headWidth: { what: "channels of a head of the encoder", rule: whole(1, limits.width), fixed: 64 },
  unitLatents: {
    what: "whether latents are normalised before they are charged (norm_latents)",
    rule: flag,
    fixed: false,
  },
  groups: { what: "groups of the group norms", rule: whole(1, limits.width), fixed: 32 },
} as const satisfies Record<string, Fact>;

/** The tensors below a prefix, without it. */
function below(shapes: ShapeView, prefix: string): ShapeView {
  const inside = [...shapes.shapes].filter(([name]) => name.startsWith(prefix));
  return new ShapeView(
    shapes.where,
    new Map(inside.map(([name, shape]) => [name.slice(prefix.length), shape])),
  );
}

function tokenizer(shapes: ShapeView, given: FactValues): Omit<DivaeConfig, "decoder"> {
  const [width, imageChannels, patch] = shapes.shape("encoder.proj.weight", 4) as [number, number, number]; // prettier-ignore
  const [codes, codeWidth] = shapes.shape("quantize._codebook.embed", 2) as [number, number];
  const hidden = shapes.extent("encoder.blocks.0.mlp.fc1.weight", 0);
  return {
    imageChannels,
    ...(shapes.has("cls_emb.weight") && { labels: shapes.extent("cls_emb.weight", 0) }),
    encoder: {
      resolution: patch * shapes.extent("encoder.pos_emb", 2),
      patch,
      width,
      layers: shapes.count(/^encoder\.blocks\.(\d+)\./),
      heads: shapes.ratio(width, given["headWidth"] as number, "heads of the encoder"),
      mlpRatio: hidden / width,
      postMlp: shapes.has("encoder.post_mlp.fc1.weight"),
    },
    quantizer: {
      codes,
      width: codeWidth,
      metric: shapes.has("quantize._codebook.embed_avg") ? "euclidean" : "cosine",
      unitLatents: given["unitLatents"] as boolean,
    },
  };
}

function configureUnet(shapes: ShapeView, given: FactValues): DivaeConfig {
  const config = tokenizer(shapes, given);
  const decoder = below(shapes, "decoder.");
  const outputs = decoder.extent("out.2.weight", 0);
  return {
    ...config,
    decoder: {
      kind: "unet",
      ...unetPaths(decoder),
      patch: Math.sqrt(shapes.ratio(outputs, config.imageChannels ?? 3, "pixels of a patch")),
      heads: given["decoderHeads"] as number,
      groups: given["groups"] as number,
    },
  };
}

function configureUvit(shapes: ShapeView, given: FactValues): DivaeConfig {
  const decoder = below(shapes, "decoder.");
  const levels = decoder.count(/^down_blocks\.(\d+)\./);
  const width = decoder.extent("mid_block.mid_proj_in.weight", 0);
  const network: DivaeDecoderConfig = {
    kind: "uvit",
    patch: decoder.extent("conv_in.weight", 2),
    widths: Array.from({ length: levels }, (_, l) =>
      decoder.extent(`down_blocks.${l}.resnets.0.conv1.weight`, 0),
    ),
    residualBlocks: decoder.count(/^down_blocks\.0\.resnets\.(\d+)\./),
    middleDownsample: decoder.has("downsample_mid.conv.weight"),
    width,
    layers: decoder.count(/^mid_block\.mid_block\.(\d+)\./),
    heads: given["decoderHeads"] as number,
    mlpRatio: decoder.extent("mid_block.mid_block.0.mlp.fc1.weight", 0) / width,
    longSkip: decoder.some(/\.skip_linear\.weight$/),
    positionSide: decoder.extent("mid_block.mid_pos_emb", 2),
    conditionKind: decoder.has("mid_block.mid_cond_proj.weight") ? "add" : "attention",
    groups: given["groups"] as number,
  };
  return { ...tokenizer(shapes, given), decoder: network };
}

const decoderHeads = { what: "attention heads of the decoder", rule: whole(1, limits.width) };

const shared = {
  model: "divae",
  role: "codec",
  keys: () => divaeKeys,
  build: (config: object) => divae(config as DivaeConfig),
  pipeline: divaePipeline,
} as const;

const encoderMarks = [/^encoder\.blocks\.0\.attn\.qkv\.weight$/, /^quantize\._codebook\.embed$/];

/** Decoders without dropout, which belongs to training. */
const published = (kind: DivaeDecoderConfig["kind"]): Record<string, object> =>
  Object.fromEntries(
    Object.entries<DivaeConfig>(divaeConfigs)
      .filter(([, { decoder }]) => decoder.kind === kind)
      .map(([name, config]) => [name, { ...config, ...recognisable({ decoder: config.decoder }) }]),
  );

export const divaeFamilies: readonly Family[] = [
  {
    ...shared,
    name: "4m-divae-unet",
    title: "DiVAE tokenizer with a patched U-Net (apple/ml-4m)",
    marks: [...encoderMarks, /^decoder\.time_embed\.0\.weight$/],
    facts: { ...facts, decoderHeads: { ...decoderHeads, fixed: 1 } },
    configure: configureUnet,
    published: published("unet"),
  },
  {
    ...shared,
    name: "4m-divae-uvit",
    title: "DiVAE tokenizer with a U-ViT (apple/ml-4m)",
    marks: [...encoderMarks, /^decoder\.time_embedding\.linear_1\.weight$/],
    facts: { ...facts, decoderHeads },
    configure: configureUvit,
    published: published("uvit"),
  },
];
