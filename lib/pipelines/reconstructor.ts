// Whatever takes pictures apart and puts them together again, by its folder: pipelines, tokenizers, autoencoders, VAEs.
import { join } from "node:path";
import { DiffusionError } from "../errors.js";
import type { ByteImage, Image } from "../image/image-io.js";
import { diffuseVae, type DiffuseVaeConfig } from "../models/diffusevae-vae.js";
import type { FirstStage } from "../models/first-stage.js";
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
  readonly imageSize: number | PictureSize;
  reconstruct(images: readonly Image[], options?: Pick<CodecOptions, "batchSize" | "signal">): Promise<ByteImage[]>; // prettier-ignore
  dispose(): void;
}

/** DiffuseVAE's VAE as a stage whose latent covers the whole picture. Throws "option" for one that is told classes. */
function vaeStage(config: DiffuseVaeConfig): FirstStage {
  const { latentWidth, parameters, encode, decode } = diffuseVae(config);
  if (config.classes !== undefined)
    throw new DiffusionError(
      "option",
      `reconstruct: expected a VAE without classes, got one that is told ${config.classes}; train a refiner on it and reconstruct by that pipeline`,
    );
  return {
    channels: latentWidth,
    stride: config.resolution,
    parameters,
    states: [],
    encode: (image) => encode(image.add(1).mul(0.5)).mean,
    decode: (latents) => decode(latents).mul(2).sub(1),
  };
}

const autoencoders: typeof firstStages = { ...firstStages, "diffusevae-vae": vaeStage };

/** An autoencoder alone: the means of its latents and back. */
async function openAutoencoder(folder: string, file: ComponentFile): Promise<Reconstructor> {
  const path = join(folder, "pipeline.json");
  const stage = checkingFile(path, () => autoencoders[file.model]!(file.config as never, {}));
  const buffers = await openWeightBuffers(join(folder, file.weights), specsOf(stage));
  const codec = new PictureCodec(stage, new SessionCache(buffers));
  return {
    imageSize: (file.config as unknown as { resolution: number }).resolution,
    reconstruct: (images, options) => codec.reconstruct(images, options),
    dispose: () => codec.dispose(),
  };
}

/** Opens a pipeline, or a folder with a component codec or vae. Throws "checkpoint" for others. */
export async function openReconstructor(folderOrName: string): Promise<Reconstructor> {
  const folder = await pipelineFolder(folderOrName);
  const { kind, components } = await readPipelineFile(folder);
  const codec = components["codec"] ?? components["vae"];
  if (kind === "vq-diffusion" || kind === "diffusion") return loadPipeline(folder);
  if (codec?.model === "vqgan") return loadCodec(folder, codec);
  if (codec && Object.hasOwn(autoencoders, codec.model)) return openAutoencoder(folder, codec);
  const got = Object.entries(components).map(([name, { model }]) => `${name} (${model})`);
  throw new DiffusionError(
    "checkpoint",
    `${folder}: expected a pipeline or a component codec or vae (${Object.keys(autoencoders).join(", ")}), got kind "${kind}" with ${got.slice(0, 8).join(", ") || "none"}`,
  );
}
