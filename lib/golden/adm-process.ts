// Golden kinds adm_schedule, adm_respacing, adm_diffusion_ops and adm_sampling: arrays, respacing,
// posteriors, sampler steps and losses of openai/guided-diffusion without a network, and whole chains
// with one.
import { gradients } from "../autodiff/differentiate.js";
import { admUnet } from "../models/adm-unet.js";
import { admUnetKeys } from "../models/adm.keys.js";
import { checkFields, flag, limits, listOf, object, oneOf, optional, real, text, whole } from "../models/check-config.js"; // prettier-ignore
import type { Rule, Rules } from "../models/check-config.js";
import {
  chainLevel,
  chainLevels,
  gaussianChain,
  rescaledTimes,
  respacedChain,
} from "../processes/gaussian.js";
import type { GaussianChain } from "../processes/gaussian.js";
import { predictions } from "../processes/gaussian-levels.js";
import type { Level, Parameterisation } from "../processes/gaussian-levels.js";
import {
  corrupt,
  gaussianColumns,
  gaussianLoss,
  gaussianTable,
  isLearned,
  predictedPosterior,
  priorTerm,
  tableColumn,
  truePosteriorMean,
} from "../processes/gaussian-loss.js";
import type {
  ChainPrediction,
  GaussianLossOptions,
  VarianceName,
} from "../processes/gaussian-loss.js";
import { cosineBetas, rescaledLinearBetas } from "../processes/gaussian-schedules.js";
import { sectionTimesteps } from "../processes/respacing.js";
import { coefficientRow } from "../samplers/continuous.js";
import type { ContinuousPlan, ContinuousSampler } from "../samplers/continuous.js";
import { continuousStep } from "../samplers/continuous-step.js";
import { ddim } from "../samplers/ddim.js";
import { ddpm, previousMean } from "../samplers/ddpm.js";
import { inversion } from "../samplers/inversion.js";
import { concat } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { admUnetConfig, maybe } from "./adm-models.js";
import type { Config, GoldenCase, Values } from "./case.js";
import { byWord, integers, ioValues, valuesGiven, vector } from "./case.js";
import { caseNoise, runChain } from "./sampled-chain.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { loadWeights } from "./weights.js";

/** Betas of a schedule by the reference's name. */
const admBetas = (name: string, timesteps: number): number[] =>
  byWord("a schedule", name, { linear: rescaledLinearBetas, cosine: cosineBetas })(timesteps);

/** The reference's names of the arrays. */
const arrayNames = {
  betas: "betas",
  alphas_cumprod: "alphaBars",
  alphas_cumprod_prev: "alphaBarsPrev",
  alphas_cumprod_next: "alphaBarsNext",
  sqrt_alphas_cumprod: "sqrtAlphaBars",
  sqrt_one_minus_alphas_cumprod: "sqrtOneMinusAlphaBars",
  log_one_minus_alphas_cumprod: "logOneMinusAlphaBars",
  sqrt_recip_alphas_cumprod: "sqrtRecipAlphaBars",
  sqrt_recipm1_alphas_cumprod: "sqrtRecipMinusOne",
  posterior_variance: "posteriorVariance",
  posterior_log_variance_clipped: "posteriorLogVariance",
  posterior_mean_coef1: "posteriorMeanX0",
  posterior_mean_coef2: "posteriorMeanXt",
} as const satisfies Readonly<Record<string, keyof GaussianChain>>;

const chainArrays = (prefix: string, chain: GaussianChain): Record<string, Values> =>
  Object.fromEntries(
    Object.entries(arrayNames).map(([name, key]) => [`${prefix}.${name}`, vector(chain[key])]),
  );

const anything = (): undefined => undefined;
const pairs: Rule = listOf(listOf(anything, 2, 2), 0, 1000);

function schedule(golden: GoldenCase): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, { schedules: pairs });
  const { schedules } = golden.config as { schedules: [string, number][] };
  const results = schedules.map(([name, T]) =>
    chainArrays(`${name}.${T}`, gaussianChain(admBetas(name, T))),
  );
  return Promise.resolve(Object.assign({}, ...results) as Record<string, Values>);
}

function respacing(golden: GoldenCase): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, { specs: pairs, noise_schedule: text(100) });
  const { specs, noise_schedule } = golden.config as {
    specs: [number, string][];
    noise_schedule: string;
  };
  const results = specs.map(([T, text], i): Record<string, Values> => {
    const kept = sectionTimesteps(T, text);
    const timesteps = integers(kept);
    const betas = admBetas(noise_schedule, T);
    // very short linear chains have no betas below one; the reference gives their timesteps only
    if (betas.some((beta) => beta > 1)) return { [`${i}.timesteps`]: timesteps };
    const chain = respacedChain(gaussianChain(betas), kept);
    return { [`${i}.timesteps`]: timesteps, ...chainArrays(String(i), chain) };
  });
  return Promise.resolve(Object.assign({}, ...results) as Record<string, Values>);
}

interface OpsConfig {
  noise_schedule: string;
  T: number;
  rescale_timesteps: boolean;
  out_var_scale_for_LEARNED_losses?: number;
}

const opsRules: Rules = {
  noise_schedule: oneOf("linear", "cosine"),
  T: whole(1, limits.timesteps),
  rescale_timesteps: flag,
  out_var_scale_for_LEARNED_losses: optional(real(-1e6, 1e6)),
  /** Those of the input t. */
  timesteps: optional(listOf(whole(0, limits.timesteps), 0, 100_000)),
};

const meanNames: Readonly<Record<string, ChainPrediction>> = {
  EPSILON: "eps",
  START_X: "x0",
  PREVIOUS_X: "previous",
};

const varianceNames: Readonly<Record<string, VarianceName>> = {
  LEARNED_RANGE: "learnedRange",
  LEARNED: "learned",
  FIXED_LARGE: "fixedLarge",
  FIXED_SMALL: "fixedSmall",
};

/** Everything of a case that its pieces share. */
interface Ops {
  config: OpsConfig;
  chain: GaussianChain;
  times: number[];
  evaluate: Evaluate;
  golden: GoldenCase;
}

const table = (
  { chain, times }: Ops,
  prediction: ChainPrediction,
  variance: VarianceName,
): Values => ({
  shape: [times.length, gaussianColumns.length],
  data: gaussianTable(chain, times, { prediction, variance }),
});

const outputs = (values: Tensors): Tensors =>
  Object.fromEntries(
    Object.entries(values).map(([name, x]) => [name, x.rank > 1 ? channelsFirst(x) : x]),
  );

const lastAxis = (x: Tensors): Tensors =>
  Object.fromEntries(
    Object.entries(x).map(([name, value]) => [name, value.rank > 2 ? channelsLast(value) : value]),
  );

/** The stand-in network: the given mean, with the given variances when they are learned. */
const outputOf = (mean: Tensor, spread: Tensor, variance: VarianceName): Tensor =>
  isLearned(variance) ? concat([mean, spread], mean.rank - 1) : mean;

async function forward(ops: Ops): Promise<Record<string, Values>> {
  const { golden, chain, evaluate } = ops;
  const inputs = {
    ...valuesGiven(golden, "x0", "noise", "x_t"),
    table: table(ops, "eps", "fixedSmall"),
  };
  const last = chainLevel(chain, chain.timesteps - 1);
  return evaluate(
    (_, given) => {
      const { x0, noise, x_t: xt, table } = lastAxis(given) as Record<"x0" | "noise" | "x_t" | "table", Tensor>; // prettier-ignore
      const full = (x: Tensor): Tensor => x.broadcastTo(x0.shape);
      const c = tableColumn(table, "c", x0);
      return outputs({
        q_sample: corrupt(x0, noise, table),
        q_mean: x0.mul(tableColumn(table, "a", x0)),
        q_variance: full(c.square()),
        q_log_variance: full(c.log().mul(2)),
        q_posterior_mean: truePosteriorMean(x0, { xt, table }),
        q_posterior_variance: full(tableColumn(table, "variance", x0)),
        q_posterior_log_variance: full(tableColumn(table, "logSmall", x0)),
        prior_bpd: priorTerm(x0, last),
      });
    },
    { inputs },
  );
}

/** Rows of a one-step plan for each sample's own pair of levels and reading of the output. */
function stepRows(
  pairs: readonly (readonly Level[])[],
  sampler: ContinuousSampler,
  readings: readonly Parameterisation[],
): Values {
  const rows = pairs.map((levels, i) => {
    const plan = sampler.plan(levels);
    const [evaluation] = plan.steps[0]!.evaluations;
    return coefficientRow(evaluation!, readings[i]!, { slots: 1, before: false });
  });
  return { shape: [rows.length, rows[0]!.length], data: Float32Array.from(rows.flat()) };
}

/** One plan with the steps of several, so that a graph for it serves them all. */
const joined = (plans: readonly ContinuousPlan[]): ContinuousPlan => ({
  ...plans[0]!,
  steps: plans.flatMap(({ steps }) => steps),
});

/** What the first words of a group of results ask for. */
interface Reading {
  prediction: ChainPrediction;
  variance: VarianceName;
  clamp?: readonly [number, number];
}

function readingOf(prefix: string): Reading {
  const [meanName = "", varianceName = "", clip] = prefix.split(".");
  return {
    prediction: byWord("a mean", meanName, meanNames),
    variance: byWord("a variance", varianceName, varianceNames),
    ...(clip === "clip" && { clamp: [-1, 1] }),
  };
}

/** A sampler with the pair of levels of each sample. */
type Step = readonly [ContinuousSampler, readonly (readonly Level[])[]];

function stepsOf({ chain, times }: Ops, { prediction, variance }: Reading): Record<string, Step> {
  const down = times.map((t) => [chainLevel(chain, t), chainLevel(chain, t - 1)]);
  const up = times.map((t) => [chainLevel(chain, t + 1), chainLevel(chain, t)]);
  const mean = prediction === "previous" ? "output" : "x0";
  return {
    p_sample: [ddpm({ variance, mean }), down],
    "ddim_eta0.0": [ddim(), down],
    "ddim_eta0.6": [ddim({ eta: 0.6 }), down],
    ddim_reverse: [inversion(), up],
  };
}

function posteriorInputs(ops: Ops, reading: Reading, steps: Readonly<Record<string, Step>>) {
  const { prediction, variance } = reading;
  const readings = steps["p_sample"]![1].map((levels): Parameterisation => {
    const inner = prediction === "previous" ? previousMean(levels) : predictions[prediction];
    return () => inner(levels[0]!);
  });
  const rows = Object.entries(steps).map(([name, [sampler, pairs]]) => [
    `rows.${name}`,
    stepRows(pairs, sampler, readings),
  ]);
  return {
    ...valuesGiven(ops.golden, "x_t", "step_noise", "out_mean", "out_var"),
    table: table(ops, prediction, variance),
    ...(Object.fromEntries(rows) as Record<string, Values>),
  };
}

/** The state after one step of a sampler, for a given output of the network. */
function steppedState(
  t: Trace,
  inputs: { x: Tensor; noise: Tensor; output: Tensor; coefficients: Tensor },
  [sampler, pairs]: Step,
  { variance, clamp }: Reading,
): Tensor {
  const { x, noise, output, coefficients } = inputs;
  const [batch, ...shape] = x.shape as [number, ...number[]];
  const times = t.constant(0).broadcastTo([batch]);
  const done = continuousStep(
    t,
    { "slot.0": x, times, coefficients, noise },
    {
      denoise: () => output,
      batch,
      shape,
      plan: joined(pairs.map((levels) => sampler.plan(levels))),
      noise: "given",
      epsilon: "rederived",
      ...(clamp && { clamp }),
      ...(isLearned(variance) && { variance: variance as "learned" | "learnedRange" }),
    },
  );
  return done["slot.0"]!;
}

/** p_mean_variance and one step of every sampler. */
async function posterior(ops: Ops, prefix: string): Promise<Record<string, Values>> {
  const reading = readingOf(prefix);
  const steps = stepsOf(ops, reading);
  const results = await ops.evaluate(
    (t, given) => {
      const x = lastAxis(given) as Record<"x_t" | "step_noise" | "out_mean" | "out_var" | "table", Tensor>; // prettier-ignore
      const output = outputOf(x.out_mean, x.out_var, reading.variance);
      const found = predictedPosterior({ output, xt: x.x_t, table: x.table }, reading);
      const stepped = Object.entries(steps).map(([name, step]) => {
        const inputs = { x: x.x_t, noise: x.step_noise, output, coefficients: given[`rows.${name}`]! }; // prettier-ignore
        return [name, steppedState(t, inputs, step, reading)];
      });
      return outputs({
        mean: found.mean,
        variance: found.variance.broadcastTo(x.x_t.shape),
        log_variance: found.logVariance.broadcastTo(x.x_t.shape),
        pred_xstart: found.x0,
        ...(Object.fromEntries(stepped) as Tensors),
      });
    },
    { inputs: posteriorInputs(ops, reading, steps) },
  );
  return Object.fromEntries(
    Object.entries(results).map(([name, value]) => [`${prefix}.${name}`, value]),
  );
}

const losses: Readonly<Record<string, (T: number) => GaussianLossOptions>> = {
  MSE: () => ({ loss: "l2" }),
  RESCALED_MSE: (T) => ({ loss: "l2", boundFactor: T / 1000 }),
  KL: () => ({ loss: "bound" }),
  RESCALED_KL: (T) => ({ loss: "bound", boundFactor: T }),
};

async function training(ops: Ops, prefix: string): Promise<Record<string, Values>> {
  const { golden, config, evaluate } = ops;
  const [, meanName = "", varianceName = "", lossName = ""] = prefix.split(".");
  const prediction = byWord("a mean", meanName, meanNames);
  const variance = byWord("a variance", varianceName, varianceNames);
  const loss = byWord("a loss", lossName, losses)(config.T);
  const scale = variance === "learned" ? (config.out_var_scale_for_LEARNED_losses ?? 1) : 1;
  const inputs = {
    ...valuesGiven(golden, "x0", "noise", "out_mean", "out_var"),
    table: table(ops, prediction, variance),
  };
  const results = await evaluate(
    (_, given) => {
      const x = lastAxis(given) as Record<"x0" | "noise" | "out_mean" | "out_var" | "table", Tensor>; // prettier-ignore
      const spread = x.out_var.mul(scale);
      const { perSample, error, bound } = gaussianLoss(
        {
          x0: x.x0,
          eps: x.noise,
          xt: corrupt(x.x0, x.noise, x.table),
          table: x.table,
          output: outputOf(x.out_mean, spread, variance),
        },
        { prediction, variance, ...loss },
      );
      const wanted = isLearned(variance) ? [x.out_mean, spread] : [x.out_mean];
      const [ofMean, ofSpread] = gradients(perSample.sum(), wanted);
      return outputs({
        loss: perSample,
        grad_out_mean: ofMean!,
        ...(ofSpread && { grad_out_var: ofSpread }),
        ...(error && { mse: error }),
        ...(error && bound && { vb: bound }),
      });
    },
    { inputs },
  );
  return Object.fromEntries(
    Object.entries(results).map(([name, value]) => [`${prefix}.${name}`, value]),
  );
}

/** Groups of results in a case: the first words of their names. */
const groups = (golden: GoldenCase, pattern: RegExp): string[] => [
  ...new Set([...golden.io.keys()].flatMap((name) => pattern.exec(name)?.[1] ?? [])),
];

async function diffusionOps(
  golden: GoldenCase,
  evaluate: Evaluate,
): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, opsRules);
  const config = golden.config as unknown as OpsConfig;
  const plain = gaussianChain(admBetas(config.noise_schedule, config.T));
  const chain = config.rescale_timesteps ? rescaledTimes(plain) : plain;
  const times = [...ioValues(golden, "t").data];
  const ops: Ops = { config, chain, times, evaluate, golden };
  const results = [
    await forward(ops),
    { model_timesteps: vector(Float64Array.from(times, (t) => chain.times[t]!)) },
  ];
  for (const prefix of groups(golden, /^([A-Z_]+\.[A-Z_]+\.(?:no)?clip)\./))
    results.push(await posterior(ops, prefix));
  for (const prefix of groups(golden, /^(train\.[A-Z_]+\.[A-Z_]+\.[A-Z_]+)\./))
    results.push(await training(ops, prefix));
  return Object.assign({}, ...results) as Record<string, Values>;
}

interface SamplingConfig {
  unet: Config;
  diffusion_steps: number;
  noise_schedule: string;
  timestep_respacing: string;
  method: "ddim" | "ddpm";
  eta: number;
  clip_denoised: boolean;
  predict_xstart: boolean;
  learn_sigma: boolean;
  rescale_timesteps: boolean;
  sigma_small?: boolean;
}

const samplingRules: Rules = {
  unet: object,
  diffusion_steps: whole(1, limits.timesteps),
  noise_schedule: oneOf("linear", "cosine"),
  timestep_respacing: text(1000),
  method: oneOf("ddim", "ddpm"),
  eta: real(0, 100),
  clip_denoised: flag,
  predict_xstart: flag,
  learn_sigma: flag,
  rescale_timesteps: flag,
  sigma_small: maybe(flag),
  /** What follows from the options above. */
  num_steps: optional(whole(1, limits.timesteps)),
  timestep_map: optional(listOf(whole(0, limits.timesteps), 1, limits.timesteps)),
};

/** Respaced chain of a case, with the times that its network is told. */
function samplingChain(config: SamplingConfig): GaussianChain {
  const { diffusion_steps: T, noise_schedule, timestep_respacing, rescale_timesteps } = config;
  const base = gaussianChain(admBetas(noise_schedule, T));
  const told = rescale_timesteps ? rescaledTimes(base) : base;
  return respacedChain(told, sectionTimesteps(T, timestep_respacing));
}

async function sampling(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, samplingRules);
  const config = golden.config as unknown as SamplingConfig;
  const model = admUnet(admUnetConfig(`${golden.kind}: unet`, config.unet));
  const { parameters } = loadWeights(golden, model.parameters, admUnetKeys);
  const fixed = config.sigma_small === true ? "fixedSmall" : "fixedLarge";
  const variance: VarianceName = config.learn_sigma ? "learnedRange" : fixed;
  const sampler = config.method === "ddim" ? ddim({ eta: config.eta }) : ddpm({ variance });
  const states = await runChain(evaluate, {
    plan: sampler.plan(chainLevels(samplingChain(config))),
    parameterisation: predictions[config.predict_xstart ? "x0" : "eps"],
    start: ioValues(golden, "x_T"),
    noise: caseNoise(golden),
    inputs: valuesGiven(golden, "y"),
    parameters,
    denoise: (_, { x, times }, { y }) => model.forward({ x, times, ...(y && { labels: y }) }),
    step: {
      epsilon: "rederived",
      ...(config.clip_denoised && { clamp: [-1, 1] }),
      ...(config.learn_sigma && { variance: "learnedRange" }),
    },
  });
  return Object.fromEntries(
    states.flatMap(({ x, x0 }, k) => [
      [`sample.${k}`, x],
      [`pred_xstart.${k}`, x0],
    ]),
  );
}

export const admProcessRunners: Readonly<Record<string, GoldenRunner>> = {
  adm_schedule: schedule,
  adm_respacing: respacing,
  adm_diffusion_ops: diffusionOps,
  adm_sampling: sampling,
};
