// DPM-Solver of up to third order by further evaluations within a step, on the noise that the network
// sees. Source: Lu et al. 2022 (DPM-Solver), arXiv:2206.00927, algorithms 1, 2 and "fast" of section 3.4;
// ancestral form as sample_dpm_fast of crowsonkb/k-diffusion.
import { checkOptions, DiffusionError } from "../errors.js";
import type { Level, LevelLine } from "../processes/gaussian-levels.js";
import { ancestralTarget } from "./ancestral.js";
import type { AncestralOptions } from "./ancestral.js";
import { pairwisePlan } from "./continuous.js";
import type { Evaluation } from "./continuous.js";
import { bareState, checkWeights, completed, expectLine, firstOrder, ratioOf, scaled, slopeOf, slot, sum } from "./solver.js"; // prettier-ignore
import type { Solver } from "./solver.js";

export type DpmOrder = 1 | 2 | 3;

/** Where x / a is after an evaluation: the start of the step plus weights times two noises. */
export interface DpmStage {
  /** c / a there. */
  ratio: number;
  /** Of the noise at the start of the step. */
  first: number;
  /** Of what the newest noise adds to it. */
  change: number;
}

/** Stages of a step from one c / a to another; `middle` is the share of log c / a of the first. */
export function dpmStages(
  from: number,
  to: number,
  order: DpmOrder,
  middle = order === 2 ? 1 / 2 : 1 / 3,
): DpmStage[] {
  const h = Math.log(from / to);
  const at = (share: number): number => from * Math.exp(-share * h);
  const straight = (ratio: number): DpmStage => ({ ratio, first: ratio - from, change: 0 });
  // expm1(h) / h - 1 times c / a, with the sign of x falling along the noise
  const bend = (share: number, ratio: number): number => -ratio * (Math.expm1(share * h) / (share * h) - 1); // prettier-ignore
  if (order === 1) return [straight(to)];
  const early = straight(at(middle));
  if (order === 2) return [early, { ...straight(to), change: (to - from) / (2 * middle) }];
  const late = 2 / 3;
  return [
    early,
    { ...straight(at(late)), change: (late / middle) * bend(late, at(late)) },
    { ...straight(to), change: bend(1, to) / late },
  ];
}

export interface DpmSolver3sOptions extends AncestralOptions {
  /** Share of fresh noise; default 0. */
  eta?: number;
  /** Order of each step; default 3 for all. `fastOrders` spends a number of evaluations. */
  orders?: readonly DpmOrder[];
}

/**
 * Orders of the steps that take just so many evaluations: third order, and less at the end. For
 * levels even in log c / a, one more than there are orders. Throws "option" for none.
 */
export function fastOrders(evaluations: number): DpmOrder[] {
  if (!Number.isInteger(evaluations) || evaluations < 1)
    throw new DiffusionError("option", `fastOrders: expected evaluations from 1, got ${evaluations}`); // prettier-ignore
  const full = Math.floor(evaluations / 3);
  const rest = (evaluations % 3) as 0 | 1 | 2;
  const thirds = (count: number): DpmOrder[] => Array.from({ length: count }, () => 3);
  return rest === 0 ? [...thirds(full - 1), 2, 1] : [...thirds(full), rest];
}

/** Slots of x / a and of the noise at the start of a step. */
const kStart = 1;
const kNoise = 2;

interface DpmStep {
  from: Level;
  to: Level;
  order: DpmOrder;
  /** c / a of the last level. */
  lowest: number;
}

function singleStep(
  { from, to, order, lowest }: DpmStep,
  options: AncestralOptions,
  line: LevelLine | undefined,
): Evaluation[] {
  const { ratio, complete } = ancestralTarget(from, to, options, lowest);
  if (ratio === 0 || from.a === 0)
    return [{ level: from, after: [complete(firstOrder(from, to, ratio)), {}, {}] }];
  const start = bareState(from, 1 / from.a);
  let level = from;
  return dpmStages(ratioOf(from), ratio, order).map((stage, i, { length }) => {
    const next = i + 1 === length ? to : expectLine("dpmSolver3s", line).ofRatio(stage.ratio);
    const moved =
      i === 0
        ? sum(start, slopeOf(level, stage.first))
        : sum(slot(kStart), slot(kNoise, stage.first - stage.change), slopeOf(level, stage.change));
    const end = i + 1 === length ? complete(scaled(to.a, moved)) : completed(next, scaled(next.a, moved)); // prettier-ignore
    const kept = i === 0 ? [start, slopeOf(from)] : [slot(kStart), slot(kNoise)];
    const evaluation = { level, after: [end, ...kept] };
    level = next;
    return evaluation;
  });
}

/** Order 3, or the lowest of `orders`; a step to clean data is of first order. Needs the line. */
export function dpmSolver3s(options: DpmSolver3sOptions = {}): Solver {
  checkOptions("dpmSolver3s", options, ["eta", "noiseScale", "orders"]);
  const { eta = 0, noiseScale = 1, orders } = options;
  checkWeights("dpmSolver3s", { eta, noiseScale });
  const wrong = orders?.find((order) => ![1, 2, 3].includes(order));
  if (wrong !== undefined)
    throw new DiffusionError("option", `dpmSolver3s: expected orders from 1 to 3, got ${wrong}`);
  const order = orders ? (Math.min(...orders) as DpmOrder) : 3;
  return {
    name: "dpm-solver-3s",
    order,
    evaluations: order,
    isStochastic: eta > 0,
    source: "Lu et al. 2022, arXiv:2206.00927",
    plan: (levels, line) => {
      if (orders && orders.length !== levels.length - 1)
        throw new DiffusionError(
          "option",
          `dpmSolver3s: expected ${levels.length - 1} orders, one a step, got ${orders.length}`,
        );
      const lowest = ratioOf(levels.at(-1)!);
      return pairwisePlan("dpmSolver3s", levels, 3, (from, to, i) =>
        singleStep({ from, to, order: orders?.[i] ?? 3, lowest }, { eta, noiseScale }, line),
      );
    },
  };
}
