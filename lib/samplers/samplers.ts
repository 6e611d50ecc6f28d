// Every solver by name, with its defaults: one line each.
import { checkChoice } from "../errors.js";
import { consistency } from "./consistency.js";
import { ddim } from "./ddim.js";
import { ddpm } from "./ddpm.js";
import { deis } from "./deis.js";
import { dpm2 } from "./dpm-2.js";
import { dpm2Ancestral } from "./dpm-2-ancestral.js";
import { dpmSolver2m, dpmSolver2mSde } from "./dpm-solver-2m.js";
import { dpmSolver2s, dpmSolver2sAncestral } from "./dpm-solver-2s.js";
import { dpmSolver3m, dpmSolver3mSde } from "./dpm-solver-3m.js";
import { dpmSolver3s } from "./dpm-solver-3s.js";
import { dpmSolverSde } from "./dpm-solver-sde.js";
import { edm } from "./edm.js";
import { euler } from "./euler.js";
import { eulerAncestral } from "./euler-ancestral.js";
import { flowAdams } from "./flow-adams.js";
import { flowOde } from "./flow-ode.js";
import { flowSde } from "./flow-sde.js";
import { heun } from "./heun.js";
import { lms } from "./lms.js";
import { pndm } from "./pndm.js";
import type { Solver } from "./solver.js";
import { unipc } from "./unipc.js";

export const samplers = {
  ddpm,
  ddim,
  euler,
  "euler-ancestral": eulerAncestral,
  heun,
  edm,
  "dpm-2": dpm2,
  "dpm-2-ancestral": dpm2Ancestral,
  "dpm-solver-2s": dpmSolver2s,
  "dpm-solver-2s-ancestral": dpmSolver2sAncestral,
  "dpm-solver-2m": dpmSolver2m,
  "dpm-solver-2m-sde": dpmSolver2mSde,
  "dpm-solver-3s": dpmSolver3s,
  "dpm-solver-3m": dpmSolver3m,
  "dpm-solver-3m-sde": dpmSolver3mSde,
  "dpm-solver-sde": dpmSolverSde,
  unipc,
  lms,
  deis,
  pndm,
  consistency,
  "flow-ode": flowOde,
  "flow-adams": flowAdams,
  "flow-sde": flowSde,
} as const;

export type SamplerName = keyof typeof samplers;

export const samplerNames = Object.keys(samplers) as SamplerName[];

/** A solver by name with options of its own. Throws "option" for an unknown name or option. */
export function samplerOf(name: string, options: object = {}): Solver {
  const make: (options: object) => Solver =
    samplers[checkChoice("sampler", "a name", name, samplerNames)];
  return make(options);
}
