// Pooling, and moving pixels between space and channels. Maps are (B, H, W, C).
import { DiffusionError, formatShape } from "../errors.js";
import { convOutputSize } from "../ir/shape.js";
import type { Pair, Padding } from "./ops.js";
import { asPadding, asPair, pad } from "./ops.js";
import type { Tensor } from "./tensor.js";

export interface PoolOptions {
  kernel: Pair;
  /** Default: the kernel. */
  stride?: Pair;
  /** Default 0. */
  padding?: Padding;
}

type Map4 = [number, number, number, number];

/** The most negative f32: what maxima start from. */
const lowest = -3.4028234663852886e38;

/** Mean of each window; padded zeros count. */
export const avgPool2d = (x: Tensor, options: PoolOptions): Tensor => {
  const [KH, KW] = asPair(options.kernel);
  return pool("avgPool2d", x, options, {
    outside: 0,
    blocks: (windows) => windows.mean([2, 4]),
    taps: (taps) => taps.reduce((a, b) => a.add(b)).mul(1 / (KH * KW)),
  });
};

/** Largest element of each window. */
export const maxPool2d = (x: Tensor, options: PoolOptions): Tensor =>
  pool("maxPool2d", x, options, {
    outside: lowest,
    blocks: (windows) => windows.max([2, 4]),
    taps: (taps) => taps.reduce((a, b) => a.maximum(b)),
  });

interface Fold {
  /** Value of the padding. */
  outside: number;
  /** Folds axes 2 and 4 of (B, OH, KH, OW, KW, C). */
  blocks: (windows: Tensor) => Tensor;
  /** Folds one (B, OH, OW, C) for each place of the window. */
  taps: (taps: Tensor[]) => Tensor;
}

/** Windows side by side are a reshape; overlapping ones are strided slices, one for each place of the window. */
function pool(
  where: string,
  x: Tensor,
  { kernel, stride = kernel, padding = 0 }: PoolOptions,
  fold: Fold,
): Tensor {
  const [KH, KW] = asPair(kernel);
  const [SH, SW] = asPair(stride);
  const [top, bottom, left, right] = asPadding(padding);
  const isPadded = top + bottom + left + right > 0;
  const padded = isPadded ? pad(x, [0, top, left, 0], [0, bottom, right, 0], fold.outside) : x;
  const [B, H, W, C] = padded.shape as Map4;
  const [OH, OW] = [convOutputSize(H, KH, SH, 0, 0), convOutputSize(W, KW, SW, 0, 0)];
  if (x.rank !== 4 || OH < 1 || OW < 1) {
    throw new DiffusionError(
      "shape",
      `${where}: expected (B, H, W, C) that holds the ${formatShape([KH, KW])} window, got ${formatShape(x.shape)}`,
    );
  }
  if (KH === SH && KW === SW) {
    const isExact = H === OH * KH && W === OW * KW;
    const whole = isExact ? padded : padded.slice([0, 0, 0, 0], [B, OH * KH, OW * KW, C]);
    return fold.blocks(whole.reshape([B, OH, KH, OW, KW, C]));
  }
  const taps = Array.from({ length: KH * KW }, (_, tap) =>
    padded.slice([0, Math.floor(tap / KW), tap % KW, 0], [B, OH, OW, C], [1, SH, SW, 1]),
  );
  return fold.taps(taps);
}

/**
 * Channels to space: (B, H, W, C f^2) -> (B, H f, W f, C). Shi et al. 2016, arXiv:1609.05158, eq. 4, with the channel
 * order of PyTorch: source channel c f^2 + i f + j goes to place (i, j) of channel c.
 */
export function pixelShuffle(x: Tensor, factor: number): Tensor {
  const [B, H, W, C] = x.shape as Map4;
  const out = C / factor ** 2;
  return x
    .reshape([B, H, W, out, factor, factor])
    .transpose([0, 1, 4, 2, 5, 3])
    .reshape([B, H * factor, W * factor, out]);
}

/** The inverse of pixelShuffle: (B, H f, W f, C) -> (B, H, W, C f^2). */
export function pixelUnshuffle(x: Tensor, factor: number): Tensor {
  const [B, H, W, C] = x.shape as Map4;
  return x
    .reshape([B, H / factor, factor, W / factor, factor, C])
    .transpose([0, 1, 3, 5, 2, 4])
    .reshape([B, H / factor, W / factor, C * factor ** 2]);
}
