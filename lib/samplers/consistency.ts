// Few-step sampling of consistency models: jump to the clean sample, add fresh noise, repeat. Source:
// Song et al. 2023, arXiv:2303.01469, algorithm 1; boundary conditions of latent consistency models,
// Luo et al. 2023, arXiv:2310.04378, section 4.1.
import { checkOptions } from "../errors.js";
import type { Level } from "../processes/gaussian-levels.js";
import { pairwisePlan } from "./continuous.js";
import type { Combination } from "./continuous.js";
import { bareState, checkWeights, completed, scaled } from "./solver.js";
import type { Solver } from "./solver.js";

export interface ConsistencyOptions {
  /**
   * Mixes the state into the estimate by c_skip = d² / ((s time)² + d²), c_out = s time / sqrt((s
   * time)² + d²); default s = 10, d = 0.5 on timesteps, as the published latent models. false: the
   * network meets its boundary condition itself.
   */
  boundary?: { timeScale?: number; sigmaData?: number } | false;
}

/** The clean sample that the model stands for at a level. */
function cleanSample(level: Level, boundary: ConsistencyOptions["boundary"] = {}): Combination {
  if (boundary === false) return { x0: 1 };
  const { timeScale = 10, sigmaData = 0.5 } = boundary;
  const time = timeScale * level.time;
  const total = time * time + sigmaData * sigmaData;
  return {
    ...bareState(level, (sigmaData * sigmaData) / total),
    x0: time / Math.sqrt(total),
  };
}

/** No order: exact for a perfect consistency model in any number of steps. */
export function consistency(options: ConsistencyOptions = {}): Solver {
  checkOptions("consistency", options, ["boundary"]);
  const { boundary = {} } = options;
  if (boundary !== false) {
    checkOptions("consistency: boundary", boundary, ["timeScale", "sigmaData"]);
    checkWeights("consistency", { ...boundary });
  }
  return {
    name: "consistency",
    order: 0,
    evaluations: 1,
    isStochastic: true,
    source: "Song et al. 2023, arXiv:2303.01469; Luo et al. 2023, arXiv:2310.04378",
    plan: (levels) =>
      pairwisePlan("consistency", levels, 1, (from, to) => {
        const clean = scaled(to.a, cleanSample(from, boundary));
        return [{ level: from, after: [completed(to, clean, { noise: to.c })] }];
      }),
  };
}
