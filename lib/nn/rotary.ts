// Rotary positions on a grid: pairs of features turn by an angle that grows with the row (first half
// of a head) or the column (second half). Source: Su et al. 2021, arXiv:2104.09864, in the two-axis
// form of whlzy/FiT fit/model/rope.py.
import { concat, stack, unstack } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { joinAxes } from "./positions.js";

export type RotaryStretch =
  "none" | "linear" | "ntk" | "ntkRoot" | "ntkRootArea" | "ntkByParts" | "yarn";

export interface RotaryOptions {
  /** Width of a head, divisible by 4. */
  width: number;
  /** Longest period, in steps of 2 pi; default 10000. */
  theta?: number;
  /** How positions beyond the trained grid are brought back into it; default "none". */
  stretch?: RotaryStretch;
  /** Side of the trained grid; needed with a stretch. */
  trainedSide?: number;
  /** Stretch rows and columns by their own factors instead of the larger one; default false. */
  decouple?: boolean;
}

/** Cosines and sines, (…, N, width / 2). */
export interface Rotation {
  cos: Tensor;
  sin: Tensor;
}

/** What a stretch needs about one axis. */
interface Axis {
  /** Frequencies that an axis has: width / 4. */
  count: number;
  theta: number;
  /** Tested over trained length, at least 1. */
  scale: number;
  trained: number;
}

const powers = (base: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => base ** (-i / count));

/** Base that keeps the fastest frequency and slows the slowest by `scale` (bloc97 2023, "NTK-aware"). */
const ntkBase = ({ theta, count, scale }: Axis): number =>
  theta * scale ** ((2 * count) / (2 * count - 2));

/** Weights from 0 to 1 between the frequencies that turn `fast` and `slow` times in the trained length. */
function ramp({ theta, count, trained }: Axis, fast: number, slow: number): number[] {
  const width = 2 * count;
  const place = (turns: number): number =>
    (width * Math.log(trained / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const low = Math.max(Math.floor(place(fast)), 0);
  const ceiling = Math.min(Math.ceil(place(slow)), width - 1);
  const high = low === ceiling ? ceiling + 0.001 : ceiling;
  return Array.from({ length: count }, (_, i) =>
    Math.min(1, Math.max(0, (i - low) / (high - low))),
  );
}

const blend = (a: readonly number[], b: readonly number[], share: readonly number[]): number[] =>
  a.map((value, i) => value * (1 - share[i]!) + b[i]! * share[i]!);

const plain = ({ theta, count }: Axis): number[] => powers(theta, count);
const linear = (axis: Axis): number[] => plain(axis).map((frequency) => frequency / axis.scale);
const ntk = (axis: Axis): number[] => powers(ntkBase(axis), axis.count);

/**
 * Frequencies of an axis. ntkByParts and yarn: Peng et al. 2023, arXiv:2309.00071, section 3, with
 * the constants of whlzy/FiT.
 */
const frequencies: Readonly<Record<RotaryStretch, (axis: Axis) => number[]>> = {
  none: plain,
  linear,
  ntk,
  ntkRoot: ntk,
  ntkRootArea: ntk,
  ntkByParts: (axis) =>
    blend(plain(axis), blend(ntk(axis), linear(axis), ramp(axis, 1.25, 0.75)), ramp(axis, 16, 2)),
  yarn: (axis) => blend(plain(axis), linear(axis), ramp(axis, 32, 1)),
};

const rootOfLogs = (tested: number, trained: number): number =>
  (2 * tested) / trained <= 1 ? 1 : Math.sqrt(Math.log(2 * tested) / Math.log(trained));

type Magnitude = (grid: readonly [number, number], trained: number) => number;
const unit: Magnitude = () => 1;

/** Factor of the rotated vectors, which compensates for more tokens: Lu et al. 2024, arXiv:2402.12376. */
const magnitudes: Readonly<Record<RotaryStretch, Magnitude>> = {
  none: unit,
  linear: unit,
  ntk: unit,
  ntkRoot: ([h, w], trained) => rootOfLogs(Math.max(h, w), trained),
  ntkRootArea: ([h, w], trained) => rootOfLogs(h * w, trained ** 2),
  ntkByParts: unit,
  yarn: ([h, w], trained) => 0.1 * Math.log(Math.max(h, w, trained) / trained) + 1,
};

type Wave = (angle: number) => number;

/** (size, width / 4) of cosines or sines of one axis. */
function axisTable(t: Trace, size: number, turns: readonly number[], wave: Wave): Tensor {
  const rows = Array.from({ length: size }, (_, place) => turns.map((f) => wave(place * f)));
  return t.constant(rows.flat(), [size, turns.length]);
}

function turnsOf(options: RotaryOptions, grid: readonly [number, number]): [number[], number[]] {
  const { width, theta = 10000, stretch = "none", trainedSide = 1, decouple = false } = options;
  const [rows, columns] = grid.map((size) =>
    frequencies[stretch]({
      count: width / 4,
      theta,
      trained: trainedSide,
      scale: Math.max(1, (decouple ? size : Math.max(...grid)) / trainedSide),
    }),
  );
  return [rows!, columns!];
}

/** The rotation of every token of a grid of rows and columns, row by row: (h w, width / 2). */
export function gridRotation(
  t: Trace,
  grid: readonly [number, number],
  options: RotaryOptions,
): Rotation {
  const [rowTurns, columnTurns] = turnsOf(options, grid);
  const factor = magnitudes[options.stretch ?? "none"](grid, options.trainedSide ?? 1);
  const table = (wave: Wave): Tensor => {
    const scaled: Wave = (angle) => wave(angle) * factor;
    return joinAxes(
      axisTable(t, grid[0], rowTurns, scaled),
      axisTable(t, grid[1], columnTurns, scaled),
      "row",
    );
  };
  return { cos: table(Math.cos), sin: table(Math.sin) };
}

/**
 * The rotation of tokens whose places are known only when the program runs: rows and columns i32
 * (B, N) below `side` -> (B, N, width / 2). Without a stretch.
 */
export function placeRotation(
  rows: Tensor,
  columns: Tensor,
  side: number,
  options: RotaryOptions,
): Rotation {
  const [turns] = turnsOf({ ...options, stretch: "none" }, [side, side]);
  const table = (wave: Wave): Tensor => {
    const all = axisTable(rows.trace, side, turns, wave);
    return concat([all.gather(rows, 0), all.gather(columns, 0)], 2);
  };
  return { cos: table(Math.cos), sin: table(Math.sin) };
}

/** Turns the pairs (2 i, 2 i + 1) of (B, N, heads, width). */
export function rotate(x: Tensor, { cos, sin }: Rotation): Tensor {
  const [B, N, heads, width] = x.shape as [number, number, number, number];
  const [even, odd] = unstack(x.reshape([B, N, heads, width / 2, 2]), 4) as [Tensor, Tensor];
  const everyHead = (table: Tensor): Tensor =>
    table.reshape([...table.shape.slice(0, -1), 1, width / 2]);
  const [c, s] = [everyHead(cos), everyHead(sin)];
  return stack([even.mul(c).sub(odd.mul(s)), odd.mul(c).add(even.mul(s))], 4).reshape(x.shape);
}
