// Pseudo numerical methods: Adams-Bashforth weights for the predicted noise on an even grid of
// timesteps, moved by the exact step for a constant noise. Source: Liu et al. 2022 (PNDM),
// arXiv:2202.09778, eq. 11-13; start without further evaluations as PLMS of CompVis/latent-diffusion.
import { checkChoice, checkOptions } from "../errors.js";
import type { Level, LevelLine } from "../processes/gaussian-levels.js";
import { pairwisePlan } from "./continuous.js";
import type { Combination, Evaluation } from "./continuous.js";
import { completed, expectLine, scaled, slot, sum } from "./solver.js";
import type { Solver } from "./solver.js";

export interface PndmOptions {
  /**
   * "multistep" (default): the first step in two evaluations, then orders 2 and 3; "runge-kutta": the
   * first three steps in four evaluations each, which needs the line of levels.
   */
  start?: "multistep" | "runge-kutta";
}

/** Slots of the earlier noises, of the state at the start of a step and of a sum of noises. */
const kEarlier = 1;
const kStart = 4;
const kTotal = 5;
const kSlots = 6;

/** Factors of the noise here and at earlier levels, by how many are known; arXiv:2202.09778, eq. 12. */
const kWeights = [
  [1],
  [3 / 2, -1 / 2],
  [23 / 12, -16 / 12, 5 / 12],
  [55 / 24, -59 / 24, 37 / 24, -9 / 24],
] as const;

/**
 * Exact for a constant noise: arXiv:2202.09778, eq. 11. `x` holds the bare state at `from`, `eps` the
 * noise.
 */
const transfer = (from: Level, to: Level, x: Combination, eps: Combination): Combination =>
  completed(to, scaled(to.a / from.a, x), scaled(to.c - (to.a * from.c) / from.a, eps));

const bare = ({ b }: Level): Combination => (b === 0 ? slot(0) : { slots: [1], pair: -b });

const noise: Combination = { eps: 1 };

/** All slots after an evaluation: the state, and what else changes. */
const slotsOf = (x: Combination, changed: Readonly<Record<number, Combination>>): Combination[] =>
  Array.from({ length: kSlots }, (_, i) => (i === 0 ? x : (changed[i] ?? slot(i))));

/** The noise of this level becomes the newest of the earlier ones. */
const remembered = { [kEarlier]: noise, [kEarlier + 1]: slot(kEarlier), [kEarlier + 2]: slot(kEarlier + 1) }; // prettier-ignore

function multistep(from: Level, to: Level, known: number): Evaluation[] {
  const [here, ...earlier] = kWeights[known]!;
  const eps = sum({ eps: here }, ...earlier.map((weight, i) => slot(kEarlier + i, weight)));
  return [{ level: from, after: slotsOf(transfer(from, to, bare(from), eps), remembered) }];
}

/** A step, then the same step with the mean of the noises at both ends. */
function improvedStep(from: Level, to: Level): Evaluation[] {
  const mean = sum({ eps: 1 / 2 }, slot(kEarlier, 1 / 2));
  return [
    {
      level: from,
      after: slotsOf(transfer(from, to, bare(from), noise), {
        ...remembered,
        [kStart]: bare(from),
      }),
    },
    { level: to, after: slotsOf(transfer(from, to, slot(kStart), mean), {}) },
  ];
}

/** The classical fourth-order step with the transfer in place of the sum; arXiv:2202.09778, eq. 13. */
function rungeKutta(from: Level, to: Level, line: LevelLine): Evaluation[] {
  const middle = line.ofTime((from.time + to.time) / 2);
  const start = slot(kStart);
  const grow = (weight: number): Combination => sum(slot(kTotal), { eps: weight });
  const total = sum(slot(kTotal), { eps: 1 / 6 });
  return [
    {
      level: from,
      after: slotsOf(transfer(from, middle, bare(from), noise), {
        ...remembered,
        [kStart]: bare(from),
        [kTotal]: { eps: 1 / 6 },
      }),
    },
    {
      level: middle,
      after: slotsOf(transfer(from, middle, start, noise), { [kTotal]: grow(1 / 3) }),
    },
    { level: middle, after: slotsOf(transfer(from, to, start, noise), { [kTotal]: grow(1 / 3) }) },
    { level: to, after: slotsOf(transfer(from, to, start, total), {}) },
  ];
}

/** Order 2, for levels whose timesteps are evenly spread. */
export function pndm(options: PndmOptions = {}): Solver {
  checkOptions("pndm", options, ["start"]);
  const { start = "multistep" } = options;
  checkChoice("pndm", "a start", start, ["multistep", "runge-kutta"]);
  return {
    name: "pndm",
    order: 2,
    evaluations: 1,
    isStochastic: false,
    source: "Liu et al. 2022, arXiv:2202.09778",
    plan: (levels, line) =>
      pairwisePlan("pndm", levels, kSlots, (from, to, i) => {
        if (start === "runge-kutta" && i < 3 && to.c !== 0)
          return rungeKutta(from, to, expectLine("pndm", line));
        if (i === 0 && to.c !== 0) return improvedStep(from, to);
        return multistep(from, to, Math.min(i, kWeights.length - 1));
      }),
  };
}
