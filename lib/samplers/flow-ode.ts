// The probability flow of an interpolant by explicit Runge-Kutta steps in its time. Source: Ma et al.
// 2024 (SiT), arXiv:2401.08740, section 2.2; Lipman et al. 2022, arXiv:2210.02747. Rising levels run the
// flow backwards, from data to noise.
import { checkChoice, checkOptions } from "../errors.js";
import type { Level, LevelLine } from "../processes/gaussian-levels.js";
import { explicitMethods } from "./butcher.js";
import type { AdaptiveMethod, ButcherTable, FixedMethod } from "./butcher.js";
import { pairwisePlan } from "./continuous.js";
import type { Combination, Evaluation } from "./continuous.js";
import { timeStep, velocityOf } from "./flow.js";
import { expectLine, slot, sum } from "./solver.js";
import type { Solver } from "./solver.js";

export interface FlowOdeOptions {
  /** Default "heun2"; the names of `adaptiveFlow` take steps of fixed size here. */
  method?: FixedMethod | AdaptiveMethod;
}

/** Slot of the state at the start of a step, and of the first slope. */
export const kStart = 1;
const kSlopes = 2;

/** Level at a share of the step. */
function stageLevel(from: Level, to: Level, place: number, line: LevelLine | undefined): Level {
  if (place === 0) return from;
  if (place === 1) return to;
  return expectLine("flowOde", line).ofTime(from.time + place * (to.time - from.time));
}

/** One evaluation for each stage; slopes are kept until the last. */
export function rungeKuttaStep(
  table: ButcherTable,
  from: Level,
  to: Level,
  line: LevelLine | undefined,
): Evaluation[] {
  const dt = timeStep("flowOde", from, to);
  const count = table.places.length;
  return table.places.map((place, stage) => {
    const level = stageLevel(from, to, place, line);
    const weights = stage + 1 === count ? table.weights : table.stages[stage]!;
    const start = stage === 0 ? slot(0) : slot(kStart);
    const earlier = Array.from({ length: stage }, (_, k) => slot(kSlopes + k, dt * weights[k]!));
    const next = sum(start, ...earlier, velocityOf("flowOde", level, dt * weights[stage]!));
    const kept: Combination[] = Array.from({ length: count - 1 }, (_, k) =>
      k === stage ? velocityOf("flowOde", level) : slot(kSlopes + k),
    );
    return { level, after: count === 1 ? [next] : [next, start, ...kept] };
  });
}

/** The order is that of the method. Stages within a step need the line of levels. */
export function flowOde(options: FlowOdeOptions = {}): Solver {
  checkOptions("flowOde", options, ["method"]);
  const { method = "heun2" } = options;
  const names = Object.keys(explicitMethods) as (keyof typeof explicitMethods)[];
  const table = explicitMethods[checkChoice("flowOde", "a method", method, names)];
  const evaluations = table.places.length;
  return {
    name: `flow-${method}`,
    order: table.order,
    evaluations,
    isStochastic: false,
    source: "Ma et al. 2024, arXiv:2401.08740",
    plan: (levels, line) =>
      pairwisePlan(
        "flowOde",
        levels,
        evaluations === 1 ? 1 : kSlopes + evaluations - 1,
        (from, to) => rungeKuttaStep(table, from, to, line),
      ),
  };
}
