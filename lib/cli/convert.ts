// `smalti convert`: a published checkpoint as a folder of ours, a pipeline where it has a denoiser.
import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { Command, Option } from "commander";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { openCheckpoint, partSettings } from "../checkpoint/open-checkpoint.js";
import { DiffusionError } from "../errors.js";
import { inFolder, isFolder } from "../files/atomic-write.js";
import { shown } from "../models/check-config.js";
import type { Family } from "../models/family.js";
import { convertModels, type Identified, type KnownFact } from "../pipelines/import-checkpoint.js";
import { convertDiffusion, hasDenoiser } from "../pipelines/import-diffusion.js";
import type { ComponentFile } from "../pipelines/pipeline.js";
import {
  identifyAs,
  openAll,
  withCheckpointOptions,
  type CheckpointOptions,
} from "./checkpoint-options.js";
import { interruptSignal, progress, result, say } from "./terminal.js";

interface ConvertOptions extends CheckpointOptions {
  dtype: "f32" | "f16" | "bf16";
  ignoreUnused?: true;
  firstStage?: string;
  textEncoder?: string;
  vae?: string;
  classifier?: string;
  networksOnly?: true;
}

/** Whether a family is one of those that a file was named for. */
type Wanted = (family: Family) => boolean;

/** Other files of a pipeline, and what is taken from each. */
const others = {
  firstStage: ({ role }: Family) => role === "codec",
  vae: ({ role }: Family) => role === "codec",
  textEncoder: ({ role }: Family) => role === "text-encoder" || role === "class-embedder",
  classifier: ({ model }: Family) => model === "adm-encoder-unet",
} as const satisfies Partial<Record<keyof ConvertOptions, Wanted>>;

/** An opened file, and what is wanted of it; undefined: everything. */
interface Source {
  checkpoint: Checkpoint;
  wanted?: Wanted;
}

async function openSources(path: string, options: ConvertOptions): Promise<Source[]> {
  const sources: Source[] = (await openAll(path, options)).map((checkpoint) => ({ checkpoint }));
  try {
    for (const [option, wanted] of Object.entries(others)) {
      const file = options[option as keyof typeof others];
      if (file !== undefined) sources.push({ checkpoint: await openCheckpoint(file), wanted });
    }
    return sources;
  } catch (error) {
    for (const { checkpoint } of sources) await checkpoint.close();
    throw error;
  }
}

/** Models of the main files give way to those of files that were named for them. */
function withoutReplaced(models: readonly Identified[], sources: readonly Source[]): Identified[] {
  const named = new Map(sources.map(({ checkpoint, wanted }) => [checkpoint, wanted]));
  const isGiven = ({ family }: Identified): boolean =>
    sources.some(({ wanted }) => wanted?.(family));
  return models.filter((model) => named.get(model.checkpoint) !== undefined || !isGiven(model));
}

/** Every model of every opened file. Throws "checkpoint" when there is none, or two for the same tensors. */
function modelsOf(sources: readonly Source[], options: ConvertOptions): Identified[] {
  const models = sources.flatMap(({ checkpoint, wanted }) => {
    const all = identifyAs(checkpoint, options, sources.length > 1);
    const found = all.filter(({ family }) => !wanted || wanted(family));
    if (found.length === 0) say(`${checkpoint.path}: no known family of models; left out`);
    for (const note of checkpoint.notes) say(`${checkpoint.path}: ${note}`);
    return found;
  });
  const paths = sources.map(({ checkpoint }) => checkpoint.path).join(", ");
  if (models.length === 0)
    throw new DiffusionError(
      "checkpoint",
      `${paths}: expected a known family of models, got none; smalti inspect lists the tensors`,
    );
  for (const [i, model] of models.entries()) {
    const twin = models.find(
      ({ checkpoint, place }, j) =>
        j < i && checkpoint === model.checkpoint && place === model.place,
    );
    if (twin)
      throw new DiffusionError(
        "option",
        `${model.checkpoint.path}: expected one family for the same tensors, got ${twin.family.name} and ${model.family.name}; choose with --family`,
      );
  }
  return withoutReplaced(models, sources);
}

interface Converted {
  kind: string;
  components: Record<string, ComponentFile>;
  facts: readonly KnownFact[];
}

/** A pipeline where there is a denoiser, else plain networks. */
async function write(
  [path, out]: readonly [path: string, out: string],
  models: readonly Identified[],
  options: ConvertOptions,
  callbacks: { signal: AbortSignal; onProgress: (done: number, total: number) => void },
): Promise<Converted> {
  const { dtype, ignoreUnused = false, networksOnly, set: facts } = options;
  const chosen = { dtype, ignoreUnused, ...callbacks };
  if (networksOnly || !hasDenoiser(models)) {
    const components = await convertModels(out, basename(out), models, chosen);
    return { kind: "networks", components, facts: [] };
  }
  const configs = (await isFolder(path)) ? await partSettings(path) : [];
  const done = await convertDiffusion(out, basename(out), models, { ...chosen, facts, configs });
  return { kind: "diffusion", ...done };
}

const factLine = ({ name, value, from }: KnownFact): string =>
  `  ${name} = ${shown(value)}: ${from}`;

/** What was written, for people. */
function report(out: string, models: readonly Identified[], { kind, components, facts }: Converted) {
  const parts = models.flatMap((model) => {
    const part = Object.entries(components).find(([, { model: name }]) => name === model.family.model); // prettier-ignore
    if (!part) return [];
    const title = [`${part[0]}: ${model.family.title}`, ...(model.published.length > 0 ? [model.published.join(" or ")] : [])]; // prettier-ignore
    return [title.join(", "), ...model.facts.map(factLine)];
  });
  const process = facts.map(factLine);
  return [
    out,
    ...parts,
    ...(process.length > 0 ? ["pipeline:", ...process] : []),
    ...(kind === "diffusion" ? [`smalti sample --model ${out}`] : []),
  ].join("\n");
} // prettier-ignore

/** A run would lose the pipeline that describes its weights. Throws "option". */
function checkNoRun(out: string): void {
  if (!existsSync(join(out, "state.safetensors"))) return;
  throw new DiffusionError(
    "option",
    `convert: expected a folder without a training state, got "${out}"; name another folder`,
  );
}

export const convert = withCheckpointOptions(new Command("convert"))
  .summary("a published checkpoint as a folder of ours")
  .description("Write a published checkpoint as a folder of ours, a pipeline if it can be one.")
  .argument("<in>", "checkpoint file or folder")
  .argument("<out>", "folder to write")
  .option("--first-stage <file>", "autoencoder of the latents of a denoiser")
  .option("--text-encoder <file>", "encoder of its texts or classes")
  .option("--vae <file>", "first of the two stages of DiffuseVAE")
  .option("--classifier <file>", "classifier that guides the denoiser (ADM)")
  .option("--networks-only", "no pipeline: the process need not be known")
  .addOption(
    new Option("--dtype <type>", "type of weights").choices(["f32", "f16", "bf16"]).default("f16"),
  )
  .option("--ignore-unused", "leave tensors out that the model does not have")
  .action(async (path: string, out: string, options: ConvertOptions) => {
    const signal = interruptSignal("stopping; nothing is written until a file is whole");
    const sources = await openSources(path, options);
    const bar = progress("convert");
    try {
      const models = modelsOf(sources, options);
      checkNoRun(out);
      const onProgress = (count: number, total: number): void => bar.update(count + 1, total);
      const done = await inFolder(out, "convert", () =>
        write([path, out], models, options, { signal, onProgress }),
      );
      result({ folder: out, components: done.components }, report(out, models, done), options.json);
    } finally {
      bar.stop();
      for (const { checkpoint } of sources) await checkpoint.close();
    }
  });
