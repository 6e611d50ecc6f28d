// Levels of a Gaussian chain between its timesteps, for solvers that evaluate there: log(c / a) is
// linear from one timestep to the next, as in crowsonkb/k-diffusion.
import { chainLevel } from "./gaussian.js";
import type { Formulation, GaussianChain } from "./gaussian.js";
import type { Level, LevelLine } from "./gaussian-levels.js";
import { DiscreteSigmas } from "./sigmas.js";

/** Index where what the network is told reaches a time; the times rise. */
function indexOfTime(times: readonly number[], time: number): number {
  const last = times.findLastIndex((each) => each <= time);
  const low = Math.min(Math.max(last, 0), times.length - 2);
  const share = (time - times[low]!) / (times[low + 1]! - times[low]!);
  return Math.min(Math.max(low + share, 0), times.length - 1);
}

/** The line of a chain; respaced and rescaled times are interpolated. */
export function chainLine(chain: GaussianChain, formulation: Formulation = 1): LevelLine {
  const sigmas = new DiscreteSigmas(chain.alphaBars);
  const timeAt = (index: number): number => {
    const low = Math.min(Math.floor(index), chain.timesteps - 2);
    return chain.times[low]! + (index - low) * (chain.times[low + 1]! - chain.times[low]!);
  };
  const levelAt = (index: number): Level => {
    if (Number.isInteger(index)) return chainLevel(chain, index, formulation);
    return { ...sigmas.level(sigmas.sigmaOf(index)), time: timeAt(index), b: formulation - 1 };
  };
  return {
    ofRatio: (ratio) => {
      const index = sigmas.timeOf(ratio);
      // beyond the chain the ratio counts, and the network is told the nearest time
      return { ...sigmas.level(ratio), time: timeAt(index), b: formulation - 1 };
    },
    ofTime: (time) => levelAt(indexOfTime(chain.times, time)),
  };
}
