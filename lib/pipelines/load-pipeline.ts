// Opens and writes a pipeline folder of any kind.
import { checkOptions, DiffusionError } from "../errors.js";
import { shown } from "../models/check-config.js";
import { describeBackends } from "../runtime/device.js";
import { checkQuantize, type Quantize } from "../runtime/program.js";
import { DiffusionPipeline } from "./diffusion.js";
import { openDiffusion, saveDiffusion } from "./diffusion-folder.js";
import { pipelineFolder, readPipelineFile, type PipelineFile } from "./pipeline.js";
import type { VqDiffusionPipeline } from "./vq-diffusion.js";
import { openVqDiffusion, saveVqDiffusion } from "./vq-diffusion-folder.js";

/** A pipeline of any kind; `kind` tells them apart. */
export type Pipeline = VqDiffusionPipeline | DiffusionPipeline;

/** Pipelines by their kind. */
interface Kinds {
  "vq-diffusion": VqDiffusionPipeline;
  diffusion: DiffusionPipeline;
}

export type PipelineKind = keyof Kinds;

export interface LoadOptions {
  /** Where it runs: "auto" (default) is the best that this version and machine offer. */
  device?: "auto" | "cpu";
  /**
   * "int8": the network that is called in every step runs on 8-bit integers, encoders and decoders in floats. Faster where
   * the CPU has VNNI; other pictures than in floats (design note 20). "int8-weights" and "f16-weights": its matrices are
   * stored narrow, in a quarter and half of the memory, and it computes in floats. Default: floats.
   */
  quantize?: Quantize | undefined;
  /** Refuse pipelines of another kind. Default: any. */
  kind?: PipelineKind;
}

/** Throws "device" for a device that cannot be used, with the reason. */
function checkDevice(device: unknown): void {
  if (device === "auto") return;
  const { backends } = describeBackends();
  const asked = backends.find(({ name }) => name === device);
  if (asked?.usable) return;
  const usable = backends.filter((backend) => backend.usable).map(({ name }) => name);
  throw new DiffusionError(
    "device",
    `loadPipeline: expected device ${["auto", ...usable].map(shown).join(" or ")}, got ${shown(device)}${asked ? `; ${asked.name}: ${asked.reason}` : ""}`,
  );
}

const openers: {
  readonly [Kind in PipelineKind]: (
    folder: string,
    file: PipelineFile,
    quantize: Quantize | undefined,
  ) => Promise<Kinds[Kind]>;
} = {
  "vq-diffusion": openVqDiffusion,
  diffusion: async (folder, file, quantize) => {
    const { settings, parts } = await openDiffusion(folder, file);
    return new DiffusionPipeline(file.name, folder, settings, { ...parts, quantize });
  },
};

const isKind = (kind: string): kind is PipelineKind => Object.hasOwn(openers, kind);

/**
 * Loads a pipeline from a folder, or by the name of one in the package; the files of its weights stay open. Throws
 * "checkpoint" when something is wrong, "device" for a device that cannot be used, "option" for an unknown option.
 */
export async function loadPipeline(
  folderOrName: "emoji-64",
  options?: LoadOptions,
): Promise<VqDiffusionPipeline>;
export async function loadPipeline<Kind extends PipelineKind>(
  folderOrName: string,
  options: LoadOptions & { kind: Kind },
): Promise<Kinds[Kind]>;
export async function loadPipeline(folderOrName: string, options?: LoadOptions): Promise<Pipeline>;
export async function loadPipeline(
  folderOrName: string,
  options: LoadOptions = {},
): Promise<Pipeline> {
  const { device = "auto", quantize } = options;
  checkOptions("loadPipeline", options, ["device", "kind", "quantize"]);
  checkDevice(device);
  checkQuantize("loadPipeline", quantize);
  const folder = await pipelineFolder(folderOrName);
  const file = await readPipelineFile(folder);
  const { kind } = file;
  const wanted = options.kind === undefined ? Object.keys(openers) : [options.kind];
  if (isKind(kind) && wanted.includes(kind)) return openers[kind](folder, file, quantize);
  throw new DiffusionError(
    "checkpoint",
    `${folder}: expected a pipeline of kind ${wanted.join(" or ")}, got kind ${shown(kind)} with components ${Object.keys(file.components).slice(0, 8).join(", ") || "none"}`,
  );
}

/** Writes a pipeline to a folder that loadPipeline reads: weights as f16, vocabulary, and pipeline.json last. */
export async function savePipeline(pipeline: Pipeline, folder: string): Promise<void> {
  const { name } = pipeline;
  if (pipeline.kind === "diffusion")
    return saveDiffusion(folder, { name, settings: pipeline.settings, parts: pipeline.parts() });
  const { codec, ...parts } = pipeline.parts();
  await saveVqDiffusion(folder, {
    name,
    settings: pipeline.settings,
    codec: { config: codec.config, weights: codec.weights() },
    ...parts,
  });
}
