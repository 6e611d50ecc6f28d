// Runs the plan of a continuous sampler in float64 on a denoiser that is a plain function. States are
// vectors; with an affine denoiser their components may be coefficients of the start and of every
// noise drawn, which gives mean and variance exactly.
import type { Level } from "../../lib/processes/gaussian-levels.js";
import type { Combination, ContinuousPlan } from "../../lib/samplers/continuous.js";

export type Vector = number[];

/** E[x0 | x] at a level. */
export type Denoise = (x: Vector, level: Level) => Vector;

export interface RunOptions {
  /** Replaces the state before step i; undefined keeps it. */
  replace?: (index: number) => Vector | undefined;
  /** The next noise; default zero. */
  draw?: () => Vector;
  /** The paired image y; default zero. */
  pair?: Vector;
}

export function runPlan(
  plan: ContinuousPlan,
  start: Vector,
  denoise: Denoise,
  { replace, draw, pair }: RunOptions = {},
): Vector {
  const zero = start.map(() => 0);
  let slots: Vector[] = Array.from({ length: plan.slots }, (_, i) => (i === 0 ? start : zero));
  const combine = (combination: Combination, known: Record<string, Vector>): Vector => {
    const out = zero.slice();
    const add = (vector: Vector, weight: number): void => {
      if (weight !== 0) vector.forEach((value, i) => (out[i]! += weight * value));
    };
    combination.slots?.forEach((weight, i) => add(slots[i]!, weight));
    for (const [name, vector] of Object.entries(known))
      add(vector, (combination[name as keyof Combination] as number | undefined) ?? 0);
    return out;
  };
  for (const [index, { evaluations }] of plan.steps.entries()) {
    const replaced = replace?.(index);
    if (replaced) slots[0] = replaced;
    for (const { level, before, after } of evaluations) {
      if (before) {
        const noise = draw?.() ?? zero;
        slots = before.map((part) => combine(part, { noise, ...(pair && { pair }) }));
      }
      const x = slots[0]!;
      const x0 = denoise(x, level);
      const bare = x.map((value, i) => value - level.b * (pair?.[i] ?? 0));
      const eps = bare.map((value, i) => (value - level.a * x0[i]!) / level.c);
      const noise = draw?.() ?? zero;
      slots = after.map((part) => combine(part, { x0, eps, noise, ...(pair && { pair }) }));
    }
  }
  return slots[0]!;
}
