// A VQ-Diffusion pipeline as a folder: codec and network with their weights, the words of a text model, pipeline.json.
import { join } from "node:path";
import { saveWeights } from "../checkpoint/weights.js";
import { DiffusionError } from "../errors.js";
import { textToToken, type TextToTokenConfig } from "../models/text-to-token.js";
import { transformerAlone, type TokenModel } from "../models/token-model.js";
import type { VqTransformerConfig } from "../models/vq-transformer.js";
import { vqgan, type VqganConfig } from "../models/vqgan.js";
import type { Quantize } from "../runtime/program.js";
import { TextTokenizer } from "../text/tokenizer.js";
import { loadCodec } from "./codec.js";
import {
  checkingFile,
  writePipelineFile,
  type ComponentFile,
  type PipelineFile,
} from "./pipeline.js";
import { VqDiffusionPipeline } from "./vq-diffusion.js";
import { checkSettings, type VqDiffusionSettings } from "./vq-diffusion-settings.js";
import { disposeWeights, openWeightBuffers } from "./weight-buffers.js";

const files = {
  codec: "codec.safetensors",
  model: "model.safetensors",
  tokenizer: "tokenizer.json",
} as const;

/** Networks by the name that pipeline.json gives them. */
const networks: Readonly<Record<TokenModel["name"], (config: never) => TokenModel>> = {
  "text-to-token": (config: TextToTokenConfig) => textToToken(config),
  "vq-transformer": (config: VqTransformerConfig) => transformerAlone(config),
};

const isNetwork = (name: string | undefined): name is TokenModel["name"] =>
  name !== undefined && Object.hasOwn(networks, name);

/** What a folder holds. */
export interface VqDiffusionContents {
  name: string;
  settings: VqDiffusionSettings;
  codec: { config: VqganConfig; weights: ReadonlyMap<string, Float32Array> };
  model: TokenModel;
  /** Of the model, by name. */
  weights: ReadonlyMap<string, Float32Array>;
  /** Of a text model. */
  tokenizer?: TextTokenizer;
  /** Where the weights come from. */
  training?: Record<string, unknown>;
}

/** Writes a pipeline folder: weights as f16, vocabulary, and pipeline.json last. */
export async function saveVqDiffusion(
  folder: string,
  { name, settings, codec, model, weights, tokenizer, training }: VqDiffusionContents,
): Promise<void> {
  const { parameters, states } = vqgan(codec.config);
  const file: Omit<PipelineFile, "format" | "formatVersion" | "code"> = {
    kind: "vq-diffusion",
    name,
    components: {
      codec: { model: "vqgan", config: { ...codec.config }, weights: files.codec },
      model: { model: model.name, config: { ...model.config }, weights: files.model },
    },
    settings: { ...settings },
    ...(training && { training }),
  };
  await writePipelineFile(folder, file, async (parts) => {
    await saveWeights(join(parts, files.codec), [...parameters, ...states], codec.weights);
    await saveWeights(join(parts, files.model), model.parameters, weights);
    await tokenizer?.save(join(parts, files.tokenizer));
  });
}

const describeComponents = ({ components }: PipelineFile): string =>
  Object.entries(components)
    .slice(0, 8)
    .map(([name, { model }]) => `${name} (${model})`)
    .join(", ") || "no components";

/** The network and the settings of a pipeline.json, checked against each other. Throws "checkpoint". */
function checkedParts(
  path: string,
  codec: ComponentFile,
  model: ComponentFile & { model: TokenModel["name"] },
  settings: unknown,
): TokenModel {
  return checkingFile(path, () => {
    const config = codec.config as unknown as VqganConfig;
    const { stride } = vqgan(config);
    const network = networks[model.model](model.config as never);
    const side = config.resolution / stride;
    checkSettings(settings, { codes: config.quantizer.codes, grid: [side, side] }, network);
    return network;
  });
}

/** The words of a text model. Throws "checkpoint" when they are not those that it was trained with. */
async function loadWords(
  path: string,
  { text }: TextToTokenConfig["condition"],
): Promise<TextTokenizer> {
  const tokenizer = await TextTokenizer.load(path);
  const { vocabulary, padToken = 0 } = text;
  if (tokenizer.vocabularySize === vocabulary && tokenizer.padId === padToken) return tokenizer;
  throw new DiffusionError(
    "checkpoint",
    `${path}: expected ${vocabulary} tokens with padding ${padToken} as the model has, got ${tokenizer.vocabularySize} with padding ${tokenizer.padId}`,
  );
}

/** The pipeline of a folder. Throws "checkpoint" when something is wrong. */
export async function openVqDiffusion(
  folder: string,
  file: PipelineFile,
  quantize?: Quantize,
): Promise<VqDiffusionPipeline> {
  const { codec: codecFile, model: modelFile } = file.components;
  const network = modelFile?.model;
  if (codecFile?.model !== "vqgan" || !isNetwork(network)) {
    throw new DiffusionError(
      "checkpoint",
      `${folder}: expected components codec (vqgan) and model (${Object.keys(networks).join(" or ")}) of a pipeline of kind vq-diffusion, got ${describeComponents(file)}`,
    );
  }
  const path = join(folder, "pipeline.json");
  const model = checkedParts(path, codecFile, { ...modelFile!, model: network }, file.settings);
  const tokenizer =
    model.condition.kind === "text"
      ? await loadWords(
          join(folder, files.tokenizer),
          (model.config as TextToTokenConfig).condition,
        )
      : undefined;
  const weights = await openWeightBuffers(join(folder, modelFile!.weights), model.parameters);
  const codec = await loadCodec(folder, codecFile).catch((error: unknown) => {
    disposeWeights(weights);
    throw error;
  });
  const parts = { codec, model, weights, quantize, ...(tokenizer && { tokenizer }) };
  const settings = file.settings as unknown as VqDiffusionSettings;
  return new VqDiffusionPipeline(file.name, folder, settings, parts);
}
