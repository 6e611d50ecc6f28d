// Golden kinds sit_integrate_analytic and sit_integrate_net: flows and stochastic equations of the
// interpolants of willisma/SiT, on a field known in closed form and on a tiny network.
import { checkFields, limits, listOf, object, oneOf, optional, real, flag, whole } from "../models/check-config.js"; // prettier-ignore
import type { Rules } from "../models/check-config.js";
import { predictions } from "../processes/gaussian-levels.js";
import type { Level } from "../processes/gaussian-levels.js";
import { pathLevel, pathLevels, pathLine } from "../processes/interpolant.js";
import type { PathLevel, PathName } from "../processes/interpolant.js";
import { defaultEpsilons, stochasticTimeRange, timeRange } from "../processes/path-range.js";
import type { TimeRange, TransportPrediction } from "../processes/path-range.js";
import { velocityPlan } from "../samplers/adaptive.js";
import { adaptiveMethods, fixedMethods } from "../samplers/butcher.js";
import type { AdaptiveMethod, FixedMethod } from "../samplers/butcher.js";
import { flowAdams } from "../samplers/flow-adams.js";
import { adaptiveFlow } from "../samplers/flow-adaptive.js";
import { flowOde } from "../samplers/flow-ode.js";
import { flowSde } from "../samplers/flow-sde.js";
import type { FlowSdeOptions } from "../samplers/flow-sde.js";
import type { Evaluation } from "../samplers/continuous.js";
import type { Solver } from "../samplers/solver.js";
import type { Tensor } from "../trace/tensor.js";
import type { GoldenCase, Values } from "./case.js";
import { byWord, ioValues } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { channelsLast } from "./layouts.js";
import { caseNoise, runChain } from "./sampled-chain.js";
import type { ChainRun } from "./sampled-chain.js";
import { sitForms, sitPaths, sitPredictions } from "./sit-names.js";
import { goldenSit } from "./sit-transport.js";

interface Job {
  type: "ode" | "sde";
  path: string;
  prediction: string;
  method: string;
  num_steps: number;
  reverse?: boolean;
  atol?: number;
  rtol?: number;
  diffusion_form?: string;
  diffusion_norm?: number;
  last_step?: string | null;
  last_step_size?: number;
  data_std?: number;
}

const common: Rules = {
  type: oneOf("ode", "sde"),
  path: oneOf(...Object.keys(sitPaths)),
  prediction: oneOf(...Object.keys(sitPredictions)),
  num_steps: optional(whole(2, limits.timesteps)),
  data_std: optional(real(0, 1e6)),
};

/** Methods with even steps by the words of torchdiffeq; its corrections end early when they converge. */
const plannedMethods: Readonly<Record<string, () => Solver>> = {
  ...Object.fromEntries(
    Object.keys(fixedMethods).map((name) => [name, () => flowOde({ method: name as FixedMethod })]),
  ),
  explicit_adams: () => flowAdams({ slopes: 11 }),
  implicit_adams: () => flowAdams({ slopes: 11, corrections: 4 }),
  fixed_adams: () => flowAdams({ slopes: 11, corrections: 4 }),
};

const adaptiveNames = Object.fromEntries(
  Object.keys(adaptiveMethods).map((name) => [name.replace("-", "_"), name as AdaptiveMethod]),
);

const odeRules: Rules = {
  ...common,
  method: (value) =>
    value === "scipy_solver"
      ? "a method of torchdiffeq's own, as this one hands the whole integration to SciPy"
      : optional(oneOf(...Object.keys(plannedMethods), ...Object.keys(adaptiveNames)))(value),
  reverse: optional(flag),
  atol: optional(real(0, 1e6)),
  rtol: optional(real(0, 1e6)),
};

const lastSteps: Readonly<Record<string, NonNullable<FlowSdeOptions["lastStep"]>>> = {
  Mean: "mean",
  Euler: "euler",
  Tweedie: "tweedie",
};

const sdeRules: Rules = {
  ...common,
  method: optional(oneOf("Euler", "Heun")),
  diffusion_form: optional(oneOf(...Object.keys(sitForms))),
  diffusion_norm: optional(real(0, 1e6)),
  last_step: (value) =>
    value === undefined || value === null ? undefined : oneOf(...Object.keys(lastSteps))(value),
  last_step_size: optional(real(0, 1)),
};

/** What a job is about, in our words. */
interface Transport {
  path: PathName;
  prediction: TransportPrediction;
  eps: number;
}

function transportOf(job: Job): Transport {
  const path = byWord("a path", job.path, sitPaths);
  const prediction = byWord("a prediction", job.prediction, sitPredictions);
  return { path, prediction, eps: defaultEpsilons(path, prediction).sample };
}

/** Levels at even times from noise to data, or backwards; the time of the network runs to data. */
function evenLevels(path: PathName, range: TimeRange, points: number, isReverse = false) {
  const [from, to] = isReverse ? [1 - range.high, 1 - range.low] : [range.high, range.low];
  return pathLevels(path, { points, from, to, towards: "data" });
}

/** What runs a plan on the case's field. */
type Field = Omit<ChainRun, "plan" | "start" | "noise">;

async function integrateOde(
  golden: GoldenCase,
  evaluate: Evaluate,
  job: Job,
  field: Field,
): Promise<Values[]> {
  const { path, prediction, eps } = transportOf(job);
  const { method = "dopri5", num_steps: points = 50, reverse, atol = 1e-6, rtol = 1e-3 } = job;
  const levels = evenLevels(path, timeRange(path, prediction, eps), points, reverse);
  const line = pathLine(path, "data");
  const start = ioValues(golden, "x_init");
  const noise = caseNoise(golden);
  const planned = plannedMethods[method];
  if (planned) {
    const plan = planned().plan(levels, line);
    const states = await runChain(evaluate, { ...field, plan, start, noise });
    return [start, ...states.map(({ x }) => x)];
  }
  const velocity = async (x: ArrayLike<number>, level: Level): Promise<Float32Array> => {
    const at = { shape: start.shape, data: Float32Array.from(x) };
    const run = { ...field, plan: velocityPlan(level), start: at, noise };
    const [state] = await runChain(evaluate, run);
    return state!.x.data as Float32Array;
  };
  const entries: Values[] = [];
  const grid = { levels, line };
  const first = Float64Array.from(start.data);
  const options = { method: adaptiveNames[method]!, atol, rtol };
  for await (const { x } of adaptiveFlow(velocity, first, grid, options))
    entries.push({ shape: start.shape, data: x });
  return entries;
}

async function integrateSde(
  golden: GoldenCase,
  evaluate: Evaluate,
  job: Job,
  field: Field,
): Promise<Values[]> {
  const { path, prediction, eps } = transportOf(job);
  const { method = "Euler", num_steps: points = 250, diffusion_norm: norm = 1 } = job;
  const { last_step: last = "Mean", last_step_size: size = 0.04, diffusion_form = "SBDM" } = job;
  const diffusion = byWord("a diffusion form", diffusion_form, sitForms);
  const lastStep = last === null ? 0 : size;
  const range = stochasticTimeRange(path, prediction, eps, { diffusion, lastStep });
  const levels: PathLevel[] = evenLevels(path, range, points);
  if (last !== null) {
    // the last step goes on by its size, which need not end at data
    levels.push(pathLevel(path, Math.max(0, range.low - lastStep), "data"));
  }
  const sampler = flowSde({
    method: method === "Heun" ? "heun" : "euler",
    diffusion,
    norm,
    lastStep: last === null ? "none" : byWord("a last step", last, lastSteps),
  });
  const states = await runChain(evaluate, {
    ...field,
    plan: sampler.plan(levels),
    start: ioValues(golden, "x_init"),
    noise: caseNoise(golden),
  });
  const entries = states.map(({ x }) => x);
  return last === null ? [...entries, entries.at(-1)!] : entries;
}

async function integrate(
  golden: GoldenCase,
  evaluate: Evaluate,
  fieldOf: (job: Job) => Field,
): Promise<Record<string, Values>> {
  const { jobs } = golden.config as unknown as { jobs: Job[] };
  const results: Record<string, Values> = {};
  for (const [i, job] of jobs.entries()) {
    checkFields(`parity: ${golden.name}: job ${i}`, job, job.type === "sde" ? sdeRules : odeRules);
    const run = job.type === "ode" ? integrateOde : integrateSde;
    const entries = await run(golden, evaluate, job, fieldOf(job));
    entries.forEach((entry, k) => (results[`${i}.x.${k}`] = entry));
  }
  return results;
}

/** Coefficients and rates of the level of an evaluation, for the field. */
const pathInput = ({ level }: Evaluation): Values => {
  const { a, c, rates } = level;
  return { shape: [4], data: Float32Array.of(a, c, rates!.a, rates!.c) };
};

/** What each network would predict for data N(mu, std²) in every element. */
function gaussianField(
  x: Tensor,
  { mu: channelsFirstMu, path }: Tensors,
  std: number,
  prediction: TransportPrediction,
): Tensor {
  const mu = channelsLast(channelsFirstMu!);
  const at = (i: number): Tensor => path!.slice([i], [1]).reshape(x.shape.map(() => 1));
  const [a, c] = [at(0), at(1)];
  const variance = a
    .square()
    .mul(std * std)
    .add(c.square());
  const rest = x.sub(a.mul(mu)).div(variance);
  if (prediction === "score") return rest.neg();
  const noise = c.mul(rest);
  if (prediction === "eps") return noise;
  const data = mu.add(a.mul(std * std).mul(rest));
  return at(2).mul(data).add(at(3).mul(noise));
}

function analytic(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(`parity: ${golden.name}`, golden.config, { jobs: listOf(object, 0, 1e4) });
  return integrate(golden, evaluate, (job) => {
    const { prediction } = transportOf(job);
    return {
      parameterisation: predictions[prediction],
      denoise: (_, { x }, given) => gaussianField(x, given, job.data_std ?? 1, prediction),
      inputs: (evaluation) => ({ mu: ioValues(golden, "mu"), path: pathInput(evaluation) }),
    };
  });
}

function network(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(`parity: ${golden.name}`, golden.config, {
    jobs: listOf(object, 0, 1e4),
    model: object,
  });
  const { model, weights } = goldenSit(golden);
  return integrate(golden, evaluate, (job) => ({
    parameterisation: predictions[transportOf(job).prediction],
    denoise: (_, { x, times }, { y }) => model.forward({ x, times, labels: y! }),
    inputs: { y: ioValues(golden, "y") },
    parameters: weights.parameters,
  }));
}

export const sitIntegrateRunners: Readonly<Record<string, GoldenRunner>> = {
  sit_integrate_analytic: analytic,
  sit_integrate_net: network,
};
