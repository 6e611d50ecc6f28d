// Mask-and-replace schedules in float64: cumulative and per-step probabilities, the log buffers of
// checkpoints, and the coefficients of a pair of levels. Source: Gu et al. 2021, arXiv:2111.14822;
// defaults of microsoft/VQ-Diffusion.
import { DiffusionError, checkOptions } from "../errors.js";
import { coefficientNames } from "../trace/decompose-tokens.js";

export type MaskReplacePreset = "released" | "paper90";

/** First and last cumulative probabilities: of keeping a token (abar) and of masking it (cbar). */
export interface MaskReplaceEndpoints {
  abarFirst: number;
  abarLast: number;
  cbarFirst: number;
  cbarLast: number;
}

export interface MaskReplaceOptions {
  /** Codebook entries; token ids are 0 … codes-1 and the mask is `codes`. */
  codes: number;
  /** Length of the chain; default 100. */
  timesteps?: number;
  /** Default "released"; ignored when endpoints or cumulative arrays are given. */
  preset?: MaskReplacePreset;
  /** Linear cumulative arrays between these ends. */
  endpoints?: MaskReplaceEndpoints;
  /** Tabulated cumulative arrays, entry i for level i. */
  cumulative?: { abar: readonly number[]; cbar: readonly number[] };
}

/** Level -1 is clean data: entry T of the cumulative arrays, as in the reference. */
export interface MaskReplaceSchedule {
  readonly codes: number;
  readonly timesteps: number;
  /** Per step, T entries. */
  readonly a: Float64Array;
  readonly b: Float64Array;
  readonly c: Float64Array;
  /** Cumulative, T + 1 entries. */
  readonly abar: Float64Array;
  readonly bbar: Float64Array;
  readonly cbar: Float64Array;
}

/**
 * "released": what the published checkpoints hold; K bbar = 1e-6 at every level, so it is mask-only
 * in practice. "paper90": the schedule of the paper's text, mask rate 0.9 and replacement 0.1 at
 * the end.
 */
export const maskReplacePresets: Readonly<Record<MaskReplacePreset, MaskReplaceEndpoints>> = {
  released: { abarFirst: 0.99999, abarLast: 9e-6, cbarFirst: 9e-6, cbarLast: 0.99999 },
  paper90: { abarFirst: 0.99999, abarLast: 9e-6, cbarFirst: 9e-6, cbarLast: 0.9 },
};

/** Rounding of float64 arithmetic may leave a zero slightly negative. */
const kSlack = 1e-12;

/** The absorbing token of a codebook with `codes` entries. */
export const maskToken = (codes: number): number => codes;

const linear = (first: number, last: number, count: number): Float64Array =>
  Float64Array.from({ length: count }, (_, i) =>
    count === 1 ? first : first + (i / (count - 1)) * (last - first),
  );

function cumulativeArrays(options: MaskReplaceOptions): { abar: Float64Array; cbar: Float64Array } {
  if (options.cumulative) {
    const { abar, cbar } = options.cumulative;
    if (abar.length !== cbar.length || abar.length === 0) {
      throw new DiffusionError(
        "option",
        `maskReplaceSchedule: expected cumulative arrays of one equal length, got ${abar.length} and ${cbar.length}`,
      );
    }
    return { abar: Float64Array.from(abar), cbar: Float64Array.from(cbar) };
  }
  const { timesteps = 100, preset = "released" } = options;
  if (!Number.isInteger(timesteps) || timesteps < 1) {
    throw new DiffusionError(
      "option",
      `maskReplaceSchedule: expected timesteps >= 1, got ${timesteps}`,
    );
  }
  const ends = options.endpoints ?? maskReplacePresets[preset];
  if (!ends) {
    const known = Object.keys(maskReplacePresets).join(", ");
    throw new DiffusionError(
      "option",
      `maskReplaceSchedule: expected preset of ${known}, got ${preset}`,
    );
  }
  return {
    abar: linear(ends.abarFirst, ends.abarLast, timesteps),
    cbar: linear(ends.cbarFirst, ends.cbarLast, timesteps),
  };
}

const withClean = (values: Float64Array, clean: number): Float64Array =>
  Float64Array.of(...values, clean);

/**
 * Gu et al. 2021, arXiv:2111.14822, section 4.1: abar_t = prod a_i, cbar_t = 1 - prod (1 - c_i),
 * bbar_t = (1 - abar_t - cbar_t) / K. Differs: built from the cumulative arrays, as
 * microsoft/VQ-Diffusion diffusion_transformer.py does.
 */
export function maskReplaceSchedule(options: MaskReplaceOptions): MaskReplaceSchedule {
  checkOptions("maskReplaceSchedule", options, [
    "codes",
    "timesteps",
    "preset",
    "endpoints",
    "cumulative",
  ]);
  const { codes } = options;
  if (!Number.isInteger(codes) || codes < 1) {
    throw new DiffusionError("option", `maskReplaceSchedule: expected codes >= 1, got ${codes}`);
  }
  const { abar, cbar } = cumulativeArrays(options);
  const timesteps = abar.length;
  const bbar = abar.map((keep, i) => (1 - keep - cbar[i]!) / codes);
  const a = abar.map((keep, i) => keep / (i === 0 ? 1 : abar[i - 1]!));
  const c = cbar.map((mask, i) => 1 - (1 - mask) / (1 - (i === 0 ? 0 : cbar[i - 1]!)));
  const b = a.map((keep, i) => (1 - keep - c[i]!) / codes);
  const schedule = {
    codes,
    timesteps,
    a,
    b,
    c,
    abar: withClean(abar, 1),
    bbar: withClean(bbar, 0),
    cbar: withClean(cbar, 0),
  };
  checkProbabilities(schedule);
  return schedule;
}

function checkProbabilities(schedule: MaskReplaceSchedule): void {
  for (const name of ["a", "b", "c", "abar", "bbar", "cbar"] as const) {
    const at = schedule[name].findIndex((p) => !(p >= -kSlack && p <= 1 + kSlack));
    if (at < 0) continue;
    throw new DiffusionError(
      "option",
      `maskReplaceSchedule: expected ${name}[${at}] in [0, 1], got ${schedule[name][at]}; keep abar falling, cbar rising and abar + cbar <= 1`,
    );
  }
}

/** Cumulative probabilities at level t; t = -1 is clean data. */
export function cumulativeAt(
  schedule: MaskReplaceSchedule,
  t: number,
): { abar: number; bbar: number; cbar: number } {
  if (!Number.isInteger(t) || t < -1 || t >= schedule.timesteps) {
    throw new DiffusionError(
      "option",
      `schedule: expected a level from -1 to ${schedule.timesteps - 1}, got ${t}`,
    );
  }
  const i = t < 0 ? schedule.timesteps : t;
  return { abar: schedule.abar[i]!, bbar: schedule.bbar[i]!, cbar: schedule.cbar[i]! };
}

export { coefficientNames };

export type PairCoefficients = [
  abarT: number,
  bbarT: number,
  cbarT: number,
  abarS: number,
  bbarS: number,
  cbarS: number,
  aTS: number,
  bTS: number,
  cTS: number,
];

/**
 * Coefficients of the pair (t, s), -1 <= s < t: a_{t|s} = abar_t / abar_s, c_{t|s} = 1 - (1 -
 * cbar_t) / (1 - cbar_s), b_{t|s} = (1 - a_{t|s} - c_{t|s}) / K. With s = t - 1 these are the
 * per-step probabilities.
 */
export function pairCoefficients(
  schedule: MaskReplaceSchedule,
  t: number,
  s: number,
): PairCoefficients {
  if (s >= t)
    throw new DiffusionError("option", `schedule: expected s < t, got t = ${t} and s = ${s}`);
  const now = cumulativeAt(schedule, t);
  const to = cumulativeAt(schedule, s);
  const oneStep = s === t - 1;
  const a = oneStep ? schedule.a[t]! : now.abar / to.abar;
  const c = oneStep ? schedule.c[t]! : 1 - (1 - now.cbar) / (1 - to.cbar);
  const b = oneStep ? schedule.b[t]! : Math.max(0, (1 - a - c) / schedule.codes);
  return [now.abar, now.bbar, now.cbar, to.abar, to.bbar, to.cbar, a, b, c];
}

/** Rows of pairCoefficients, one a sample: (B, 9). */
export const coefficientTable = (
  schedule: MaskReplaceSchedule,
  levels: readonly { t: number; s: number }[],
): Float32Array =>
  Float32Array.from(levels.flatMap(({ t, s }) => pairCoefficients(schedule, t, s)));

/** log(1 - exp(x)) with the guard of the reference. */
const log1mExp = (x: number): number => Math.log(1 - Math.exp(x) + 1e-40);

export type LogBufferName =
  | "log_at"
  | "log_bt"
  | "log_ct"
  | "log_cumprod_at"
  | "log_cumprod_bt"
  | "log_cumprod_ct"
  | "log_1_min_ct"
  | "log_1_min_cumprod_ct";

/**
 * The log arrays that microsoft checkpoints carry as buffers, in float64. The cumulative ones have
 * T + 1 entries and hold -Infinity where the probability is zero.
 */
export function logBuffers(schedule: MaskReplaceSchedule): Record<LogBufferName, Float64Array> {
  const log = (values: Float64Array): Float64Array => values.map(Math.log);
  const ct = log(schedule.c);
  const cumprodCt = log(schedule.cbar);
  return {
    log_at: log(schedule.a),
    log_bt: log(schedule.b),
    log_ct: ct,
    log_cumprod_at: log(schedule.abar),
    log_cumprod_bt: log(schedule.bbar),
    log_cumprod_ct: cumprodCt,
    log_1_min_ct: ct.map(log1mExp),
    log_1_min_cumprod_ct: cumprodCt.map(log1mExp),
  };
}
