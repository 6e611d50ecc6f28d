// Golden kind kdiff_samplers: solvers of crowsonkb/k-diffusion on an analytic denoiser.
import { checkChoice, checkOptions } from "../errors.js";
import { checkFields, listOf, real } from "../models/check-config.js";
import { predictions } from "../processes/gaussian-levels.js";
import type { Level } from "../processes/gaussian-levels.js";
import { exponentialSigmas, sigmaLevel, sigmaLine } from "../processes/sigmas.js";
import { noisePlan } from "../samplers/adaptive.js";
import type { ContinuousDenoiser } from "../samplers/continuous-step.js";
import type { ContinuousPlan, Floats } from "../samplers/continuous.js";
import { adaptiveDpmSolver } from "../samplers/dpm-adaptive.js";
import { dpmSolver3s, fastOrders } from "../samplers/dpm-solver-3s.js";
import { samplerOf } from "../samplers/samplers.js";
import type { SamplerName } from "../samplers/samplers.js";
import type { Solver } from "../samplers/solver.js";
import type { Tensor } from "../trace/tensor.js";
import { given } from "../trainers/given.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues } from "./case.js";
import type { Evaluate } from "./evaluate.js";
import { channelsLast } from "./layouts.js";
import { runChain, runPlan } from "./sampled-chain.js";
import type { ChainRun } from "./sampled-chain.js";

export const pair = (value: unknown): string | undefined =>
  Array.isArray(value) && value.length === 2 ? undefined : "a pair of a name and its arguments";

const churnOptions = {
  s_churn: "churn",
  s_tmin: "churnMin",
  s_tmax: "churnMax",
  s_noise: "noiseScale",
};

const ancestralOptions = { eta: "eta", s_noise: "noiseScale" };

/** Samplers by the reference's names, and their options in our words. */
const known: Readonly<Record<string, readonly [SamplerName, Readonly<Record<string, string>>]>> = {
  euler: ["euler", churnOptions],
  heun: ["heun", churnOptions],
  dpm_2: ["dpm-2", churnOptions],
  euler_ancestral: ["euler-ancestral", ancestralOptions],
  dpm_2_ancestral: ["dpm-2-ancestral", ancestralOptions],
  lms: ["lms", { order: "order" }],
  dpmpp_2m: ["dpm-solver-2m", {}],
  dpmpp_2s_ancestral: ["dpm-solver-2s-ancestral", ancestralOptions],
  dpmpp_sde: ["dpm-solver-sde", { ...ancestralOptions, r: "r" }],
  dpmpp_2m_sde: ["dpm-solver-2m-sde", { ...ancestralOptions, solver_type: "solverType" }],
  dpmpp_3m_sde: ["dpm-solver-3m-sde", ancestralOptions],
};

function knownSampler(name: string, options: Readonly<Record<string, unknown>>): Solver {
  const [ours, words] =
    known[
      checkChoice("parity", "a sampler", name, [...Object.keys(known), "dpm_fast", "dpm_adaptive"])
    ]!;
  checkOptions(`parity: ${name}`, options, Object.keys(words));
  const renamed = Object.entries(options).map(([word, value]) => [words[word]!, value]);
  // the reference's third-order form gives the curvature half its weight
  const form = ours === "dpm-solver-3m-sde" ? { form: "widespread" } : {};
  return samplerOf(ours, { ...form, ...(Object.fromEntries(renamed) as object) });
}

/** Data of a fair mixture of N(mu, std²) and N(-mu, std²), each element on its own. */
const mixtureDenoiser =
  (mu: Tensor, std: number): ContinuousDenoiser =>
  (_, { x, times }) => {
    const variance = times.square().reshape([times.shape[0]!, ...x.shape.slice(1).map(() => 1)]);
    const total = variance.add(std * std);
    const side = mu.mul(x.mul(mu).div(total).tanh());
    return x
      .mul(std * std)
      .add(variance.mul(side))
      .div(total);
  };

type Options = Readonly<Record<string, unknown>>;

/** Names that take a range of levels, not the list: dpm_fast's n, and what dpm_adaptive has besides. */
const rangeOptions = ["sigma_min", "sigma_max", ...Object.keys(ancestralOptions)];
const fastOptions = [...rangeOptions, "n"];
const adaptiveOptions = [...rangeOptions, "order", "rtol", "atol", "h_init", "pcoeff", "icoeff", "dcoeff", "accept_safety"]; // prettier-ignore

/** Ends of the range: as given, or those of the case's list that have noise. */
function rangeOf(golden: GoldenCase, options: Options): { min: number; max: number } {
  const sigmas = [...ioValues(golden, "sigmas").data].filter((sigma) => sigma > 0);
  const { sigma_min: min = sigmas.at(-1)!, sigma_max: max = sigmas[0]! } = options;
  return { min: min as number, max: max as number };
}

/** What the reference's function of this name does, as a plan. */
function planOf(golden: GoldenCase, name: string, options: Options): ContinuousPlan {
  const given = [...ioValues(golden, "sigmas").data].map(sigmaLevel);
  if (name !== "dpm_fast") return knownSampler(name, options).plan(given, sigmaLine);
  checkOptions("parity: dpm_fast", options, fastOptions);
  const { n = given.length - 1, eta = 0, s_noise: noiseScale = 1 } = options as Record<string, number>; // prettier-ignore
  const orders = fastOrders(n);
  const sigmas = exponentialSigmas(orders.length + 1, rangeOf(golden, options)).slice(0, -1);
  return dpmSolver3s({ orders, eta, noiseScale }).plan(sigmas.map(sigmaLevel), sigmaLine);
}

/** What runs a plan on the mixture. */
function mixtureRun(golden: GoldenCase): Omit<ChainRun, "plan" | "noise"> {
  const { data_std: std } = golden.config as { data_std: number };
  return {
    parameterisation: predictions.x0,
    denoise: (t, input, given) => mixtureDenoiser(channelsLast(given["mu"]!), std)(t, input),
    start: ioValues(golden, "x_init"),
    inputs: { mu: ioValues(golden, "mu") },
  };
}

/** Results of an attempt K are named as those of a step; a refused one leaves the state. */
async function solveAdaptively(
  golden: GoldenCase,
  evaluate: Evaluate,
  options: Readonly<Record<string, number>>,
  index: number,
): Promise<Record<string, Values>> {
  checkOptions("parity: dpm_adaptive", options, adaptiveOptions);
  const { order, h_init, accept_safety, s_noise } = options;
  const { pcoeff = 0, icoeff = 1, dcoeff = 0 } = options;
  const run = mixtureRun(golden);
  const { shape } = run.start;
  const noise = async (x: Floats, level: Level): Promise<Floats> => {
    const start = { shape, data: Float32Array.from(x) };
    const none = (): Values => start;
    const states = await runChain(evaluate, { ...run, plan: noisePlan(level), start, noise: none }); // prettier-ignore
    return states[0]!.x.data as Floats;
  };
  const { min, max } = rangeOf(golden, options);
  const levels = { from: sigmaLevel(max), to: sigmaLevel(min), line: sigmaLine };
  const results: Record<string, Values> = {};
  const attempts = adaptiveDpmSolver(noise, Float64Array.from(run.start.data), levels, {
    ...(order !== undefined && { order: order as 2 | 3 }),
    ...given(options, "rtol", "atol", "eta"),
    ...(h_init !== undefined && { firstStep: h_init }),
    ...(accept_safety !== undefined && { safety: accept_safety }),
    ...(s_noise !== undefined && { noiseScale: s_noise }),
    gains: { proportional: pcoeff, integral: icoeff, derivative: dcoeff },
    draw: (taken) => Float64Array.from(ioValues(golden, `noise.${taken}`).data),
  });
  for await (const attempt of attempts) {
    results[`${index}.x.${attempt.index}`] = { shape, data: attempt.x };
    results[`${index}.denoised.${attempt.index}`] = { shape, data: attempt.x0 };
    results[`${index}.final`] = { shape, data: attempt.x };
  }
  return results;
}

async function solve(
  golden: GoldenCase,
  evaluate: Evaluate,
  [name, options]: [string, Options],
  index: number,
): Promise<Record<string, Values>> {
  if (name === "dpm_adaptive")
    return solveAdaptively(golden, evaluate, options as Record<string, number>, index);
  const results: Record<string, Values> = {};
  let draws = 0;
  const run = await runPlan(evaluate, {
    ...mixtureRun(golden),
    plan: planOf(golden, name, options),
    // churn has the noise of its step; the others draw when they need some
    noise: (step, place) => ioValues(golden, `noise.${place === "before" ? step : draws++}`),
  });
  for (const { step, isFirst, read, x0, x } of run) {
    if (isFirst) {
      results[`${index}.x.${step}`] = read;
      results[`${index}.denoised.${step}`] = x0;
    }
    results[`${index}.final`] = x;
  }
  return results;
}

export async function samplers(
  golden: GoldenCase,
  evaluate: Evaluate,
): Promise<Record<string, Values>> {
  checkFields(`parity: ${golden.name}`, golden.config, {
    jobs: listOf(pair, 0, 1e4),
    sigmas_karras: listOf(real(0, 1e6), 3, 4),
    data_std: real(0, 1e6),
  });
  const { jobs } = golden.config as { jobs: [string, Record<string, unknown>][] };
  const results: Record<string, Values> = {};
  for (const [i, job] of jobs.entries())
    Object.assign(results, await solve(golden, evaluate, job, i));
  return results;
}
