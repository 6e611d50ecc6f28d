// Inpainting: which tokens of a picture stay, from a mask over its pixels.
import { DiffusionError } from "../errors.js";
import type { Codec } from "./codec.js";
import type { GenerateOptions } from "./generate-options.js";

/** Tokens to keep (-1 = make anew) of `image`, or undefined without one. Throws "option", "shape" or "aborted". */
export async function knownTokens(
  codec: Codec,
  { image, mask, signal }: Pick<GenerateOptions, "image" | "mask" | "signal">,
): Promise<Int32Array | undefined> {
  if (!image && !mask) return undefined;
  if (!image || !mask)
    throw new DiffusionError(
      "option",
      `generate: expected image and mask together, got only ${image ? "image" : "mask"}`,
    );
  const size = codec.config.resolution;
  if (mask.length !== size * size) {
    throw new DiffusionError(
      "shape",
      `generate: expected a mask of ${size} x ${size} = ${size * size} bytes, got ${mask.length}`,
    );
  }
  const tokens = await codec.encode([image], signal ? { signal } : {});
  const [rows, columns] = codec.grid;
  const cell = size / rows;
  for (let y = 0; y < size; ++y) {
    for (let x = 0; x < size; ++x) {
      if (mask[y * size + x]) tokens[Math.floor(y / cell) * columns + Math.floor(x / cell)] = -1;
    }
  }
  return tokens;
}
