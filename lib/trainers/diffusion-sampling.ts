// How to sample a denoiser: the settings that pipelines, recipes and pictures carry, and the plan that they make.
import { DiffusionError } from "../errors.js";
import { checkFields, flag, isObject, limits, listOf, object, oneOf, optional, real, shown, whole, type Rule } from "../models/check-config.js"; // prettier-ignore
import {
  chainSpacings,
  learnedVariance,
  walkOf,
  type DiffusionProcess,
  type InterpolantProcess,
  type Spacing,
  type Walk,
} from "../models/diffusion-process.js";
import { pathLevel, pathLevels } from "../processes/interpolant.js";
import { defaultEpsilons, stochasticTimeRange } from "../processes/path-range.js";
import type { ContinuousPlan } from "../samplers/continuous.js";
import type { FlowSdeOptions } from "../samplers/flow-sde.js";
import { samplerNames, samplerOf, type SamplerName } from "../samplers/samplers.js";

export interface DiffusionSampling {
  /** A sampler of docs/samplers.md. */
  sampler: SamplerName;
  /** Levels that are left behind; some samplers call the network twice at each. */
  steps: number;
  /** Which timesteps of a chain are visited; "even" on paths. */
  spacing: Spacing;
  /** Classifier-free guidance; 1 = off. */
  guidanceScale: number;
  /** Leading channels that are guided; default all. The published figures of DiT and SiT come from 3 of 4. */
  guidanceChannels?: number;
  /** Share of the guided output that is brought to the deviation of the unguided one; default 0. */
  guidanceRescale?: number;
  /** Times of the network, both included, between which it is guided; default always. */
  guidanceInterval?: readonly [from: number, to: number];
  /** Strength of a classifier's gradient, of models that have one; default 0: off. */
  classifierScale?: number;
  /** Options of the sampler by their names, e.g. { eta: 1 }; default none. */
  samplerOptions?: Readonly<Record<string, unknown>>;
  /** Factor of the first noise; default 1. */
  temperature?: number;
  /** Keeps predicted pictures in [-1, 1] at each step; a number is the quantile of dynamic thresholding. Default false. */
  clamp?: boolean | number;
  /** Derives the noise anew from the clamped picture, as ADM does; default false. */
  rederive?: boolean;
}

/** How long the last step of a stochastic flow is, as in willisma/SiT. */
const kLastStep = 0.04;

export const diffusionSamplingRules: Readonly<Record<keyof DiffusionSampling, Rule>> = {
  sampler: oneOf(...samplerNames),
  steps: whole(1, limits.timesteps),
  spacing: oneOf(...chainSpacings, "even"),
  guidanceScale: real(-100, 100),
  guidanceChannels: optional(whole(1, limits.width)),
  guidanceRescale: optional(real(0, 1)),
  guidanceInterval: optional(listOf(real(-1e6, 1e6), 2, 2)),
  classifierScale: optional(real(-1000, 1000)),
  samplerOptions: optional(object),
  temperature: optional(real(0, 100)),
  clamp: optional((value) =>
    typeof value === "boolean" || real(0.5, 1)(value) === undefined
      ? undefined
      : "true, false or a quantile from 0.5 to 1",
  ),
  rederive: optional(flag),
};

/** Checks settings as files and callers give them, and that a process has such a plan. Throws "option". */
export function checkDiffusionSampling(
  where: string,
  sampling: object,
  process: DiffusionProcess,
): void {
  checkFields(where, sampling, diffusionSamplingRules);
  samplingPlan(process, sampling as DiffusionSampling);
}

const isFlow = (sampler: SamplerName): boolean => sampler.startsWith("flow-");

/** Options of the sampler; ancestral steps have the variance of the process unless told. */
function samplerOptions(
  process: DiffusionProcess,
  { sampler, samplerOptions: given = {} }: DiffusionSampling,
): Readonly<Record<string, unknown>> {
  if (!isObject(given))
    throw new DiffusionError("option", `samplerOptions: expected an object, got ${shown(given)}`);
  if (sampler !== "ddpm" || process.kind !== "gaussian") return given;
  const { variance = process.variance ?? "fixedLarge" } = given;
  const isLearned = variance === "learned" || variance === "learnedRange";
  if (!isLearned || variance === learnedVariance(process)) return { ...given, variance };
  throw new DiffusionError(
    "option",
    `samplerOptions: expected a variance that the network has, got ${shown(variance)}; fixedSmall and fixedLarge need none`,
  );
}

/** Levels of a stochastic flow: even ones that stay away from data, and a last step without noise. */
function stochasticWalk(
  process: InterpolantProcess,
  { steps }: DiffusionSampling,
  { diffusion = "sigma", lastStep = "mean" }: FlowSdeOptions,
): Walk["levels"] {
  const { path, prediction = "velocity", towards = "data" } = process;
  const size = lastStep === "none" ? 0 : kLastStep;
  const eps = defaultEpsilons(path, prediction).sample;
  const range = stochasticTimeRange(path, prediction, eps, { diffusion, lastStep: size });
  const grid = { from: range.high, to: range.low, towards };
  if (size === 0) return pathLevels(path, { points: steps + 1, ...grid });
  const points = Math.max(steps, 2);
  return [
    ...pathLevels(path, { points, ...grid }),
    pathLevel(path, Math.max(0, range.low - size), towards),
  ];
}

/** The plan of a run. Throws "option" for settings that do not fit the process. */
export function samplingPlan(
  process: DiffusionProcess,
  sampling: DiffusionSampling,
): ContinuousPlan {
  const { sampler, steps, spacing } = sampling;
  const options = samplerOptions(process, sampling);
  const solver = samplerOf(sampler, options);
  if (isFlow(sampler) && process.kind === "gaussian")
    throw new DiffusionError(
      "option",
      `sampler: expected one for a chain of timesteps, got "${sampler}", which needs a path`,
    );
  const { levels, line } = walkOf(process, { steps, spacing }, isFlow(sampler));
  if (sampler !== "flow-sde" || process.kind === "gaussian") return solver.plan(levels, line);
  return solver.plan(stochasticWalk(process, sampling, options as FlowSdeOptions), line);
}

/** Settings of a call over defaults; options of another sampler than the default one begin anew. */
export function samplingOver(
  given: Partial<DiffusionSampling>,
  defaults: DiffusionSampling,
): DiffusionSampling {
  const names = Object.keys(diffusionSamplingRules) as (keyof DiffusionSampling)[];
  const said = Object.fromEntries(
    names.filter((name) => given[name] !== undefined).map((name) => [name, given[name]]),
  );
  const { samplerOptions: own, ...rest } = defaults;
  const isOther = given.sampler !== undefined && given.sampler !== defaults.sampler;
  return { ...rest, ...(own && !isOther && { samplerOptions: own }), ...said };
}
