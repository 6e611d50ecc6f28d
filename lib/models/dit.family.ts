// How transformers on latents are recognised: DiT and SiT of their own code (whose tensors are the
// same), DiT of huggingface/diffusers, FiT and FiTv2.
import { DiffusionError } from "../errors.js";
import { flag, isObject, limits, listOf, object, oneOf, real, whole } from "./check-config.js";
import { inside, known, onlyValues } from "./config-file.js";
import { dit, ditConfigs, publishedDit } from "./dit.js";
import type { DitConfig } from "./dit.js";
import { diffusersDitKeys, diffusersTrainedDitKeys, facebookDitKeys } from "./dit.keys.js";
import type { ConfigFile, Fact, FactValues, Family, ShapeView } from "./family.js";
import { fit, fitConfigs } from "./fit.js";
import type { FitConfig, FitRotary, HeadNorm } from "./fit.js";
import type { RotaryStretch } from "../nn/rotary.js";
import { ditPipeline, fitPipeline } from "./pipeline-facts.js";
import { fitKeys } from "./fit.keys.js";

const heads: Fact = { what: "attention heads", rule: whole(1, limits.width) };
const nullClass: Fact = {
  what: "whether the last row of the label table is the null class (class_dropout_prob > 0)",
  rule: flag,
  fixed: true,
};
const trainingPlaces = [/^ema\./, /^model\./, /^module\./];

/** Channels of the output for each channel of the input, 1 or 2. */
function hasVariance(shapes: ShapeView, outRows: number, patch: number, channels: number): boolean {
  const factor = shapes.ratio(outRows, patch * patch * channels, "output channels over input");
  if (factor === 1 || factor === 2) return factor === 2;
  throw new DiffusionError(
    "checkpoint",
    `${shapes.where}: expected as many output channels as input channels or twice as many, got ${factor} times`,
  );
}

/** A ratio whose product with the width, cut to a whole number, is the hidden width. */
function mlpRatioOf(hidden: number, width: number): number {
  const ratio = hidden / width;
  return Math.floor(width * ratio) === hidden ? ratio : (hidden + 0.5) / width;
}

const classesOf = (rows: number, hasNull: unknown) => ({
  classes: hasNull === true ? rows - 1 : rows,
  nullClass: hasNull === true,
});

function configureDit(shapes: ShapeView, facts: FactValues): DitConfig {
  const [width, channels, patch] = shapes.shape("x_embedder.proj.weight", 4) as number[];
  const tokens = shapes.extent("pos_embed", 1);
  const side = shapes.ratio(Math.sqrt(tokens), 1, "the side of the token grid") * patch!;
  const learned = hasVariance(
    shapes,
    shapes.extent("final_layer.linear.weight", 0),
    patch!,
    channels!,
  );
  return {
    size: [side, side],
    patch: patch!,
    channels: channels!,
    width: width!,
    layers: shapes.count(/^blocks\.(\d+)\./),
    heads: facts["heads"] as number,
    mlpRatio: mlpRatioOf(shapes.extent("blocks.0.mlp.fc1.weight", 0), width!),
    ...classesOf(shapes.extent("y_embedder.embedding_table.weight", 0), facts["nullClass"]),
    sigma: learned ? (facts["sigma"] as "learned" | "discarded") : "none",
  };
}

const label = "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight";

function configureDiffusers(shapes: ShapeView, facts: FactValues): DitConfig {
  const [width, channels, patch] = shapes.shape("pos_embed.proj.weight", 4) as number[];
  const learned = hasVariance(shapes, shapes.extent("proj_out_2.weight", 0), patch!, channels!);
  return {
    size: facts["size"] as [number, number],
    patch: patch!,
    channels: channels!,
    width: width!,
    layers: shapes.count(/^transformer_blocks\.(\d+)\./),
    heads: facts["heads"] as number,
    mlpRatio: mlpRatioOf(shapes.extent("transformer_blocks.0.ff.net.0.proj.weight", 0), width!),
    ...classesOf(shapes.extent(label, 0), facts["nullClass"]),
    sigma: learned ? "learned" : "none",
    ...(facts["trainedBy"] === "diffusers" && { trainedBy: "diffusers" as const }),
  };
}

/** What our network has no other of. */
const diffusersFixed = {
  activation_fn: ["gelu-approximate"],
  norm_type: ["ada_norm_zero"],
  attention_bias: [true],
  norm_elementwise_affine: [false],
};

/** config.json of a DiTTransformer2DModel, or of the Transformer2DModel that it was before. */
function readDiffusers(file: ConfigFile): Record<string, unknown> | undefined {
  const isOld = file["_class_name"] === "Transformer2DModel";
  if (file["_class_name"] !== "DiTTransformer2DModel" && !isOld) return undefined;
  if (isOld && file["norm_type"] !== "ada_norm_zero") return undefined;
  onlyValues(file, diffusersFixed);
  const { sample_size: side, num_attention_heads, num_layers, patch_size, in_channels } = file;
  return known({
    size: typeof side === "number" ? [side, side] : undefined,
    heads: num_attention_heads,
    layers: num_layers,
    patch: patch_size,
    channels: in_channels,
  });
}

const headNorm = oneOf("none", "layer", "scaledLayer", "rms", "scaledRms");

/** Hidden width of the MLP and its kind: two thirds of 4 widths are the published gated one. */
function mlpOf(shapes: ShapeView, width: number): Pick<FitConfig, "mlp" | "mlpRatio"> {
  const at = "blocks.0.mlp.";
  if (!shapes.has(`${at}fc1_g.weight`))
    return { mlp: "gelu", mlpRatio: mlpRatioOf(shapes.extent(`${at}fc1.weight`, 0), width) };
  const hidden = shapes.extent(`${at}fc1_g.weight`, 0);
  if (hidden === Math.floor((8 * width) / 3)) return { mlp: "swiglu", mlpRatio: 4 };
  return { mlp: "wideSwiglu", mlpRatio: mlpRatioOf(hidden, width) };
}

function modulationOf(shapes: ShapeView): Pick<FitConfig, "modulation" | "modulationRank"> {
  const at = "blocks.0.adaLN_modulation.";
  if (shapes.has(`${at}fc1_g.weight`)) return { modulation: "swiglu" };
  if (!shapes.has(`${at}2.weight`)) return { modulation: "linear" };
  return { modulation: "lora", modulationRank: shapes.extent(`${at}1.weight`, 0) };
}

function configureFit(shapes: ShapeView, facts: FactValues): FitConfig {
  const [width, values] = shapes.shape("x_embedder.proj.weight", 2) as [number, number];
  const patch = facts["patch"] as number;
  const rotary = facts["rotary"] as FitRotary;
  const channels = shapes.ratio(values, patch * patch, "channels of a patch");
  const learned = hasVariance(
    shapes,
    shapes.extent("final_layer.linear.weight", 0),
    patch,
    channels,
  );
  return {
    patch,
    channels,
    width,
    layers: shapes.count(/^blocks\.(\d+)\./),
    heads: facts["heads"] as number,
    ...mlpOf(shapes, width),
    ...classesOf(shapes.extent("y_embedder.embedding_table.weight", 0), facts["nullClass"]),
    sigma: learned ? "learned" : "none",
    ...modulationOf(shapes),
    ...(facts["norm"] !== "layer" && { norm: facts["norm"] as HeadNorm }),
    ...(Object.keys(rotary).length > 0 && { rotary }),
    ...(facts["timeShift"] !== 1 && { timeShift: facts["timeShift"] as number }),
    queryNorm: facts["queryNorm"] as HeadNorm,
    keyNorm: facts["keyNorm"] as HeadNorm,
    qkvBias: shapes.has("blocks.0.attn.qkv.bias"),
    mlpBias: shapes.has("blocks.0.mlp.fc2.bias"),
    modulationBias: shapes.some(/^blocks\.0\.adaLN_modulation\..*\.bias$/),
  };
}

const normNames: Readonly<Record<string, HeadNorm>> = {
  none: "none",
  layernorm: "layer",
  w_layernorm: "scaledLayer",
  rmsnorm: "rms",
  w_rmsnorm: "scaledRms",
};

/** A norm as the original's configurations call it. */
function normOf(key: string, value: unknown, isScaled = false): HeadNorm {
  const name = value === null || value === undefined || value === "" ? "none" : String(value).toLowerCase(); // prettier-ignore
  onlyValues({ [key]: name }, { [key]: Object.keys(normNames) });
  return isScaled && name === "layernorm" ? "scaledLayer" : normNames[name]!;
}

const stretchNames: Readonly<Record<string, RotaryStretch>> = {
  normal: "none",
  linear: "linear",
  "ntk-aware": "ntk",
  "ntk-aware-pro1": "ntkRoot",
  "ntk-aware-pro2": "ntkRootArea",
  "ntk-by-parts": "ntkByParts",
  yarn: "yarn",
};

/** rope_theta, custom_freqs and the like. */
function rotaryOf(params: ConfigFile): Record<string, unknown> {
  onlyValues(params, { rel_pos_embed: ["rope", "xpos"], custom_freqs: Object.keys(stretchNames) });
  const { custom_freqs, ori_max_pe_len, decouple, add_rel_pe_to_v, rope_theta } = params;
  const stretch = stretchNames[String(custom_freqs ?? "normal")]!;
  return known({
    ...(rope_theta !== 10000 && { theta: rope_theta }),
    ...(stretch !== "none" && { stretch, trainedSide: ori_max_pe_len }),
    ...(decouple === true && { decouple }),
    ...(add_rel_pe_to_v === true && { values: true }),
  });
}

/** A training's yaml: diffusion.network_config.params. */
function readFit(file: ConfigFile): Record<string, unknown> | undefined {
  const params = inside(file, "diffusion", "network_config", "params");
  if (!isObject(params) || params["hidden_size"] === undefined) return undefined;
  const isScaled = params["qk_norm_weight"] === true;
  return known({
    heads: params["num_heads"],
    patch: params["patch_size"],
    nullClass: (params["class_dropout_prob"] ?? 0.1) !== 0,
    norm: normOf("norm_type", params["norm_type"] ?? "layernorm"),
    queryNorm: normOf("q_norm", params["q_norm"], isScaled),
    keyNorm: normOf("k_norm", params["k_norm"], isScaled),
    rotary: rotaryOf(params),
    timeShift: params["time_shifting"],
    layers: params["depth"],
    width: params["hidden_size"],
    channels: params["in_channels"],
  });
}

const buildDit = (config: object): ReturnType<typeof dit> => dit(config as DitConfig);

/** The published sizes for one kind of network, and for 512 pixels. */
const publishedSizes = (sigma: "learned" | "discarded", kind: string) =>
  Object.fromEntries(
    [...Object.entries(ditConfigs), ["XL/2 at 512 pixels", publishedDit("XL", 2, 64)] as const].map(
      ([name, config]) => [`${kind}-${name}`, { ...config, sigma }],
    ),
  );

export const ditFamilies: readonly Family[] = [
  {
    name: "dit",
    title: "DiT or SiT (facebookresearch/DiT, willisma/SiT: their tensors are the same)",
    model: "dit",
    role: "model",
    places: trainingPlaces,
    marks: [
      /^x_embedder\.proj\.weight$/,
      /^pos_embed$/,
      /^blocks\.0\.adaLN_modulation\.1\.weight$/,
      /^blocks\.0\.mlp\.fc1\.weight$/,
      /^y_embedder\.embedding_table\.weight$/,
    ],
    absent: [/^blocks\.0\.attn\.[qk]_norm\./],
    facts: {
      heads,
      nullClass,
      sigma: {
        what: "what becomes of variance channels: learned (DiT) or discarded (SiT)",
        rule: oneOf("learned", "discarded"),
      },
    },
    configure: configureDit,
    keys: () => facebookDitKeys,
    build: buildDit,
    pipeline: ditPipeline,
    published: { ...publishedSizes("learned", "DiT"), ...publishedSizes("discarded", "SiT") },
  },
  {
    name: "diffusers-dit",
    title: "DiT (huggingface/diffusers DiTTransformer2DModel)",
    model: "dit",
    role: "model",
    marks: [
      /^pos_embed\.proj\.weight$/,
      /^transformer_blocks\.0\.norm1\.emb\.class_embedder\.embedding_table\.weight$/,
      /^proj_out_2\.weight$/,
    ],
    facts: {
      heads,
      nullClass,
      size: {
        what: "height and width of the latent, e.g. [32,32]",
        rule: listOf(whole(1, limits.side), 2, 2),
      },
      trainedBy: {
        what: "whose code trained it: the releases are the original's, in diffusers' layout",
        rule: oneOf("original", "diffusers"),
        fixed: "original",
      },
    },
    readConfig: readDiffusers,
    configure: configureDiffusers,
    keys: (config) =>
      (config as DitConfig).trainedBy === "diffusers" ? diffusersTrainedDitKeys : diffusersDitKeys,
    build: buildDit,
    pipeline: ditPipeline,
    published: publishedSizes("learned", "DiT"),
  },
  {
    name: "fit",
    title: "FiT or FiTv2 (whlzy/FiT)",
    model: "fit",
    role: "model",
    places: trainingPlaces,
    marks: [
      /^x_embedder\.proj\.weight$/,
      /^blocks\.0\.attn\.qkv\.weight$/,
      /^blocks\.0\.mlp\.fc[12](?:_g)?\.weight$/,
      /^y_embedder\.embedding_table\.weight$/,
    ],
    absent: [/^pos_embed$/],
    facts: {
      heads,
      nullClass,
      patch: { what: "side of a patch", rule: whole(1, limits.side) },
      queryNorm: {
        what: "norm of the queries (q_norm: layer in FiTv2, none in FiT)",
        rule: headNorm,
      },
      keyNorm: { what: "norm of the keys (k_norm: layer in FiTv2, none in FiT)", rule: headNorm },
      norm: { what: "norm of the blocks (norm_type)", rule: headNorm, fixed: "layer" },
      rotary: { what: "options of the rotation, such as a stretch", rule: object, fixed: {} },
      timeShift: { what: "shift of the times (time_shifting)", rule: real(1 / 64, 64), fixed: 1 },
    },
    readConfig: readFit,
    configure: configureFit,
    keys: () => fitKeys,
    build: (config) => fit(config as FitConfig),
    pipeline: fitPipeline,
    published: fitConfigs,
  },
];
