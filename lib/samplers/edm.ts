// The stochastic sampler of EDM with the settings of the paper: Heun's method with churn. Source:
// Karras et al. 2022, arXiv:2206.00364, algorithm 2 and table 5.
import { checkChoice, checkOptions } from "../errors.js";
import type { ChurnOptions } from "./churn.js";
import { heun } from "./heun.js";
import type { Solver } from "./solver.js";

/** Settings by the data they were searched for: arXiv:2206.00364, table 5. */
const presets = {
  "cifar10-vp": { churn: 30, churnMin: 0.01, churnMax: 1, noiseScale: 1.007 },
  "cifar10-ve": { churn: 80, churnMin: 0.05, churnMax: 1, noiseScale: 1.007 },
  imagenet64: { churn: 40, churnMin: 0.05, churnMax: 50, noiseScale: 1.003 },
} as const;

export interface EdmOptions extends ChurnOptions {
  /** Default "imagenet64"; single settings replace those of the preset. */
  preset?: keyof typeof presets;
}

/** Order 2, two evaluations a step; needs the line of levels. */
export function edm(options: EdmOptions = {}): Solver {
  checkOptions("edm", options, ["preset", "churn", "churnMin", "churnMax", "noiseScale"]);
  const { preset = "imagenet64", ...own } = options;
  const name = checkChoice("edm", "a preset", preset, Object.keys(presets) as (keyof typeof presets)[]); // prettier-ignore
  return { ...heun({ ...presets[name], ...own }), name: "edm" };
}
