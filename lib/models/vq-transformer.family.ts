// How transformers of VQ-Diffusion are recognised: microsoft/VQ-Diffusion and Transformer2DModel of huggingface/diffusers.
import { DiffusionError } from "../errors.js";
import { sizeOf } from "../ir/shape.js";
import { flag, isObject, limits, listOf, oneOf, whole } from "./check-config.js";
import { inside, known, onlyValues } from "./config-file.js";
import type { ConfigFile, Fact, FactValues, Family } from "./family.js";
import { ShapeView } from "./family.js";
import { vqTransformerConfigs } from "./vq-transformer-configs.js";
import {
  diffusersUnconditionalVqTransformerKeys,
  diffusersVqTransformerKeys,
  microsoftVqTransformerKeys,
} from "./vq-transformer.keys.js";
import { vqTransformer, type VqTransformerConfig } from "./vq-transformer.js";

const heads: Fact = { what: "attention heads", rule: whole(1, limits.width) };
const grid: Fact = {
  what: "rows and columns of tokens, e.g. [32,32]",
  rule: listOf(whole(1, limits.side), 2, 2),
};
const normKind = oneOf("layer", "instance");

const microsoftFacts = {
  heads,
  grid,
  activation: {
    what: "activation of the MLP (block_activate: GELU2 is quickGelu)",
    rule: oneOf("quickGelu", "gelu"),
  },
  timeNorm: { what: "norm that the timestep modulates", rule: normKind, fixed: "layer" },
  classNorm: { what: "norm that the class modulates", rule: normKind, fixed: "layer" },
} as const satisfies Record<string, Fact>;

const activations: Readonly<Record<string, string>> = { GELU: "gelu", GELU2: "quickGelu" };

const normOf = (type: unknown): string | undefined =>
  typeof type === "string" ? (type.startsWith("adainsnorm") ? "instance" : "layer") : undefined;

/** A yaml of microsoft/VQ-Diffusion: model.params.diffusion_config.params.transformer_config.params. */
function readMicrosoft(file: ConfigFile): Record<string, unknown> | undefined {
  const diffusion = inside(file, "model", "params", "diffusion_config", "params");
  const params = inside(diffusion, "transformer_config", "params");
  if (!isObject(params)) return undefined;
  const length = params["content_seq_len"];
  const spatial = params["content_spatial_size"];
  const side = typeof length === "number" ? Math.sqrt(length) : NaN;
  onlyValues(params, { block_activate: Object.keys(activations) });
  return known({
    heads: params["n_head"],
    grid: Array.isArray(spatial) ? spatial : Number.isInteger(side) ? [side, side] : undefined,
    activation: activations[String(params["block_activate"] ?? "GELU")],
    timeNorm: normOf(params["timestep_type"]),
    classNorm: normOf(params["class_type"]),
    layers: params["n_layer"],
    width: params["n_embd"],
    mlpRatio: params["mlp_hidden_times"],
  });
}

/** Names as microsoft's, without the starts that a whole model adds. */
const block = "blocks.0.";

/** Hidden width of the MLP in widths, and its kind. */
function mlpOf(shapes: ShapeView, width: number): Pick<VqTransformerConfig, "mlp" | "mlpRatio"> {
  const isConv = shapes.has(`${block}mlp.conv1.weight`);
  const hidden = shapes.extent(`${block}mlp.${isConv ? "conv1" : "0"}.weight`, 0);
  return { ...(isConv && { mlp: "conv" as const }), mlpRatio: hidden / width };
}

function conditionOf(shapes: ShapeView, norm: unknown): Pick<VqTransformerConfig, "condition"> {
  if (shapes.has(`${block}attn2.key.weight`))
    return {
      condition: { kind: "text", width: shapes.extent(`${block}attn2.key.weight`, 1) },
    };
  if (!shapes.has(`${block}ln2.emb.weight`)) return {};
  const classes = shapes.extent(`${block}ln2.emb.weight`, 0);
  return {
    condition: {
      kind: "class",
      classes,
      ...(norm === "instance" && { norm: "instance" as const }),
    },
  };
}

/** Steps of the chain: a row each in the learned tables, or the schedule kept in the file. */
function timesOf(shapes: ShapeView): Pick<VqTransformerConfig, "timesteps" | "timeFeatures"> {
  if (shapes.has(`${block}ln1.emb.weight`))
    return { timesteps: shapes.extent(`${block}ln1.emb.weight`, 0) };
  return { timesteps: shapes.extent("log_at", 0), timeFeatures: "sinusoid" };
}

/** The tensors with every name as in the transformer itself. */
function withoutStarts({ where, shapes }: ShapeView): Map<string, readonly number[]> {
  const own = new Map<string, readonly number[]>();
  for (const [name, shape] of shapes) own.set(name.replace(/^(?:transformer\.){1,2}/, ""), shape);
  if (own.size === 0)
    throw new DiffusionError("checkpoint", `${where}: expected tensors, got none`);
  return own;
}

function configureMicrosoft(whole: ShapeView, facts: FactValues): VqTransformerConfig {
  const shapes = new ShapeView(whole.where, withoutStarts(whole));
  const isTable = shapes.has("content_emb.height_emb.weight");
  const end = isTable ? ".weight" : "";
  /** Rows of a table; bare parameters have axes of extent 1 too. */
  const table = (name: string): number => {
    const shape = shapes.shape(`content_emb.${name}${end}`);
    return shapes.ratio(sizeOf(shape), shape.at(-1) ?? 0, `rows of ${name}`);
  };
  const positions = [table("height_emb"), table("width_emb")] as [number, number];
  const tokens = facts["grid"] as [number, number];
  const [codes, width] = shapes.shape("to_logits.1.weight", 2) as [number, number];
  return {
    codes,
    grid: tokens,
    ...(positions.join() !== String(tokens) && { positions }),
    ...(!isTable && { positionKind: "parameter" as const }),
    width,
    layers: shapes.count(/^blocks\.(\d+)\./),
    heads: facts["heads"] as number,
    ...mlpOf(shapes, width),
    activation: facts["activation"] as "quickGelu" | "gelu",
    ...timesOf(shapes),
    ...(facts["timeNorm"] === "instance" && { timeNorm: "instance" as const }),
    ...conditionOf(shapes, facts["classNorm"]),
  };
}

const diffusersFacts = {
  heads,
  grid,
  activation: {
    what: "activation of the MLP (activation_fn: geglu-approximate is quickGelu)",
    rule: oneOf("quickGelu", "gelu", "geglu"),
  },
  onlyCrossAttention: {
    what: "whether the first attention reads the condition too (only_cross_attention)",
    rule: flag,
    fixed: false,
  },
} as const satisfies Record<string, Fact>;

const diffusersActivations: Readonly<Record<string, string>> = {
  geglu: "geglu",
  "geglu-approximate": "quickGelu",
  gelu: "gelu",
};

/** config.json of a Transformer2DModel with discrete input. */
function readDiffusers(file: ConfigFile): Record<string, unknown> | undefined {
  if (file["_class_name"] !== "Transformer2DModel") return undefined;
  const side = file["sample_size"];
  onlyValues(file, { activation_fn: Object.keys(diffusersActivations) });
  const codes = file["num_vector_embeds"];
  return known({
    heads: file["num_attention_heads"],
    grid: typeof side === "number" ? [side, side] : undefined,
    activation: diffusersActivations[String(file["activation_fn"] ?? "geglu")],
    onlyCrossAttention: file["only_cross_attention"],
    layers: file["num_layers"],
    codes: typeof codes === "number" ? codes - 1 : undefined,
    timesteps: file["num_embeds_ada_norm"],
  });
}

function configureDiffusers(shapes: ShapeView, facts: FactValues): VqTransformerConfig {
  const at = "transformer_blocks.0.";
  const [codes, width] = shapes.shape("out.weight", 2) as [number, number];
  const activation = facts["activation"] as "quickGelu" | "gelu" | "geglu";
  const hidden = shapes.extent(`${at}ff.net.0.proj.weight`, 0) / (activation === "geglu" ? 2 : 1);
  const learned = shapes.has(`${at}norm1.emb.weight`);
  const context = `${at}attn2.to_k.weight`;
  const isCross = learned
    ? shapes.has(context) && shapes.has(`${at}norm2.emb.weight`)
    : shapes.has(context);
  return {
    codes,
    grid: facts["grid"] as [number, number],
    width,
    layers: shapes.count(/^transformer_blocks\.(\d+)\./),
    heads: facts["heads"] as number,
    mlpRatio: hidden / width,
    activation,
    ...(facts["onlyCrossAttention"] === true && { onlyCrossAttention: true }),
    ...(!shapes.has(`${at}attn1.to_q.bias`) && { projectionBias: false }),
    ...(learned
      ? { timesteps: shapes.extent(`${at}norm1.emb.weight`, 0) }
      : { timeFeatures: "none" as const }),
    ...(isCross && {
      condition: { kind: "text" as const, width: shapes.extent(context, 1) },
    }),
  };
}

const build = (config: object): ReturnType<typeof vqTransformer> =>
  vqTransformer(config as VqTransformerConfig);

const start = "^(?:transformer\\.){0,2}";

/** Published configurations with what configure always says. */
const published = Object.fromEntries(
  Object.entries<VqTransformerConfig>(vqTransformerConfigs).map(([name, config]) => [
    name,
    { mlpRatio: 4, activation: "quickGelu", timesteps: 100, ...config },
  ]),
);

export const vqTransformerFamilies: readonly Family[] = [
  {
    name: "microsoft-vq-diffusion",
    title: "VQ-Diffusion transformer (microsoft/VQ-Diffusion)",
    model: "vq-transformer",
    role: "model",
    marks: [
      new RegExp(`${start}content_emb\\.emb\\.weight$`),
      new RegExp(`${start}blocks\\.0\\.ln1\\.linear\\.weight$`),
      new RegExp(`${start}to_logits\\.1\\.weight$`),
    ],
    facts: microsoftFacts,
    readConfig: readMicrosoft,
    configure: configureMicrosoft,
    keys: () => microsoftVqTransformerKeys,
    build,
    published,
  },
  {
    name: "diffusers-vq-diffusion",
    title: "VQ-Diffusion transformer (huggingface/diffusers Transformer2DModel)",
    model: "vq-transformer",
    role: "model",
    marks: [
      /^latent_image_embedding\.emb\.weight$/,
      /^transformer_blocks\.0\.attn1\.to_q\.weight$/,
      /^out\.weight$/,
    ],
    facts: diffusersFacts,
    readConfig: readDiffusers,
    configure: configureDiffusers,
    keys: (config) =>
      (config as VqTransformerConfig).condition
        ? diffusersVqTransformerKeys
        : diffusersUnconditionalVqTransformerKeys,
    build,
    published,
  },
];
