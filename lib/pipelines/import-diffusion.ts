// Published checkpoints as a diffusion pipeline: which model is which part, the facts of the process that files and options
// say, and the folder.
import { DiffusionError } from "../errors.js";
import type { Checkpoint, FoundConfig } from "../checkpoint/checkpoint.js";
import { shown } from "../models/check-config.js";
import { denoiser } from "../models/denoiser.js";
import type { Fact, FactValues, PipelineFacts, PublishedSettings } from "../models/family.js";
import { betaSchedules } from "../processes/gaussian-schedules.js";
import {
  diffusionFile,
  diffusionFiles,
  diffusionNetworks,
  type DiffusionPart,
  type NetworkConfig,
} from "./diffusion-folder.js";
import { canGuide, type DiffusionSettings } from "./diffusion-settings.js";
import {
  checkedFacts,
  convertedModels,
  missingFacts,
  writeModels,
  type ConvertOptions,
  type Identified,
  type KnownFact,
} from "./import-checkpoint.js";
import { writePipelineFile, type ComponentFile } from "./pipeline.js";

/** The part of a pipeline that a model is; undefined: none of them. */
function partOf({ family: { role, model, pipeline } }: Identified): DiffusionPart | undefined {
  if (pipeline?.settings) return "denoiser";
  if (model === "adm-encoder-unet") return "classifier";
  if (role === "codec") return model === "diffusevae-vae" ? "vae" : "firstStage";
  if (role === "text-encoder") return "textEncoder";
  return role === "class-embedder" ? "classEmbedder" : undefined;
}

/** Whether models have a denoiser, so that they make a pipeline. */
export const hasDenoiser = (models: readonly Identified[]): boolean =>
  models.some((model) => partOf(model) === "denoiser");

type Parts = { denoiser: Identified } & Partial<Record<DiffusionPart, Identified>>;

/** Models by their part. Throws "option" for two of one part. */
function partsOf(models: readonly Identified[]): Parts {
  const parts: Partial<Record<DiffusionPart, Identified>> = {};
  for (const model of models) {
    const part = partOf(model);
    if (!part) continue;
    const other = parts[part];
    if (other)
      throw new DiffusionError(
        "option",
        `convert: expected one ${part}, got ${other.family.name} of ${other.checkpoint.path} and ${model.family.name} of ${model.checkpoint.path}`,
      );
    parts[part] = model;
  }
  return parts as Parts;
}

const rounded = (value: number): number => Number(value.toPrecision(7));

/** The schedule of stored betas: the one whose chain they are. */
function chainOfBetas(betas: Float32Array): FactValues | undefined {
  const timesteps = betas.length;
  const ends = { first: rounded(betas[0]!), last: rounded(betas[timesteps - 1]!) };
  for (const [schedule, betasOf] of Object.entries(betaSchedules)) {
    for (const range of [ends, {}]) {
      const all = tried(() => betasOf({ timesteps, ...range }));
      const isSame = all?.every((beta, i) => Math.abs(beta - betas[i]!) <= 1e-4 * beta);
      if (isSame) return { timesteps, schedule, ...range };
    }
  }
  return undefined;
}

function tried<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    if (error instanceof DiffusionError) return undefined;
    throw error;
  }
}

/** Longest chain whose betas are compared. */
const kLongest = 100_000;

/** What buffers beside the weights say of the process: betas, the scale of latents, DiffuseVAE's formulation. */
async function storedFacts(checkpoint: Checkpoint): Promise<KnownFact[]> {
  const facts: Record<string, [value: unknown, name: string]> = {};
  for (const [name, { shape, elements }] of checkpoint.tensors) {
    if (/(?:^|\.)betas$/.test(name) && shape.length === 1 && elements > 1 && elements < kLongest) {
      const chain = chainOfBetas(await checkpoint.readF32(name)) ?? {};
      for (const [fact, value] of Object.entries(chain)) facts[fact] ??= [value, name];
      if (/_network\.betas$/.test(name)) facts["formulation"] ??= [1, name];
    }
    if (/^scale_factor$/.test(name) && elements === 1)
      facts["latentScale"] = [rounded((await checkpoint.readF32(name))[0]!), name];
    if (/(?:^|\.)post_coeff_3$/.test(name)) facts["formulation"] = [2, name];
  }
  return Object.entries(facts).map(([name, [value, tensor]]) => ({
    ...{ name, value, from: `tensor ${tensor}` },
  }));
}

/** Facts of a model that only a pipeline needs: given, else of a file, else stored, decided or the original's default. */
async function pipelineFacts(
  { family, config, checkpoint }: Identified,
  given: FactValues,
  configs: readonly FoundConfig[],
): Promise<KnownFact[]> {
  const { facts, decided, readConfig } = family.pipeline!;
  const files = configs.flatMap(({ where, value }) =>
    Object.entries(readConfig?.(value) ?? {}).map(([name, item]) => ({ name, value: item, from: where })),
  ); // prettier-ignore
  const own = Object.entries(decided?.(config) ?? {}).map(([name, value]) => ({ name, value, from: "the network" })); // prettier-ignore
  const said = [...own, ...files, ...(await storedFacts(checkpoint))].filter(({ value }) => value !== undefined); // prettier-ignore
  return checkedFacts(`${checkpoint.path}: ${family.name}`, family.name, facts, said, given);
}

const valuesOf = (facts: readonly KnownFact[]): FactValues =>
  Object.fromEntries(facts.map(({ name, value }) => [name, value]));

/** Facts without which there is no process; some do not concern every kind of it. */
function neededFacts({ facts }: PipelineFacts, known: readonly KnownFact[]): Record<string, Fact> {
  const values = valuesOf(known);
  const schedule = String(values["schedule"]);
  const isRanged = ["linear", "linear-float32", "scaled-linear", "logistic"].includes(schedule);
  return Object.fromEntries(
    Object.entries(facts).filter(
      ([name, fact]) => !("fixed" in fact) && (isRanged || !["first", "last"].includes(name)),
    ),
  );
}

/** Throws "option" that lists every fact that is missing and how to give it. */
function requireFacts({ family, checkpoint }: Identified, known: readonly KnownFact[]): void {
  const needed = neededFacts(family.pipeline!, known);
  const missing = Object.entries(needed).filter(([name]) => !known.some((fact) => fact.name === name)); // prettier-ignore
  if (missing.length === 0) return;
  const facts = missing.map(([name, { what }]) => [name, what] as const);
  throw missingFacts(
    `${checkpoint.path}: ${family.name}`,
    "facts of its process, which the tensors do not show",
    Object.fromEntries(facts),
    ", or --networks-only for a folder without a pipeline",
  );
}

/** A text encoder without its last layer where the one before it counts. */
function layered(model: Identified, { textLayer }: FactValues): Identified {
  if (textLayer !== "penultimate") return model;
  const layers = (model.config["layers"] as number) - 1;
  return { ...model, config: { ...model.config, layers } };
}

/** Latents of the published text encoders are filled up as their code bases do. */
const paddingOf = ({ family }: Identified): "end" | "zero" =>
  family.name === "transformers-clip-text" ? "end" : "zero";

/** Settings of a pipeline from those of the denoiser and the other parts. */
function settingsOf(published: PublishedSettings, parts: Parts): DiffusionSettings {
  const { family, config } = parts.denoiser;
  const { size = denoiser(family.model, config).size, process, latentScale } = published;
  if (!size)
    throw new DiffusionError(
      "option",
      `${parts.denoiser.checkpoint.path}: expected the size of the state, got none; --set size=[32,32]`,
    );
  return {
    process,
    size,
    ...(parts.firstStage && { latentScale: latentScale ?? 1 }),
    ...(parts.textEncoder && { text: { padding: paddingOf(parts.textEncoder) } }),
    defaults: published.defaults as DiffusionSettings["defaults"],
  };
}

/** Throws "option" for a part that the denoiser needs and that no file had, with the option that gives it. */
function requireParts({ denoiser: { family, config, checkpoint }, ...others }: Parts): void {
  const { channels, contextWidth, tokenizer, pair, latentWidth } = denoiser(family.model, config);
  const latent = channels !== 1 && channels !== 3;
  const hasContext = others.textEncoder ?? others.classEmbedder;
  const needed = [
    latent && !others.firstStage && "--first-stage FILE, the autoencoder of its latents",
    contextWidth !== undefined && !hasContext && "--text-encoder FILE, the encoder of its conditions",
    (latentWidth !== undefined || (pair && family.model === "diffusevae-unet")) && !others.vae && !tokenizer && "--vae FILE, the first of its two stages",
  ].filter((text): text is string => typeof text === "string"); // prettier-ignore
  if (needed.length === 0) return;
  throw new DiffusionError(
    "option",
    `${checkpoint.path}: ${family.name}: expected the other parts of a pipeline, got none for\n  ${needed.join("\n  ")}\n  or --networks-only for a folder without a pipeline`,
  );
}

export interface ConvertDiffusionOptions extends ConvertOptions {
  /** Facts of the process by name, or by "family.name". */
  facts?: FactValues;
  /** Configuration files beside those of the checkpoints, such as a scheduler's. */
  configs?: readonly FoundConfig[];
}

export interface ConvertedDiffusion {
  components: Record<string, ComponentFile>;
  settings: DiffusionSettings;
  /** Of the process, and where each is from. */
  facts: readonly KnownFact[];
}

const networkOf = ({ family, config }: Identified): NetworkConfig => ({
  model: family.model,
  config,
});

/**
 * Writes models as a diffusion pipeline that loadPipeline opens. Throws "option" that lists facts or parts that are missing;
 * nothing is written unless everything fits.
 */
export async function convertDiffusion(
  folder: string,
  name: string,
  models: readonly Identified[],
  options: ConvertDiffusionOptions = {},
): Promise<ConvertedDiffusion> {
  const { facts: given = {} } = options;
  const found = partsOf(models);
  const configs = [...(options.configs ?? []), ...models.flatMap((model) => model.checkpoint.configs)]; // prettier-ignore
  requireParts(found);
  const all: KnownFact[] = [];
  for (const [part, model] of Object.entries(found)) {
    if (!model.family.pipeline || (part !== "denoiser" && part !== "textEncoder")) continue;
    const facts = await pipelineFacts(model, given, configs);
    requireFacts(model, facts);
    all.push(...facts);
    if (part === "textEncoder") found.textEncoder = layered(model, valuesOf(facts));
  }
  const { settings: publish } = found.denoiser.family.pipeline!;
  const settings = settingsOf(publish!(found.denoiser.config, valuesOf(all)), found);
  const networks = Object.entries(found).map(([part, model]) => [part, networkOf(model)] as const);
  const built = diffusionNetworks(Object.fromEntries(networks), settings);
  const guided = {
    ...settings,
    defaults: {
      ...settings.defaults,
      ...(!canGuide(built) && { guidanceScale: 1 }),
      ...(built.classifier && { classifierScale: 1 }), // classifier_scale of guided-diffusion
    },
  };
  const known = all.filter(({ value }) => value !== undefined);
  const file = diffusionFile(name, Object.fromEntries(networks), guided, {
    converted: convertedModels(Object.values(found), Object.keys(found)),
    process: Object.fromEntries(known.map((fact) => [fact.name, `${shown(fact.value)}: ${fact.from}`])), // prettier-ignore
  });
  const files = Object.keys(found).map((part) => diffusionFiles[part as DiffusionPart]);
  const isShorter = found.textEncoder !== partsOf(models).textEncoder;
  const write = writeModels(Object.values(found), files, {
    ...options,
    ...(isShorter && { ignoreUnused: true }),
  });
  await writePipelineFile(folder, file, write);
  return { components: file.components, settings: guided, facts: known };
}
