// Whatever takes pictures apart and puts them together again, by its folder: pipelines, tokenizers, autoencoders.
import { join } from "node:path";
import { DiffusionError } from "../errors.js";
import type { ByteImage, Image } from "../image/image-io.js";
import type { VqganConfig } from "../models/vqgan.js";
import { SessionCache } from "../runtime/session-cache.js";
import { loadCodec, type CodecOptions } from "./codec.js";
import { firstStages, specsOf } from "./diffusion-folder.js";
import type { PictureSize } from "./diffusion-options.js";
import { loadPipeline } from "./load-pipeline.js";
import { PictureCodec } from "./picture-codec.js";
import { checkingFile, pipelineFolder, readPipelineFile, type ComponentFile } from "./pipeline.js";
import { openWeightBuffers } from "./weight-buffers.js";

export interface Reconstructor {
  /** Size of its pictures in pixels; a number is the side of a square. */
  imageSize: number | PictureSize;
  reconstruct(images: readonly Image[], options?: Pick<CodecOptions, "batchSize" | "signal">): Promise<ByteImage[]>; // prettier-ignore
  dispose(): void;
}

/** An autoencoder alone: the means of its latents and back. */
async function openAutoencoder(folder: string, file: ComponentFile): Promise<Reconstructor> {
  const path = join(folder, "pipeline.json");
  const stage = checkingFile(path, () => firstStages[file.model]!(file.config as never, {}));
  const buffers = await openWeightBuffers(join(folder, file.weights), specsOf(stage));
  const codec = new PictureCodec(stage, new SessionCache(buffers));
  return {
    imageSize: (file.config as unknown as VqganConfig).resolution,
    reconstruct: (images, options) => codec.reconstruct(images, options),
    dispose: () => codec.dispose(),
  };
}

/** Opens a pipeline, or a folder with a component codec. Throws "checkpoint" for others. */
export async function openReconstructor(folderOrName: string): Promise<Reconstructor> {
  const folder = await pipelineFolder(folderOrName);
  const { kind, components } = await readPipelineFile(folder);
  const { codec } = components;
  if (kind === "vq-diffusion" || kind === "diffusion") return loadPipeline(folder);
  if (codec?.model === "vqgan") {
    const tokenizer = await loadCodec(folder, codec);
    return {
      imageSize: tokenizer.config.resolution,
      reconstruct: (images, options) => tokenizer.reconstruct(images, options),
      dispose: () => tokenizer.dispose(),
    };
  }
  if (codec && Object.hasOwn(firstStages, codec.model)) return openAutoencoder(folder, codec);
  throw new DiffusionError(
    "checkpoint",
    `${folder}: expected a pipeline or a component codec (${Object.keys(firstStages).join(" or ")}), got kind "${kind}" with ${codec ? `codec ${codec.model}` : "none"}`,
  );
}
