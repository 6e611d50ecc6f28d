// Peak signal-to-noise ratio of byte images.
import { DiffusionError } from "../errors.js";

/**
 * PSNR in dB of two byte arrays of the same length, peak 255; Infinity when they are equal. Throws "shape" for different
 * lengths and for empty ones.
 */
export function psnr(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length || a.length === 0)
    throw new DiffusionError(
      "shape",
      `psnr: expected two pictures of the same size, got ${a.length} and ${b.length} bytes`,
    );
  let sum = 0;
  for (let i = 0; i < a.length; ++i) sum += (a[i]! - b[i]!) ** 2;
  return 10 * Math.log10((255 * 255 * a.length) / sum);
}
