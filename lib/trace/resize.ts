// Resampling of maps (B, H, W, C). Bilinear and bicubic have half-pixel centres and are one constant matrix an axis, whose
// rows are the weights of an output pixel; nearest is a gather.
import { DiffusionError, formatShape } from "../errors.js";
import { sizeOf } from "../ir/shape.js";
import { take } from "./composites.js";
import { matmul } from "./ops.js";
import type { Tensor } from "./tensor.js";

export type ResizeMethod = "nearest" | "bilinear" | "bicubic";

export interface ResizeOptions {
  /** Height and width of the result. */
  size: readonly [number, number];
  /** Default "bilinear". */
  method?: ResizeMethod;
  /** Widen the kernel when shrinking, as PIL does; default false. */
  antialias?: boolean;
}

interface Kernel {
  /** Half width in source pixels. */
  support: number;
  weight: (distance: number) => number;
}

const triangle: Kernel = { support: 1, weight: (d) => Math.max(0, 1 - d) };

/** Keys 1981, "Cubic convolution interpolation for digital image processing", eq. 4, with free parameter a. */
const cubic = (a: number): Kernel => ({
  support: 2,
  weight: (d) => {
    if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? a * (((d - 5) * d + 8) * d - 4) : 0;
  },
});

/** a = -0.75 interpolates as PyTorch and OpenCV do; with antialiasing both PyTorch and PIL take -0.5. */
const kernels: Record<Exclude<ResizeMethod, "nearest">, (antialias: boolean) => Kernel> = {
  bilinear: () => triangle,
  bicubic: (antialias) => cubic(antialias ? -0.5 : -0.75),
};

/** Changes the height and width of (B, H, W, C). */
export function resize(
  x: Tensor,
  { size, method = "bilinear", antialias = false }: ResizeOptions,
): Tensor {
  if (x.rank !== 4 || size.some((n) => !Number.isInteger(n) || n < 1)) {
    throw new DiffusionError(
      "shape",
      `resize: expected (B, H, W, C) and a size of at least 1 x 1, got ${formatShape(x.shape)} and ${formatShape(size)}`,
    );
  }
  return size.reduce((y, target, i) => resizeAxis(y, i + 1, target, method, antialias), x);
}

function resizeAxis(
  x: Tensor,
  axis: number,
  target: number,
  method: ResizeMethod,
  antialias: boolean,
): Tensor {
  const source = x.shape[axis]!;
  if (source === target) return x;
  if (method === "nearest") return take(x, nearestSources(source, target), axis);
  const matrix = resizeMatrix(source, target, kernels[method](antialias), antialias);
  const before = x.shape.slice(0, axis);
  const after = x.shape.slice(axis + 1);
  const rows = sizeOf(before);
  const columns = sizeOf(after);
  const weights = x.trace.constant(matrix, [target, source], x.dtype);
  return matmul(weights, x.reshape([rows, source, columns])).reshape([...before, target, ...after]);
}

/** floor(i source / target): what PyTorch's "nearest" reads. */
const nearestSources = (source: number, target: number): number[] =>
  Array.from({ length: target }, (_, i) => Math.min(source - 1, Math.floor((i * source) / target)));

/** Row-major (target, source); each row sums to 1. */
function resizeMatrix(
  source: number,
  target: number,
  kernel: Kernel,
  antialias: boolean,
): number[] {
  const scale = source / target;
  const stretch = antialias ? Math.max(1, scale) : 1;
  return Array.from({ length: target }, (_, i) =>
    resizeRow(source, (i + 0.5) * scale - 0.5, kernel, stretch, antialias),
  ).flat();
}

/** Weights of one output pixel. Outside the picture: antialiasing leaves taps out, otherwise they read the border. */
function resizeRow(
  source: number,
  center: number,
  kernel: Kernel,
  stretch: number,
  antialias: boolean,
): number[] {
  const row = new Array<number>(source).fill(0);
  const reach = kernel.support * stretch;
  for (let tap = Math.ceil(center - reach); tap <= Math.floor(center + reach); tap++) {
    if (antialias && (tap < 0 || tap >= source)) continue;
    row[Math.min(source - 1, Math.max(0, tap))]! += kernel.weight(Math.abs(tap - center) / stretch);
  }
  const total = row.reduce((a, b) => a + b, 0);
  return row.map((weight) => weight / total);
}
