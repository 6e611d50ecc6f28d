// The one place that maps bytes [0, 255] to the model range [-1, 1] and back.
import { DiffusionError } from "../errors.js";

/** byte / 127.5 - 1. Writes into `out` (same length) when given. */
export function bytesToSigned(
  bytes: Uint8Array,
  out = new Float32Array(bytes.length),
): Float32Array {
  for (let i = 0; i < bytes.length; ++i) out[i] = bytes[i]! / 127.5 - 1;
  return out;
}

/**
 * round((x + 1) * 127.5), clamped to [0, 255]. Throws "numeric" when a value is NaN (infinities
 * clamp).
 */
export function signedToBytes(
  values: Float32Array,
  out = new Uint8Array(values.length),
): Uint8Array {
  let nans = 0;
  for (let i = 0; i < values.length; ++i) {
    const x = values[i]!;
    if (Number.isNaN(x)) ++nans;
    const byte = (x + 1) * 127.5 + 0.5;
    out[i] = byte <= 0 ? 0 : byte >= 255 ? 255 : Math.floor(byte);
  }
  if (nans > 0)
    throw new DiffusionError(
      "numeric",
      `image: expected finite pixel values, got NaN in ${nans} of ${values.length}`,
    );
  return out;
}
