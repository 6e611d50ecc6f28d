// What a sampling run tells: one typed union, yielded by `stream` of every pipeline.
import type { GeneratedImage } from "./generated-image.js";
import type { ByteImage } from "../image/image-io.js";

export type GenerateEvent =
  | { type: "warning"; message: string }
  | { type: "step"; step: number; steps: number; ms: number }
  | { type: "preview"; step: number; images: ByteImage[] }
  | { type: "done"; images: GeneratedImage[] };
