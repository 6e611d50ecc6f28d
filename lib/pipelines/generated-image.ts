// A finished picture with the settings that made it.
import { encodePng, writePng, type ByteImage, type GenerationMetadata } from "../image/image-io.js";

export class GeneratedImage implements ByteImage {
  constructor(
    private readonly image: ByteImage,
    /** Model, prompt, seed and settings: enough to make the picture again. */
    readonly metadata: GenerationMetadata,
  ) {}

  get width(): number {
    return this.image.width;
  }

  get height(): number {
    return this.image.height;
  }

  /** RGB bytes, rows from the top. */
  get data(): Uint8Array {
    return this.image.data;
  }

  /** Writes a PNG that carries its settings. */
  save(path: string): Promise<void> {
    return writePng(path, this.image, this.metadata);
  }

  /** PNG bytes that carry the settings. */
  png(): Promise<Uint8Array> {
    return encodePng(this.image, this.metadata);
  }
}
