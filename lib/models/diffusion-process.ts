// The process that a denoiser was trained on, as configurations hold it, and the levels that samplers walk on: a chain of
// timesteps or a path between data and noise.
import { DiffusionError } from "../errors.js";
import { chainLine } from "../processes/chain-line.js";
import {
  chainLevel,
  chainLevels,
  chainOf,
  respacedChain,
  type ChainOptions,
  type Formulation,
  type GaussianChain,
} from "../processes/gaussian.js";
import {
  predictions,
  type Level,
  type LevelLine,
  type Parameterisation,
} from "../processes/gaussian-levels.js";
import type { VarianceName } from "../processes/gaussian-loss.js";
import { betaSchedules } from "../processes/gaussian-schedules.js";
import { pathLevels, pathLine, pathNames, type PathName } from "../processes/interpolant.js";
import { defaultEpsilons, timeRange, type TransportPrediction } from "../processes/path-range.js";
import {
  distinctQuadraticTimesteps,
  karrasChainLevels,
  latentTimesteps,
  leadingTimesteps,
  linspaceTimesteps,
  sectionTimesteps,
  stridedTimesteps,
  trailingTimesteps,
} from "../processes/respacing.js";
import { checkFields, flag, isObject, limits, object, oneOf, optional, real, shown, whole } from "./check-config.js"; // prettier-ignore
import type { Rule, Rules } from "./check-config.js";

/** A chain of timesteps: DDPM, ADM, DiT, latent diffusion, DiffuseVAE. */
export interface GaussianProcess {
  kind: "gaussian";
  chain: ChainOptions;
  /** Default "eps". */
  prediction?: "eps" | "x0" | "v";
  /** The network's own ("learned", "learnedRange"), or that of ancestral steps; default "fixedLarge". */
  variance?: VarianceName;
  /** 2: a paired image shifts the chain (arXiv:2201.00308); default 1. */
  formulation?: Formulation;
}

/** A path between data and noise: SiT, FiTv2, flow matching. */
export interface InterpolantProcess {
  kind: "interpolant";
  path: PathName;
  /** Default "velocity". */
  prediction?: TransportPrediction;
  /** Where the time of the network runs; default "data", as in willisma/SiT. */
  towards?: "data" | "noise";
}

export type DiffusionProcess = GaussianProcess | InterpolantProcess;

const chainRules: Readonly<Record<keyof ChainOptions, Rule>> = {
  timesteps: whole(2, limits.timesteps),
  schedule: optional(oneOf(...Object.keys(betaSchedules))),
  first: optional(real(0, 1)),
  last: optional(real(0, 1)),
  shift: optional(real(1e-6, 1e6)),
  zeroTerminal: optional(flag),
  rescaleTimes: optional(flag),
};

const kinds: Readonly<Record<DiffusionProcess["kind"], Rules>> = {
  gaussian: {
    kind: oneOf("gaussian"),
    chain: object,
    prediction: optional(oneOf("eps", "x0", "v")),
    variance: optional(oneOf("fixedSmall", "fixedLarge", "learned", "learnedRange")),
    formulation: optional((value) => (value === 1 || value === 2 ? undefined : "1 or 2")),
  },
  interpolant: {
    kind: oneOf("interpolant"),
    path: oneOf(...pathNames),
    prediction: optional(oneOf("velocity", "score", "eps")),
    towards: optional(oneOf("data", "noise")),
  },
};

/** Checks a process as files hold it. Throws "option". */
export function checkDiffusionProcess(where: string, process: unknown): void {
  const kind = isObject(process) ? process["kind"] : undefined;
  if (kind !== "gaussian" && kind !== "interpolant")
    throw new DiffusionError(
      "option",
      `${where}: expected kind to be one of gaussian, interpolant, got ${shown(kind)}`,
    );
  checkFields(where, process, kinds[kind]);
  if (kind === "interpolant") return;
  const { chain } = process as GaussianProcess;
  checkFields(`${where}.chain`, chain, chainRules);
  chainOf(chain);
}

/** What the network's own variances are; undefined: it has none. */
export function learnedVariance(process: DiffusionProcess): "learned" | "learnedRange" | undefined {
  const variance = process.kind === "gaussian" ? process.variance : undefined;
  return variance === "learned" || variance === "learnedRange" ? variance : undefined;
}

/** What the network's output means. */
export const parameterisationOf = ({ kind, prediction }: DiffusionProcess): Parameterisation =>
  predictions[prediction ?? (kind === "gaussian" ? "eps" : "velocity")];

/** Which timesteps of a chain of T a run of `count` steps visits; see processes/respacing.ts. */
const keptTimesteps = {
  sections: (T: number, count: number) => sectionTimesteps(T, [count]),
  strided: stridedTimesteps,
  quadratic: distinctQuadraticTimesteps,
  linspace: linspaceTimesteps,
  leading: leadingTimesteps,
  trailing: trailingTimesteps,
} as const;

/** Spacings of a chain: timesteps, noise levels, the timesteps of CompVis' DDIM, or the first of the chain. */
export const chainSpacings = [
  ...(Object.keys(keptTimesteps) as (keyof typeof keptTimesteps)[]),
  "karras",
  "compvis",
  "truncated",
] as const;

/** "even": evenly spread times of a path. */
export type Spacing = (typeof chainSpacings)[number] | "even";

/** The spacings that a process has; the first is the default. */
export const spacingsOf = ({ kind }: DiffusionProcess): readonly Spacing[] =>
  kind === "gaussian"
    ? ["trailing", ...chainSpacings.filter((name) => name !== "trailing")]
    : ["even"];

export interface WalkOptions {
  steps: number;
  spacing: Spacing;
}

/** Levels from noise to data, and those between them. */
export interface Walk {
  levels: readonly Level[];
  line: LevelLine;
}

function chainWalk(process: GaussianProcess, { steps, spacing }: WalkOptions): Walk {
  const { formulation = 1 } = process;
  const chain = chainOf(process.chain);
  const line = chainLine(chain, formulation);
  const walk = (levels: readonly Level[]): Walk => ({ levels, line });
  if (spacing === "karras") {
    const b = formulation - 1;
    const levels = karrasChainLevels(chain, { steps });
    return walk(levels.map((level) => (level.c === 0 ? level : { ...level, b })));
  }
  if (spacing === "truncated") return walk(chainLevels(chain, { formulation, count: steps }));
  if (spacing === "compvis") return walk(compVisLevels(chain, steps, formulation));
  const kept = keptTimesteps[spacing as keyof typeof keptTimesteps](chain.timesteps, steps);
  return walk(chainLevels(respacedChain(chain, kept), { formulation }));
}

/** Levels of CompVis' DDIM: they end at timestep 0, not at clean data. */
const compVisLevels = (chain: GaussianChain, steps: number, formulation: Formulation): Level[] => [
  ...latentTimesteps(chain.timesteps, steps, "uniform")
    .map((t) => chainLevel(chain, t, formulation))
    .reverse(),
  chainLevel(chain, 0, formulation),
];

/** Nearest to pure noise that samplers in c / a start on paths that reach it. */
const kMostNoise = 1 - 1e-3;

function pathWalk(process: InterpolantProcess, steps: number, isFlow: boolean): Walk {
  const { path, prediction = "velocity", towards = "data" } = process;
  const { low, high } = timeRange(path, prediction, defaultEpsilons(path, prediction).sample);
  const from = isFlow || path === "vp" ? high : Math.min(high, kMostNoise);
  const levels = pathLevels(path, { points: steps + 1, from, to: low, towards });
  return { levels, line: pathLine(path, towards) };
}

/**
 * Levels of a run of `steps` steps; a sampler that solves the flow itself (`isFlow`) starts at pure noise. Throws "option"
 * for a spacing or a number of steps that the process does not have.
 */
export function walkOf(process: DiffusionProcess, options: WalkOptions, isFlow = false): Walk {
  const allowed = spacingsOf(process);
  if (!allowed.includes(options.spacing))
    throw new DiffusionError(
      "option",
      `spacing: expected one of ${allowed.join(", ")}, got ${shown(options.spacing)}`,
    );
  return process.kind === "gaussian"
    ? chainWalk(process, options)
    : pathWalk(process, options.steps, isFlow);
}
