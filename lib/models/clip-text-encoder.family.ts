// How text towers of CLIP are recognised: openai/CLIP and mlfoundations/open_clip, alone or inside a
// checkpoint of microsoft/VQ-Diffusion, and huggingface/transformers.
import { isObject, limits, oneOf, real, whole } from "./check-config.js";
import { clipTextConfigs, clipTextEncoder } from "./clip-text-encoder.js";
import type { ClipTextEncoderConfig } from "./clip-text-encoder.js";
import { openAiClipTextKeys, transformersClipTextKeys } from "./clip-text-encoder.keys.js";
import { known, onlyValues } from "./config-file.js";
import { openClipPipeline } from "./pipeline-facts.js";
import type { ConfigFile, Fact, FactValues, Family, ShapeView } from "./family.js";

const activation: Fact = {
  what: "activation of the MLP: quickGelu in OpenAI's weights, gelu in LAION's",
  rule: oneOf("quickGelu", "gelu"),
};
const heads: Fact = { what: "attention heads", rule: whole(1, limits.width) };

/** What the facts say in both layouts. */
const fromFacts = (facts: FactValues) => ({
  activation: facts["activation"] as "quickGelu" | "gelu",
});

function configureOpenAi(shapes: ShapeView, facts: FactValues): ClipTextEncoderConfig {
  const [vocabulary, width] = shapes.shape("token_embedding.weight", 2) as [number, number];
  return {
    vocabulary,
    length: shapes.extent("positional_embedding", 0),
    width,
    layers: shapes.count(/^transformer\.resblocks\.(\d+)\./),
    heads: shapes.ratio(width, facts["headWidth"] as number, "the number of heads"),
    hidden: shapes.extent("transformer.resblocks.0.mlp.c_fc.weight", 0),
    ...(shapes.has("text_projection") && { projection: shapes.extent("text_projection", 1) }),
    ...fromFacts(facts),
  };
}

function configureTransformers(shapes: ShapeView, facts: FactValues): ClipTextEncoderConfig {
  const start = shapes.has("text_model.embeddings.token_embedding.weight") ? "text_model." : "";
  const words = `${start}embeddings.token_embedding.weight`;
  const [vocabulary, width] = shapes.shape(words, 2) as [number, number];
  return {
    vocabulary,
    length: shapes.extent(`${start}embeddings.position_embedding.weight`, 0),
    width,
    layers: shapes.count(/^(?:text_model\.)?encoder\.layers\.(\d+)\./),
    heads: facts["heads"] as number,
    hidden: shapes.extent(`${start}encoder.layers.0.mlp.fc1.weight`, 0),
    eps: facts["eps"] as number,
    ...(shapes.has("text_projection.weight") && {
      projection: shapes.extent("text_projection.weight", 0),
    }),
    ...fromFacts(facts),
  };
}

const activations: Readonly<Record<string, string>> = { quick_gelu: "quickGelu", gelu: "gelu" };

/** config.json of a CLIPTextModel, or text_config of a CLIPModel's. */
function readTransformers(file: ConfigFile): Record<string, unknown> | undefined {
  const text = isObject(file["text_config"]) ? file["text_config"] : file;
  if (!["clip", "clip_text_model"].includes(String(file["model_type"]))) return undefined;
  onlyValues(text, { hidden_act: Object.keys(activations) });
  return known({
    heads: text["num_attention_heads"],
    activation: activations[String(text["hidden_act"] ?? "quick_gelu")],
    eps: text["layer_norm_eps"],
    layers: text["num_hidden_layers"],
    width: text["hidden_size"],
    hidden: text["intermediate_size"],
  });
}

const build = (config: object): ReturnType<typeof clipTextEncoder> =>
  clipTextEncoder(config as ClipTextEncoderConfig);

/** Towers of one shape have one name: the first. */
const published = Object.fromEntries(
  Object.entries(clipTextConfigs).map(([name, config]) => [
    `CLIP ${name}`,
    { activation: "quickGelu", ...config },
  ]),
);

export const clipTextEncoderFamilies: readonly Family[] = [
  {
    name: "clip-text",
    title: "CLIP text tower (openai/CLIP, mlfoundations/open_clip)",
    model: "clip-text-encoder",
    role: "text-encoder",
    places: [/^(?:transformer\.)?condition_emb\./, /^cond_stage_model\.model\./],
    marks: [
      /^token_embedding\.weight$/,
      /^positional_embedding$/,
      /^transformer\.resblocks\.0\.attn\.in_proj_weight$/,
      /^ln_final\.weight$/,
    ],
    facts: {
      activation,
      headWidth: { what: "width of a head", rule: whole(1, limits.width), fixed: 64 },
    },
    configure: configureOpenAi,
    keys: () => openAiClipTextKeys,
    build,
    pipeline: openClipPipeline,
    published,
  },
  {
    name: "transformers-clip-text",
    title: "CLIP text tower (huggingface/transformers CLIPTextModel, CLIPModel)",
    model: "clip-text-encoder",
    role: "text-encoder",
    places: [/^cond_stage_model\.transformer\./],
    marks: [
      /^(?:text_model\.)?embeddings\.token_embedding\.weight$/,
      /^(?:text_model\.)?encoder\.layers\.0\.self_attn\.q_proj\.weight$/,
      /^(?:text_model\.)?final_layer_norm\.weight$/,
    ],
    facts: {
      heads,
      activation,
      eps: { what: "eps of the norms", rule: real(0, 1), fixed: 1e-5 },
    },
    readConfig: readTransformers,
    configure: configureTransformers,
    keys: () => transformersClipTextKeys,
    build,
    published,
  },
];
