// A data set through a codec, once, before the training of a model of tokens.
import type { ImageDataset } from "../data/dataset.js";
import { given } from "../trainers/given.js";
import type { Codec } from "./codec.js";

const tokeniseBatch = 64;

export interface TokeniseOptions {
  /** Told how many pictures are done. */
  onProgress?: (done: number) => void;
  /** Stops the work, which then rejects with code "aborted". */
  signal?: AbortSignal;
}

/** Token ids of every picture of a set, (length * N). */
export async function tokeniseDataset(
  codec: Codec,
  set: ImageDataset,
  options: TokeniseOptions = {},
): Promise<Int32Array> {
  const tokens = new Int32Array(set.length * codec.tokensPerImage);
  for (let first = 0; first < set.length; first += tokeniseBatch) {
    const count = Math.min(tokeniseBatch, set.length - first);
    const images = await Promise.all(
      Array.from({ length: count }, async (_, i) => ({
        width: set.width,
        height: set.height,
        data: await set.pixels(first + i),
      })),
    );
    tokens.set(
      await codec.encode(images, { batchSize: tokeniseBatch, ...given(options, "signal") }),
      first * codec.tokensPerImage,
    );
    options.onProgress?.(first + count);
  }
  return tokens;
}
