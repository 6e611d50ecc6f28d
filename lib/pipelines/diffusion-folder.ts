// A diffusion pipeline as a folder: the denoiser and what belongs to it (first stage, text or class encoder, the VAE of
// DiffuseVAE) with their weights, and pipeline.json with the process and how to sample.
import { join } from "node:path";
import { saveWeights } from "../checkpoint/weights.js";
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { admEncoderUnet, type AdmEncoderUnetConfig } from "../models/adm-encoder-unet.js";
import { autoencoderKl, type AutoencoderKlConfig } from "../models/autoencoder-kl.js";
import { shown } from "../models/check-config.js";
import { classEmbedder, type ClassEmbedderConfig } from "../models/class-embedder.js";
import { clipTextEncoder, type ClipTextEncoderConfig } from "../models/clip-text-encoder.js";
import { denoiser } from "../models/denoiser.js";
import { diffuseVae, type DiffuseVaeConfig } from "../models/diffusevae-vae.js";
import { klFirstStage, vqFirstStage, type FirstStage } from "../models/first-stage.js";
import { vqgan, type VqganConfig } from "../models/vqgan.js";
import type { Quantize } from "../runtime/program.js";
import { ClipTokenizer } from "../text/clip-tokenizer.js";
import { checkingFile, writePipelineFile, type ComponentFile, type PipelineFile } from "./pipeline.js"; // prettier-ignore
import {
  checkDiffusionSettings,
  type DiffusionNetworks,
  type DiffusionSettings,
} from "./diffusion-settings.js";
import { disposeWeights, openWeightBuffers, type Weights } from "./weight-buffers.js";

/** Parts of a pipeline and the file of the weights of each. */
export const diffusionFiles = {
  denoiser: "denoiser.safetensors",
  firstStage: "first-stage.safetensors",
  textEncoder: "text-encoder.safetensors",
  classEmbedder: "class-embedder.safetensors",
  vae: "vae.safetensors",
  classifier: "classifier.safetensors",
} as const;

export type DiffusionPart = keyof typeof diffusionFiles;

/** A network as data: the name that pipeline.json gives it, and its configuration. */
export type NetworkConfig = Pick<ComponentFile, "model"> & { config: object };

const partNames = Object.keys(diffusionFiles) as DiffusionPart[];

/** First stages by the name that pipeline.json gives them. */
export const firstStages: Readonly<
  Record<string, (config: never, options: { scale?: number }) => FirstStage>
> = {
  "autoencoder-kl": (config: AutoencoderKlConfig, options) =>
    klFirstStage(autoencoderKl(config), options),
  vqgan: (config: VqganConfig, options) => vqFirstStage(vqgan(config), options),
};

function expectModel(part: string, { model }: NetworkConfig, allowed: readonly string[]): void {
  if (allowed.includes(model)) return;
  throw new DiffusionError(
    "option",
    `components.${part}: expected model to be ${allowed.join(" or ")}, got ${shown(model)}`,
  );
}

type Networks = Partial<Record<DiffusionPart, NetworkConfig>>;

/** A part's network, when there is one. */
function built<T>(
  parts: Networks,
  part: DiffusionPart,
  models: Readonly<Record<string, (config: never) => T>>,
): T | undefined {
  const network = parts[part];
  if (!network) return undefined;
  expectModel(part, network, Object.keys(models));
  return models[network.model]!(network.config as never);
}

/** Builds the networks of a pipeline. Throws "option" for an unknown part, network or configuration. */
export function diffusionNetworks(
  parts: Readonly<Record<string, NetworkConfig>>,
  { latentScale: scale }: Pick<DiffusionSettings, "latentScale">,
): DiffusionNetworks {
  const unknown = Object.keys(parts).find((part) => !Object.hasOwn(diffusionFiles, part));
  if (unknown !== undefined || !parts["denoiser"])
    throw new DiffusionError(
      "option",
      `components: expected denoiser and others of ${partNames.join(", ")}, got ${shown(unknown ?? Object.keys(parts).join(", "))}`,
    );
  const { model, config } = parts["denoiser"];
  const scaled = Object.entries(firstStages).map(([name, build]) => [
    name,
    (given: never) => build(given, scale === undefined ? {} : { scale }),
  ]);
  const found = {
    firstStage: built(parts, "firstStage", Object.fromEntries(scaled) as Readonly<Record<string, (config: never) => FirstStage>>), // prettier-ignore
    textEncoder: built(parts, "textEncoder", {
      "clip-text-encoder": (given: ClipTextEncoderConfig) => clipTextEncoder(given),
    }),
    classEmbedder: built(parts, "classEmbedder", {
      "class-embedder": (given: ClassEmbedderConfig) => classEmbedder(given),
    }),
    vae: built(parts, "vae", {
      "diffusevae-vae": (given: DiffuseVaeConfig) => diffuseVae(given),
    }),
    classifier: built(parts, "classifier", {
      "adm-encoder-unet": (given: AdmEncoderUnetConfig) => admEncoderUnet(given),
    }),
  };
  return {
    denoiser: denoiser(model, config),
    ...(Object.fromEntries(
      Object.entries(found).filter(([, network]) => network !== undefined),
    ) as Omit<DiffusionNetworks, "denoiser">),
  };
}

/** Everything with weights in a network. */
export const specsOf = (network: {
  parameters: readonly ParamSpec[];
  states?: readonly ParamSpec[];
}): readonly ParamSpec[] => [...network.parameters, ...(network.states ?? [])];

/** A part with its weights by name. */
export type WeightedPart = NetworkConfig & { weights: ReadonlyMap<string, Float32Array> };

/** What a folder holds. */
export interface DiffusionContents {
  name: string;
  settings: DiffusionSettings;
  parts: { denoiser: WeightedPart } & Partial<Record<DiffusionPart, WeightedPart>>;
  /** Element type of the weights; default "f16". */
  dtype?: "f32" | "f16" | "bf16";
  /** Where the weights come from. */
  training?: Record<string, unknown>;
}

/** pipeline.json of parts and settings, checked against each other. Throws "option". */
export function diffusionFile(
  name: string,
  parts: Readonly<Record<string, NetworkConfig>>,
  settings: DiffusionSettings,
  training?: Record<string, unknown>,
): Omit<PipelineFile, "format" | "formatVersion" | "code"> {
  checkDiffusionSettings(settings, diffusionNetworks(parts, settings));
  const components = Object.entries(parts).map(([part, { model, config }]) => {
    const weights = diffusionFiles[part as DiffusionPart];
    return [part, { model, config: { ...config }, weights }];
  });
  return {
    kind: "diffusion",
    name,
    components: Object.fromEntries(components) as Record<string, ComponentFile>,
    settings: { ...settings },
    ...(training && { training }),
  };
}

/** Writes a pipeline folder: weights, and pipeline.json last. Throws "option" for parts that do not fit each other. */
export async function saveDiffusion(folder: string, contents: DiffusionContents): Promise<void> {
  const { name, settings, parts, dtype, training } = contents;
  const file = diffusionFile(name, parts, settings, training);
  const networks = diffusionNetworks(parts, settings);
  await writePipelineFile(folder, file, async (place) => {
    for (const [part, { weights }] of Object.entries(parts)) {
      const path = join(place, diffusionFiles[part as DiffusionPart]);
      await saveWeights(path, specsOf(networks[part as DiffusionPart]!), weights, dtype);
    }
  });
}

/** What an opened folder holds. */
export interface DiffusionParts {
  networks: DiffusionNetworks;
  /** The configurations that the networks were built from. */
  configs: Readonly<Partial<Record<DiffusionPart, NetworkConfig>>>;
  weights: Readonly<Partial<Record<DiffusionPart, Weights>>>;
  /** With a text encoder. */
  tokenizer?: ClipTokenizer;
  /** How the denoiser, and the classifier that guides it, are computed; default in floats. */
  quantize?: Quantize | undefined;
}

/** The words of a text encoder: the published table, or a smaller one of the folder. Throws "checkpoint". */
async function loadWords({ config }: { config: ClipTextEncoderConfig }): Promise<ClipTokenizer> {
  const tokenizer = await ClipTokenizer.load();
  if (tokenizer.vocabularySize <= config.vocabulary) return tokenizer;
  const merges = config.vocabulary - (tokenizer.vocabularySize - kPublishedMerges);
  return ClipTokenizer.load(undefined, { merges: Math.max(0, merges) });
}

/** Merges of the published table: a smaller vocabulary has the first of them. */
const kPublishedMerges = 48894;

/** The parts of an opened folder, and its settings. Throws "checkpoint" when something is wrong. */
export async function openDiffusion(
  folder: string,
  file: PipelineFile,
): Promise<{ settings: DiffusionSettings; parts: DiffusionParts }> {
  const settings = file.settings as unknown as DiffusionSettings;
  const networks = checkingFile(join(folder, "pipeline.json"), () => {
    const built = diffusionNetworks(file.components, settings);
    checkDiffusionSettings(settings, built);
    return built;
  });
  const weights: Partial<Record<DiffusionPart, Weights>> = {};
  try {
    for (const [name, component] of Object.entries(file.components)) {
      const part = name as DiffusionPart;
      const path = join(folder, component.weights);
      weights[part] = await openWeightBuffers(path, specsOf(networks[part]!));
    }
    const tokenizer = networks.textEncoder && (await loadWords(networks.textEncoder));
    const parts = { networks, configs: file.components, weights };
    return { settings, parts: { ...parts, ...(tokenizer && { tokenizer }) } };
  } catch (error) {
    Object.values(weights).forEach(disposeWeights);
    throw error;
  }
}
