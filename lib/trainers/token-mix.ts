// Token mixing: rectangles of a token grid come from the next picture of the batch, and the decoder has to show that
// picture there. A token can then only be of use for its own neighbourhood, so plain background does not carry news of
// distant parts, and a decoder gets along with tokens that do not fit together perfectly, as generated ones.
// After Yun et al. 2019 (CutMix), arXiv:1905.04899, here on tokens instead of inputs.
import { uniformStream } from "../nn/random.js";
import { concat, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";

/** Least and greatest share of a side that a rectangle takes. */
const sideShare = [0.25, 0.75] as const;

/**
 * Where tokens come from the next picture, (B, h, w) as 0 and 1: a rectangle in a share of the pictures. A function of
 * seed and stream alone.
 */
export function foreignTokens(
  share: number,
  [B, h, w]: readonly [number, number, number],
  { seed, stream }: { seed: number; stream: string },
): Float32Array {
  const draws = uniformStream(seed, stream, 5 * B);
  const mask = new Float32Array(B * h * w);
  const extent = (side: number, u: number): number =>
    Math.max(1, Math.round(side * (sideShare[0] + u * (sideShare[1] - sideShare[0]))));
  for (let b = 0; b < B; ++b) {
    const [chosen, tall, wide, down, across] = draws.subarray(5 * b, 5 * b + 5);
    if (chosen! >= share) continue;
    const [rows, columns] = [extent(h, tall!), extent(w, wide!)];
    const top = Math.floor(down! * (h - rows + 1));
    const left = Math.floor(across! * (w - columns + 1));
    for (let y = top; y < top + rows; ++y)
      mask.fill(1, (b * h + y) * w + left, (b * h + y) * w + left + columns);
  }
  return mask;
}

/** x (B, H, W, C) with the next picture of the batch where `foreign` (B, h, w) is 1; H and W are multiples of h and w. */
export function mixWithNext(x: Tensor, foreign: Tensor): Tensor {
  const [B, H, W, C] = x.shape as [number, number, number, number];
  const [, h, w] = foreign.shape as [number, number, number];
  const next = concat([x.slice([1, 0, 0, 0], [B - 1, H, W, C]), x.slice([0, 0, 0, 0], [1, H, W, C])], 0); // prettier-ignore
  const mask = foreign
    .reshape([B, h, 1, w, 1])
    .broadcastTo([B, h, H / h, w, W / w])
    .reshape([B, H, W, 1])
    .broadcastTo([B, H, W, C]);
  return where(mask.greater(0.5), next, x);
}
