// Ancestral steps: a deterministic step to less noise than the target has, then fresh noise. As
// get_ancestral_step of crowsonkb/k-diffusion; eta as in Song et al. 2021, arXiv:2010.02502.
import { checkOptions } from "../errors.js";
import type { Level } from "../processes/gaussian-levels.js";
import { ancestralStep } from "../processes/sigmas.js";
import type { Combination } from "./continuous.js";
import { checkWeights, completed, ratioOf } from "./solver.js";

export interface AncestralOptions {
  /** Share of fresh noise: 0 is deterministic, 1 (default) the reverse diffusion. */
  eta?: number;
  /** Deviation of the fresh noise; default 1. */
  noiseScale?: number;
}

export function checkAncestral(where: string, options: object & AncestralOptions): void {
  checkOptions(where, options, ["eta", "noiseScale"]);
  const { eta = 1, noiseScale = 1 } = options;
  checkWeights(where, { eta, noiseScale });
}

export interface AncestralTarget {
  /** c / a that the deterministic part ends at. */
  ratio: number;
  /** Adds pair and fresh noise to a state with that ratio. */
  complete: (...parts: readonly Combination[]) => Combination;
}

/** How a step between two levels is split; the deterministic part ends at c / a of at least `lowest`. */
export function ancestralTarget(
  from: Level,
  to: Level,
  { eta = 1, noiseScale = 1 }: AncestralOptions,
  lowest = 0,
): AncestralTarget {
  const split = ancestralStep(ratioOf(from), ratioOf(to), eta);
  const down = Math.max(split.down, lowest);
  const up = down === split.down ? split.up : Math.sqrt(Math.max(0, ratioOf(to) ** 2 - down ** 2));
  const noise = to.c === 0 ? 0 : to.a * up * noiseScale;
  return { ratio: down, complete: (...parts) => completed(to, ...parts, { noise }) };
}
