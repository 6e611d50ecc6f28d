// What solvers of the diffusion equations share: sums of coefficients, and the exact first-order step.
// All of them see the state without its pair y, as x = a x0 + c n, and put the pair back at the end.
import { DiffusionError } from "../errors.js";
import type { Level, LevelLine } from "../processes/gaussian-levels.js";
import type { Combination, ContinuousSampler } from "./continuous.js";

/** A sampler with its properties; `samplers` lists all of them. */
export interface Solver extends ContinuousSampler {
  /**
   * Order of convergence in the number of steps, of the samples, or of their mean and variance when
   * noise is added; measured in tests.
   */
  readonly order: number;
  /** Network evaluations of a step in the middle of a run. */
  readonly evaluations: number;
  /** Whether fresh noise is added with the options it was made with. */
  readonly isStochastic: boolean;
  /** Authors, year, arXiv number. */
  readonly source: string;
}

/** Noise-to-signal ratio c / a; infinite at pure noise, 0 at clean data. */
export const ratioOf = ({ a, c }: Level): number => c / a;

/** Half the log signal-to-noise ratio, ln(a / c). */
export const logSnr = ({ a, c }: Level): number => Math.log(a / c);

const kTerms = ["x0", "eps", "pair", "noise", "spread", "output"] as const;

/** Sum of combinations. */
export function sum(...parts: readonly Combination[]): Combination {
  const total: { -readonly [K in keyof Combination]: Combination[K] } = {};
  for (const term of kTerms) {
    const value = parts.reduce((all, part) => all + (part[term] ?? 0), 0);
    if (value !== 0) total[term] = value;
  }
  const length = Math.max(...parts.map(({ slots = [] }) => slots.length));
  total.slots = Array.from({ length }, (_, i) =>
    parts.reduce((all, { slots = [] }) => all + (slots[i] ?? 0), 0),
  );
  return total;
}

/** A combination times a number. */
export function scaled(factor: number, part: Combination): Combination {
  const terms = kTerms.filter((term) => part[term]).map((term) => [term, factor * part[term]!]);
  return { ...Object.fromEntries(terms), slots: (part.slots ?? []).map((w) => factor * w) };
}

/** A slot as it is. */
export const slot = (index: number, weight = 1): Combination => ({
  slots: Array.from({ length: index + 1 }, (_, i) => (i === index ? weight : 0)),
});

/** The state in slot 0 without its pair: a x0 + c n. */
export const bareState = ({ b }: Level, weight = 1): Combination => ({
  slots: [weight],
  pair: -weight * b,
});

/**
 * The noise that goes with the state in slot 0 and the network's x0, after any clamping of it: the
 * slope of x / a in c / a.
 */
export const slopeOf = (level: Level, weight = 1): Combination =>
  level.c === 0
    ? { eps: weight }
    : sum(bareState(level, weight / level.c), { x0: (-weight * level.a) / level.c });

/** The pair that belongs to a state at a level. */
export const pairOf = ({ b }: Level): Combination => (b === 0 ? {} : { pair: b });

/**
 * Exact for a constant x0 or, the same, a constant noise: arXiv:2010.02502, eq. 12, which is
 * arXiv:2211.01095, eq. 9 and Euler's step in c / a. `ratio` takes the place of the target's c / a.
 */
export function firstOrder(from: Level, to: Level, ratio = ratioOf(to)): Combination {
  const c = to.a === 0 ? to.c : ratio * to.a;
  if (from.c === 0) return { x0: to.a, eps: c };
  return sum(bareState(from, c / from.c), { x0: to.a - (from.a * c) / from.c });
}

/** A bare state at a level with its pair. */
export const completed = (to: Level, ...parts: readonly Combination[]): Combination =>
  sum(...parts, pairOf(to));

/** The line, or "option" when a solver was not given one. */
export function expectLine(where: string, line: LevelLine | undefined): LevelLine {
  if (line) return line;
  throw new DiffusionError(
    "option",
    `${where}: expected the levels between those of the list, got none; pass the process's line as second argument of plan`,
  );
}

/** Throws "option" unless each value is at least 0. */
export function checkWeights(where: string, values: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(values)) {
    if (value >= 0) continue;
    throw new DiffusionError("option", `${where}: expected ${name} of at least 0, got ${value}`);
  }
}
