// UniPC: a multistep predictor, and a corrector that redoes the step before with the x0 that the
// predicted state gave, without a further evaluation. Source: Zhao et al. 2023, arXiv:2302.04867,
// algorithms 1-2 and section 3.3 in data prediction.
import { checkChoice, checkOptions, DiffusionError } from "../errors.js";
import type { Level } from "../processes/gaussian-levels.js";
import { levelPairs } from "./continuous.js";
import type { Combination, Evaluation } from "./continuous.js";
import { bareState, completed, firstOrder, logSnr, scaled, slot, sum } from "./solver.js";
import type { Solver } from "./solver.js";

export interface UnipcOptions {
  /** Order of the predictor, 1 … 4; default 2. The corrector adds one. */
  order?: number;
  /** B(h) of the paper: "bh1" is h, "bh2" (default) e^h - 1. */
  variant?: "bh1" | "bh2";
  /** Lowers the order towards the end of the run, down to 1 in the last step; default true. */
  lowerOrderFinal?: boolean;
  /** Steps without corrector, from 0; default none. */
  uncorrected?: readonly number[];
}

/** Slot of the corrected state at the start of the step before, and of the first earlier x0. */
const kStart = 1;
const kEarlier = 2;

/** Solves a small linear system by Gaussian elimination with pivoting. */
function solve(rows: readonly (readonly number[])[], right: readonly number[]): number[] {
  const size = right.length;
  const m = rows.map((row, i) => [...row, right[i]!]);
  for (let k = 0; k < size; ++k) {
    const pivot = m.reduce((best, row, i) => i >= k && Math.abs(row[k]!) > Math.abs(m[best]![k]!) ? i : best, k); // prettier-ignore
    [m[k], m[pivot]] = [m[pivot]!, m[k]!];
    for (let i = 0; i < size; ++i) {
      if (i === k) continue;
      const factor = m[i]![k]! / m[k]![k]!;
      m[i] = m[i]!.map((value, j) => value - factor * m[k]![j]!);
    }
  }
  return m.map((row, i) => row[size]! / row[i]!);
}

/** b_i of arXiv:2302.04867, eq. 5, for data prediction: i! h phi_{i+1}(h) / B, at -h. */
function moments(h: number, B: number, count: number): number[] {
  const out: number[] = [];
  let phi = Math.expm1(-h) / -h - 1;
  let factorial = 1;
  for (let i = 1; i <= count; ++i) {
    factorial *= i;
    out.push((phi * factorial) / B);
    phi = phi / -h - 1 / (factorial * (i + 1));
  }
  return out;
}

/** Factors of the differences D_k = (m_k - m_0) / r_k at places `r`, times the weight of B. */
function differenceWeights(h: number, r: readonly number[], variant: "bh1" | "bh2"): number[] {
  const B = variant === "bh1" ? -h : Math.expm1(-h);
  // a single point: arXiv:2302.04867 sets 1/2, whatever B
  if (r.length === 1) return [B / 2];
  const rows = r.map((_, i) => r.map((place) => place ** i));
  return solve(rows, moments(h, B, r.length)).map((rho) => B * rho);
}

/** Levels of a run around step i, and the order in use there. */
interface Around {
  /** Level at the start of the step and those before it. */
  history: readonly Level[];
  to: Level;
  order: number;
}

/** Places of the earlier levels in units of the step. */
const placesOf = ({ history, to, order }: Around): number[] => {
  const [here, ...earlier] = history.map(logSnr);
  const h = logSnr(to) - here!;
  return earlier.slice(0, order - 1).map((level) => (level - here!) / h);
};

/**
 * The step without its differences and with those: x' = (c'/c) x - a' (e^-h - 1) m_0 - a' sum of
 * weights D_k; `x`, `now` and `points` are combinations that hold the state, m_0 and the m_k.
 */
function predicted(
  { history, to }: Around,
  x: Combination,
  now: Combination,
  weighted: readonly { weight: number; place: number; point: Combination }[],
): Combination {
  const from = history[0]!;
  const h = logSnr(to) - logSnr(from);
  const differences = weighted.map(({ weight, place, point }) =>
    scaled((-to.a * weight) / place, sum(point, scaled(-1, now))),
  );
  return sum(scaled(to.c / from.c, x), scaled(-to.a * Math.expm1(-h), now), ...differences);
}

/** The bare state at the end of the step before, redone with the x0 found there. */
function corrected(around: Around, variant: "bh1" | "bh2"): Combination {
  const { history, to } = around;
  const h = logSnr(to) - logSnr(history[0]!);
  const places = [...placesOf(around), 1];
  const weights = differenceWeights(h, places, variant);
  const points = [...places.slice(1).map((_, k) => slot(kEarlier + 1 + k)), { x0: 1 }];
  const weighted = points.map((point, k) => ({ weight: weights[k]!, place: places[k]!, point }));
  return predicted(around, slot(kStart), slot(kEarlier), weighted);
}

/** The bare state after the step, from the corrected one. */
function advanced(around: Around, x: Combination, variant: "bh1" | "bh2"): Combination {
  const places = placesOf(around);
  if (places.length === 0) return predicted(around, x, { x0: 1 }, []);
  const h = logSnr(around.to) - logSnr(around.history[0]!);
  const weights = differenceWeights(h, places, variant);
  const weighted = places.map((place, k) => ({
    weight: weights[k]!,
    place,
    point: slot(kEarlier + k),
  }));
  return predicted(around, x, { x0: 1 }, weighted);
}

/** Order of each step: it grows from 1, may fall at the end, and needs finite levels. */
function ordersOf(levels: readonly Level[], highest: number, lowerOrderFinal: boolean): number[] {
  const steps = levels.length - 1;
  const noisy = levels[0]!.a === 0 ? 1 : 0;
  return Array.from({ length: steps }, (_, i) =>
    Math.max(1, Math.min(highest, i + 1 - noisy, lowerOrderFinal ? steps - i : highest)),
  );
}

/** Order `order` + 1. */
export function unipc(options: UnipcOptions = {}): Solver {
  checkOptions("unipc", options, ["order", "variant", "lowerOrderFinal", "uncorrected"]);
  const { order = 2, variant = "bh2", lowerOrderFinal = true, uncorrected = [] } = options;
  checkChoice("unipc", "a variant", variant, ["bh1", "bh2"]);
  if (!Number.isInteger(order) || order < 1 || order > 4)
    throw new DiffusionError("option", `unipc: expected order from 1 to 4, got ${order}`);
  const stepOf = (levels: readonly Level[], orders: readonly number[], i: number): Evaluation => {
    const [from, to] = [levels[i]!, levels[i + 1]!];
    const historyOf = (step: number): Level[] => levels.slice(0, step + 1).reverse();
    const before = levels[i - 1];
    const redoes = before !== undefined && before.a !== 0 && !uncorrected.includes(i - 1);
    const x = redoes
      ? corrected({ history: historyOf(i - 1), to: from, order: orders[i - 1]! }, variant)
      : bareState(from);
    const around = { history: historyOf(i), to, order: orders[i]! };
    const next =
      to.c === 0 || from.a === 0
        ? firstOrder(from, to)
        : completed(to, advanced(around, x, variant));
    const earlier = Array.from({ length: order }, (_, k) =>
      k === 0 ? { x0: 1 } : slot(kEarlier + k - 1),
    );
    return { level: from, after: [next, x, ...earlier] };
  };
  return {
    name: "unipc",
    order: order + 1,
    evaluations: 1,
    isStochastic: false,
    source: "Zhao et al. 2023, arXiv:2302.04867",
    plan: (levels) => {
      const orders = ordersOf(levels, order, lowerOrderFinal);
      const steps = levelPairs("unipc", levels).map(([from, to], i) => ({
        t: from.time,
        s: to.time,
        evaluations: [stepOf(levels, orders, i)],
      }));
      return { slots: kEarlier + order, first: levels[0]!, steps };
    },
  };
}
