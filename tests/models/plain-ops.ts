// The operations of image networks as plain loops in float64, channels first, written from their definitions: the oracle of
// networks that no original numbers cover.
import { normalStream } from "../../lib/nn/random.js";
import { erf } from "../ops/interpreter-pointwise.js";

export interface Plain {
  shape: readonly number[];
  data: Float64Array;
}

export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Normal draws of a named stream, which float32 holds too. */
export const draw = (name: string, shape: readonly number[], deviation = 1, mean = 0): Plain => ({
  shape,
  data: Float64Array.from(normalStream(11, name, sizeOf(shape)), (x) =>
    Math.fround(mean + deviation * x),
  ),
});

export const map = (x: Plain, f: (value: number, index: number) => number): Plain => ({
  shape: x.shape,
  data: x.data.map(f),
});

export const add = (a: Plain, b: Plain): Plain => map(a, (value, i) => value + b.data[i]!);

export const silu = (x: Plain): Plain => map(x, (v) => v / (1 + Math.exp(-v)));
export const gelu = (x: Plain): Plain => map(x, (v) => (v * (1 + erf(v / Math.SQRT2))) / 2);

/** (..., in) -> (..., out) with weight (out, in). */
export function linear(x: Plain, weight: Plain, bias?: Plain): Plain {
  const [out, from] = weight.shape as [number, number];
  const rows = x.data.length / from;
  const data = new Float64Array(rows * out);
  for (let r = 0; r < rows; ++r)
    for (let o = 0; o < out; ++o) {
      let sum = bias ? bias.data[o]! : 0;
      for (let i = 0; i < from; ++i) sum += x.data[r * from + i]! * weight.data[o * from + i]!;
      data[r * out + o] = sum;
    }
  return { shape: [...x.shape.slice(0, -1), out], data };
}

/** (B, C, H, W) with weight (O, C, k, k); padding top, bottom, left, right. */
export function conv(
  x: Plain,
  weight: Plain,
  bias: Plain,
  { stride = 1, padding }: { stride?: number; padding?: readonly number[] } = {},
): Plain {
  const [B, C, H, W] = x.shape as [number, number, number, number];
  const [O, , k] = weight.shape as [number, number, number];
  const same = (k - 1) / 2;
  const [top, bottom, left, right] = (padding ?? [same, same, same, same]) as [number, number, number, number]; // prettier-ignore
  const h = Math.floor((H + top + bottom - k) / stride) + 1;
  const w = Math.floor((W + left + right - k) / stride) + 1;
  const data = new Float64Array(B * O * h * w);
  let at = 0;
  for (let b = 0; b < B; ++b)
    for (let o = 0; o < O; ++o)
      for (let i = 0; i < h; ++i)
        for (let j = 0; j < w; ++j) {
          let sum = bias.data[o]!;
          for (let c = 0; c < C; ++c)
            for (let u = 0; u < k; ++u)
              for (let v = 0; v < k; ++v) {
                const row = i * stride + u - top;
                const column = j * stride + v - left;
                if (row < 0 || row >= H || column < 0 || column >= W) continue;
                sum += x.data[((b * C + c) * H + row) * W + column]! * weight.data[((o * C + c) * k + u) * k + v]!; // prettier-ignore
              }
          data[at++] = sum;
        }
  return { shape: [B, O, h, w], data };
}

/** Each row of `width` values with zero mean and unit variance. */
function standardise(data: Float64Array, width: number, eps: number): Float64Array {
  const out = new Float64Array(data.length);
  for (let start = 0; start < data.length; start += width) {
    const row = data.subarray(start, start + width);
    const mean = row.reduce((a, b) => a + b, 0) / width;
    const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / width;
    row.forEach((value, i) => (out[start + i] = (value - mean) / Math.sqrt(variance + eps)));
  }
  return out;
}

/** (B, C, ...): statistics over each group of neighbouring channels. */
export function groupNorm(x: Plain, gamma: Plain, beta: Plain, groups: number, eps: number): Plain {
  const [B, C] = x.shape as [number, number];
  const space = x.data.length / (B * C);
  const unit = standardise(x.data, (C / groups) * space, eps);
  return { shape: x.shape, data: unit.map((value, i) => {
    const c = Math.floor(i / space) % C;
    return value * gamma.data[c]! + beta.data[c]!;
  }) }; // prettier-ignore
}

/** (..., D); without gamma and beta only the statistics. */
export function layerNorm(x: Plain, eps: number, gamma?: Plain, beta?: Plain): Plain {
  const D = x.shape.at(-1)!;
  const unit = standardise(x.data, D, eps);
  return { shape: x.shape, data: unit.map((v, i) => v * (gamma?.data[i % D] ?? 1) + (beta?.data[i % D] ?? 0)) }; // prettier-ignore
}

/** Join along channels. */
export function concatChannels(a: Plain, b: Plain): Plain {
  const [B, C, H, W] = a.shape as [number, number, number, number];
  const D = b.shape[1]!;
  const space = H * W;
  const data = new Float64Array(a.data.length + b.data.length);
  for (let n = 0; n < B; ++n) {
    data.set(a.data.subarray(n * C * space, (n + 1) * C * space), n * (C + D) * space);
    data.set(b.data.subarray(n * D * space, (n + 1) * D * space), (n * (C + D) + C) * space);
  }
  return { shape: [B, C + D, H, W], data };
}

/** Nearest neighbour, twice the size. */
export function twice(x: Plain): Plain {
  const [B, C, H, W] = x.shape as [number, number, number, number];
  const data = new Float64Array(4 * x.data.length);
  data.forEach((_, i) => {
    const [column, row, map2] = [i % (2 * W), Math.floor(i / (2 * W)) % (2 * H), Math.floor(i / (4 * W * H))]; // prettier-ignore
    data[i] = x.data[(map2 * H + (row >> 1)) * W + (column >> 1)]!;
  });
  return { shape: [B, C, 2 * H, 2 * W], data };
}

/** (B, C, H, W) -> (B, H W, C), or back to the shape of `like`. */
export function tokens(x: Plain): Plain {
  const [B, C, H, W] = x.shape as [number, number, number, number];
  const N = H * W;
  const data = new Float64Array(x.data.length);
  for (let b = 0; b < B; ++b)
    for (let c = 0; c < C; ++c)
      for (let n = 0; n < N; ++n) data[(b * N + n) * C + c] = x.data[(b * C + c) * N + n]!;
  return { shape: [B, N, C], data };
}

export function mapOf(x: Plain, [, , H, W]: readonly number[]): Plain {
  const [B, N, C] = x.shape as [number, number, number];
  const data = new Float64Array(x.data.length);
  for (let b = 0; b < B; ++b)
    for (let n = 0; n < N; ++n)
      for (let c = 0; c < C; ++c) data[(b * C + c) * N + n] = x.data[(b * N + n) * C + c]!;
  return { shape: [B, C, H!, W!], data };
}

/** softmax(scale q k^T) v of each head; q (B, N, C), k and v (B, M, C); `sees` says which pairs count. */
export function attention(
  q: Plain,
  k: Plain,
  v: Plain,
  { heads, scale, sees = () => true }: { heads: number; scale: number; sees?: (b: number, n: number, m: number) => boolean }, // prettier-ignore
): Plain {
  const [B, N, C] = q.shape as [number, number, number];
  const M = k.shape[1]!;
  const d = C / heads;
  const data = new Float64Array(B * N * C);
  for (let b = 0; b < B; ++b)
    for (let h = 0; h < heads; ++h)
      for (let n = 0; n < N; ++n) {
        const scores = Array.from({ length: M }, (_, m) => {
          if (!sees(b, n, m)) return -Infinity;
          let sum = 0;
          for (let c = h * d; c < (h + 1) * d; ++c)
            sum += q.data[(b * N + n) * C + c]! * k.data[(b * M + m) * C + c]!;
          return scale * sum;
        });
        const top = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - top));
        const total = weights.reduce((a, w) => a + w, 0);
        for (let c = h * d; c < (h + 1) * d; ++c)
          data[(b * N + n) * C + c] =
            weights.reduce((a, w, m) => a + w * v.data[(b * M + m) * C + c]!, 0) / total;
      }
  return { shape: q.shape, data };
}
