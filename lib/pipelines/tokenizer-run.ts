// A trained tokenizer as a folder of its own: what `smalti train tokenizer` leaves and the next training starts from.
import { join } from "node:path";
import { saveWeights } from "../checkpoint/weights.js";
import { DiffusionError } from "../errors.js";
import { vqgan, type VqganConfig } from "../models/vqgan.js";
import { loadCodec, type Codec } from "./codec.js";
import { pipelineFolder, readPipelineFile, writePipelineFile } from "./pipeline.js";

const weightsFile = "codec.safetensors";

/** Writes config and weights (f32). */
export async function saveTokenizerRun(
  folder: string,
  { config, weights }: { config: VqganConfig; weights: ReadonlyMap<string, Float32Array> },
  training: Record<string, unknown>,
): Promise<void> {
  const model = vqgan(config);
  const components = { codec: { model: "vqgan", config: { ...config }, weights: weightsFile } };
  await writePipelineFile(
    folder,
    { kind: "tokenizer", name: "tokenizer", components, settings: {}, training },
    (parts) =>
      saveWeights(join(parts, weightsFile), [...model.parameters, ...model.states], weights, "f32"),
  );
}

/** Loads the codec of a tokenizer run or of any pipeline that has one. */
export async function loadTokenizerRun(folderOrName: string): Promise<Codec> {
  const folder = await pipelineFolder(folderOrName);
  const { codec } = (await readPipelineFile(folder)).components;
  if (!codec)
    throw new DiffusionError(
      "checkpoint",
      `${folder}: expected a component codec, got none; train one with smalti train tokenizer`,
    );
  return loadCodec(folder, codec);
}
