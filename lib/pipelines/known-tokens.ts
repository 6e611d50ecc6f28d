// Inpainting: which tokens of a picture stay, from a mask over its pixels.
import { DiffusionError, formatShape } from "../errors.js";
import type { Codec } from "./codec.js";
import type { GenerateOptions } from "./generate-options.js";

/** Throws "shape" or "data" for tokens that the codec does not have. */
function checkKnown({ grid, tokensPerImage, config }: Codec, known: ArrayLike<number>): Int32Array {
  if (known.length !== tokensPerImage)
    throw new DiffusionError(
      "shape",
      `generate: expected known of ${tokensPerImage} tokens (grid ${formatShape(grid)}), got ${known.length}`,
    );
  const { codes } = config.quantizer;
  const tokens = Int32Array.from(known);
  const wrong = tokens.find((id) => id < -1 || id >= codes);
  if (wrong === undefined) return tokens;
  throw new DiffusionError(
    "data",
    `generate: expected known token ids from -1 to ${codes - 1}, got ${wrong}`,
  );
}

/** Tokens to keep (-1 = make anew), told or of `image`, or undefined. Throws "option", "shape", "data" or "aborted". */
export async function knownTokens(
  codec: Codec,
  { image, mask, known, signal }: Pick<GenerateOptions, "image" | "mask" | "known" | "signal">,
): Promise<Int32Array | undefined> {
  if (known && !image && !mask) return checkKnown(codec, known);
  if (!image && !mask) return undefined;
  if (!image || !mask || known) {
    const given = Object.entries({ image, mask, known }).filter(([, value]) => value);
    throw new DiffusionError(
      "option",
      `generate: expected image and mask together, or known alone, got ${given.map(([name]) => name).join(" and ")}`,
    );
  }
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
