// Tables of learned vectors and sinusoidal features.
import type { Init } from "../ir/param.js";
import { concat } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { normal } from "./init.js";
import type { Layer } from "./linear.js";
import type { ParamScope } from "./module.js";

export interface EmbeddingOptions {
  count: number;
  width: number;
  /** Default normal with deviation 0.02. */
  init?: Init;
}

/** Rows of a learned table by i32 index; indices outside are clamped. */
export function embedding(
  scope: ParamScope,
  { count, width, init = normal(0.02) }: EmbeddingOptions,
): Layer {
  const weight = scope.param("weight", [count, width], init);
  return (indices) => {
    const rows = indices.trace.parameter(weight).gather(indices, 0);
    indices.trace.record(scope.path, rows);
    return rows;
  };
}

/** Features of a scalar time: a sin half and a cos half, and a last 0 when the width is odd. */
export interface SinusoidOptions {
  width: number;
  /**
   * Exponent of frequency i is i / divisor: half - 1 (VQ-Diffusion, VQGAN) or half (ADM, DiT).
   * Default half.
   */
  divisor?: number;
  /** Default "cos" (ADM, DiT). */
  first?: "sin" | "cos";
  /** Largest period; default 10000. */
  period?: number;
}

function frequencies({ width, divisor, period = 10000 }: SinusoidOptions): number[] {
  const half = Math.floor(width / 2);
  return Array.from({ length: half }, (_, i) =>
    Math.exp((-Math.log(period) * i) / (divisor ?? half)),
  );
}

/**
 * Sinusoids of fixed positions in float64, one row a position. Vaswani et al. 2017,
 * arXiv:1706.03762, section 3.5.
 */
export function sinusoidRows(positions: readonly number[], options: SinusoidOptions): number[] {
  const { width, first = "cos" } = options;
  const rates = frequencies(options);
  const rest = width % 2 === 1 ? [0] : [];
  return positions.flatMap((position) => {
    const sin = rates.map((f) => Math.sin(position * f));
    const cos = rates.map((f) => Math.cos(position * f));
    return first === "sin" ? [...sin, ...cos, ...rest] : [...cos, ...sin, ...rest];
  });
}

/** Sinusoids of times known only when the program runs: (B) -> (B, width). */
export function sinusoid(times: Tensor, options: SinusoidOptions): Tensor {
  const { width, first = "cos" } = options;
  const t = times.trace;
  const rates = frequencies(options);
  const angles = times.reshape([times.size, 1]).mul(t.constant(rates, [1, rates.length]));
  const [sin, cos] = [angles.sin(), angles.cos()];
  const rest = width % 2 === 1 ? [t.constant(0, [times.size, 1])] : [];
  return concat([...(first === "sin" ? [sin, cos] : [cos, sin]), ...rest], 1);
}

export interface GridEmbeddingOptions {
  /** Rows and columns of the position tables. */
  positions: readonly [number, number];
  width: number;
  /** Tokens of the input; the flattened position grid is cut to this length. */
  tokens: number;
  /** Names as a table ("height_emb.weight") or a bare parameter ("height_emb"). */
  kind: "embedding" | "parameter";
}

/** Learned row plus column positions, flattened row-major: () -> (tokens, width). */
export function gridPositions(
  scope: ParamScope,
  options: GridEmbeddingOptions,
): (trace: Trace) => Tensor {
  const {
    positions: [rows, columns],
    width,
    tokens,
    kind,
  } = options;
  const table = (name: string, count: number) =>
    kind === "embedding"
      ? scope.child(name).param("weight", [count, width], normal(0.02))
      : scope.param(name, [count, width], normal(0.02));
  const height = table("height_emb", rows);
  const across = table("width_emb", columns);
  return (t) => {
    const byRow = t.parameter(height).reshape([rows, 1, width]);
    const byColumn = t.parameter(across).reshape([1, columns, width]);
    const all = byRow.add(byColumn).reshape([rows * columns, width]);
    return tokens === rows * columns ? all : all.slice([0, 0], [tokens, width]);
  };
}
