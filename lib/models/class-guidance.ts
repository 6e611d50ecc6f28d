// Classifier-free guidance of a network that sees a doubled batch: rows with their class first, the
// same rows without one after them. Source: Ho and Salimans 2022, arXiv:2207.12598, eq. 6.
import { DiffusionError, formatShape } from "../errors.js";
import { concat } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";

/** One number for all, or a tensor (B) with one for each sample. */
export type GuidanceScale = number | Tensor;

/**
 * u + s (c - u) of the first `channels` channels, in both halves of (2 B, H, W, C); the other
 * channels keep the value of their own row.
 */
export function guideHalves(output: Tensor, scale: GuidanceScale, channels: number): Tensor {
  const [rows, H, W, C] = output.shape as [number, number, number, number];
  if (output.rank !== 4 || rows % 2 !== 0) {
    throw new DiffusionError(
      "shape",
      `guideHalves: expected (2 B, H, W, C), got ${formatShape(output.shape)}`,
    );
  }
  const B = rows / 2;
  const guided = Math.min(channels, C);
  const part = (row: number): Tensor => output.slice([row, 0, 0, 0], [B, H, W, guided]);
  const [conditional, unconditional] = [part(0), part(B)];
  const strength = typeof scale === "number" ? scale : scale.reshape([scale.size, 1, 1, 1]);
  const mixed = unconditional.add(conditional.sub(unconditional).mul(strength));
  const both = concat([mixed, mixed], 0);
  if (guided === C) return both;
  return concat([both, output.slice([0, 0, 0, guided], [rows, H, W, C - guided])], 3);
}
