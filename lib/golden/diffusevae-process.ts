// Golden kinds diffusevae_ddpm, diffusevae_respacing and diffusevae_sampling: both formulations of
// DiffuseVAE's second stage, their training loss and their chains.
import { admUnetKeys } from "../models/adm.keys.js";
import { checkFields, limits, listOf, object, oneOf, optional, real, whole } from "../models/check-config.js"; // prettier-ignore
import type { Rule, Rules } from "../models/check-config.js";
import { diffuseVaeUnet } from "../models/diffusevae-unet.js";
import type { DiffuseVaeUnet } from "../models/diffusevae-unet.js";
import type { KeyMap } from "../nn/key-map.js";
import { chainLevels, gaussianChain, respacedChain } from "../processes/gaussian.js";
import type { Formulation, GaussianChain } from "../processes/gaussian.js";
import { predictions } from "../processes/gaussian-levels.js";
import {
  corrupt,
  fixedVariance,
  gaussianColumns,
  gaussianLoss,
  gaussianTable,
  posteriorMean,
  predictedPosterior,
} from "../processes/gaussian-loss.js";
import type { VarianceName } from "../processes/gaussian-loss.js";
import { linearBetas32 } from "../processes/gaussian-schedules.js";
import { quadraticTimesteps, stridedTimesteps } from "../processes/respacing.js";
import { ddim } from "../samplers/ddim.js";
import { ddpm } from "../samplers/ddpm.js";
import type { ContinuousDenoiser } from "../samplers/continuous-step.js";
import { classifierFree, withAndWithoutPair } from "../samplers/guidance.js";
import { concat } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { maybe } from "./adm-models.js";
import type { Config, GoldenCase, Values } from "./case.js";
import { byWord, integers, ioValues, valuesGiven, vector } from "./case.js";
import { caseNoise, runChain } from "./sampled-chain.js";
import { diffuseVaeUnetConfig } from "./diffusevae-models.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { runModel } from "./model-run.js";
import type { ModelRun } from "./model-run.js";
import { loadWeights } from "./weights.js";

interface ChainConfig {
  T: number;
  beta_1: number;
  beta_2: number;
}

const formulation: Rule = (value) => (value === 1 || value === 2 ? undefined : "1 or 2");

const chainRules: Rules = {
  T: whole(1, limits.timesteps),
  beta_1: real(0, 1),
  beta_2: real(0, 1),
};

/** Betas of a float32 linspace, everything else in float64. */
const chainOf = ({ T, beta_1: first, beta_2: last }: ChainConfig): GaussianChain =>
  gaussianChain(linearBetas32({ timesteps: T, first, last }));

const varianceNames: Readonly<Record<string, VarianceName>> = {
  fixedlarge: "fixedLarge",
  fixedsmall: "fixedSmall",
};

const skips: Readonly<Record<string, (T: number, count: number) => number[]>> = {
  uniform: stridedTimesteps,
  quad: quadraticTimesteps,
};

function respacing(golden: GoldenCase): Promise<Record<string, Values>> {
  const config = golden.config as unknown as ChainConfig & { specs: [string, number][] };
  checkFields(golden.kind, golden.config, {
    ...chainRules,
    specs: listOf(() => undefined, 0, 1000),
  });
  const chain = chainOf(config);
  const results = config.specs.map(([name, count]) => {
    const steps = byWord("a skip", name, skips)(config.T, count);
    const short = respacedChain(chain, steps);
    const arrays = {
      betas: short.betas,
      alpha_bar: short.alphaBars,
      alpha_bar_shifted: short.alphaBarsPrev,
      post_variance: short.posteriorVariance,
      post_log_variance_clipped: short.posteriorLogVariance,
      post_coeff_1: short.posteriorMeanX0,
      post_coeff_2: short.posteriorMeanXt,
    };
    return Object.fromEntries([
      [`${name}.${count}.steps`, integers(steps)],
      [`${name}.${count}.timestep_map`, integers(short.times)],
      ...Object.entries(arrays).map(([array, data]) => [`${name}.${count}.${array}`, vector(data)]),
    ]) as Record<string, Values>;
  });
  return Promise.resolve(Object.assign({}, ...results) as Record<string, Values>);
}

/** The reference's buffers. */
function buffers(chain: GaussianChain, form: Formulation): Record<string, Values> {
  const c3 = chain.betas.map((_, t) => posteriorMean(chain, t, form).pair);
  const arrays = {
    betas: chain.betas,
    sqrt_alpha_bar: chain.sqrtAlphaBars,
    minus_sqrt_alpha_bar: chain.sqrtOneMinusAlphaBars,
    sqrt_recip_alphas_cumprod: chain.sqrtRecipAlphaBars,
    sqrt_recipm1_alphas_cumprod: chain.sqrtRecipMinusOne,
    post_variance: chain.posteriorVariance,
    post_log_variance_clipped: chain.posteriorLogVariance,
    post_coeff_1: chain.posteriorMeanX0,
    post_coeff_2: chain.posteriorMeanXt,
    ...(form === 2 && { post_coeff_3: c3 }),
  };
  return Object.fromEntries(
    Object.entries(arrays).map(([name, data]) => [`schedule.${name}`, vector(data)]),
  );
}

/** Weights may carry the prefix of the wrapper: decoder.*. */
const wrapperKeys: KeyMap = {
  drop: admUnetKeys.drop,
  rules: admUnetKeys.rules.map((rule) => ({
    ...rule,
    from: new RegExp(rule.from.source.replace(/^\^/, "^(?:decoder\\.)?"), rule.from.flags),
  })),
};

interface DdpmConfig extends ChainConfig {
  form: Formulation;
  unet: Config;
  var_type: string;
  loss: "l1" | "l2";
  guidance_weights: number[];
  posterior_timesteps: number[];
}

const ddpmRules: Rules = {
  ...chainRules,
  form: formulation,
  unet: object,
  var_type: oneOf(...Object.keys(varianceNames)),
  loss: oneOf("l1", "l2"),
  guidance_weights: listOf(real(-1e6, 1e6), 0, 100),
  posterior_timesteps: listOf(whole(0, limits.timesteps), 0, 1000),
};

/** The published code hands z over even to networks that were built without its projection. */
const readsLatent = ({ config }: DiffuseVaeUnet): boolean =>
  "latentWidth" in config && config.latentWidth !== undefined;

/** Unconditional networks see no reconstruction. */
const readsPair = ({ config }: DiffuseVaeUnet): boolean => config.conditional !== false;

/** The network on x beside the reconstruction, or beside zeros. */
const networkOf =
  (model: DiffuseVaeUnet, x: Tensors) =>
  (xt: Tensor, times: Tensor, branch: "conditional" | "empty" = "conditional"): Tensor => {
    const arrange = (value: Tensor): Tensor => (branch === "empty" ? value.mul(0) : value);
    const latent = readsLatent(model) && x["z"] ? { latent: arrange(x["z"]) } : {};
    const lowRes = x["cond"] && readsPair(model) && { lowRes: arrange(channelsLast(x["cond"])) };
    return model.forward({ x: xt, times, ...lowRes, ...latent });
  };

/** eps = (1 + w) eps(cond, z) - w eps(0, 0), as published. */
function guidedEps(
  network: ReturnType<typeof networkOf>,
  xt: Tensor,
  times: Tensor,
  weight: number,
): Tensor {
  if (weight === 0) return network(xt, times);
  const conditional = network(xt, times).mul(1 + weight);
  return conditional.sub(network(xt, times, "empty").mul(weight));
}

const tableOf = (
  chain: GaussianChain,
  times: readonly number[],
  options: { variance: VarianceName; formulation: Formulation },
): Values => ({
  shape: [times.length, gaussianColumns.length],
  data: gaussianTable(chain, times, options),
});

interface Training {
  config: DdpmConfig;
  chain: GaussianChain;
  variance: VarianceName;
  batch: number;
}

function trainingInputs(golden: GoldenCase, { config, chain, variance, batch }: Training) {
  const options = { variance, formulation: config.form };
  const given = valuesGiven(golden, "x0", "cond", "eps", "t", "x_t", "z");
  const inputs: Record<string, Values> = {
    ...given,
    table: tableOf(chain, [...given["t"]!.data], options),
  };
  for (const t of config.posterior_timesteps) {
    const times = Array.from({ length: batch }, () => t);
    inputs[`table.${t}`] = tableOf(chain, times, options);
    inputs[`times.${t}`] = integers(times);
  }
  return inputs;
}

function trainingResults(
  model: DiffuseVaeUnet,
  { config, variance }: Training,
  { x, gradientsOf }: ModelRun,
): Tensors {
  const network = networkOf(model, x);
  const pair = config.form === 2 ? { pair: channelsLast(x["cond"]!) } : {};
  const [x0, eps, given] = [x["x0"]!, x["eps"]!, x["x_t"]!].map(channelsLast) as [Tensor, Tensor, Tensor]; // prettier-ignore
  const table = x["table"]!;
  const xt = corrupt(x0, eps, table, pair.pair);
  const output = network(xt, x["t"]!);
  const loss = gaussianLoss({ x0, eps, xt, output, table, ...pair }, { loss: config.loss });
  const total = loss.perSample.mean();
  const posterior = (t: number, w: number): Tensor => {
    const guided = guidedEps(network, given, x[`times.${t}`]!, w);
    const seen = { output: guided, xt: given, table: x[`table.${t}`]!, ...pair };
    return channelsFirst(predictedPosterior(seen, { variance, clamp: [-1, 1] }).mean);
  };
  const posteriors = config.posterior_timesteps.flatMap((t) =>
    config.guidance_weights.map((w) => [`t${t}.g${pythonFloat(w)}.post_mean`, posterior(t, w)]),
  );
  return {
    noisy_input: channelsFirst(xt),
    eps_pred: channelsFirst(output),
    loss_train: total,
    ...(Object.fromEntries(posteriors) as Tensors),
    ...gradientsOf(total),
  };
}

/** Variances do not depend on the guidance. */
function fixedVariances({ config, chain, variance, batch }: Training): Record<string, Values> {
  const full = (value: number): Values => ({
    shape: [batch, 1, 1, 1],
    data: new Float64Array(batch).fill(value),
  });
  const results: Record<string, Values> = {};
  for (const t of config.posterior_timesteps) {
    const numbers = fixedVariance(chain, t, variance);
    for (const w of config.guidance_weights) {
      results[`t${t}.g${pythonFloat(w)}.post_variance`] = full(numbers.variance);
      results[`t${t}.g${pythonFloat(w)}.post_log_variance`] = full(numbers.logVariance);
    }
  }
  return results;
}

async function training(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, ddpmRules);
  const config = golden.config as unknown as DdpmConfig;
  const chain = chainOf(config);
  const variance = varianceNames[config.var_type]!;
  const batch = ioValues(golden, "t").data.length;
  const run: Training = { config, chain, variance, batch };
  const model = diffuseVaeUnet(diffuseVaeUnetConfig(`${golden.kind}: unet`, config.unet));
  const inputs = trainingInputs(golden, run);
  const options = { parameters: model.parameters, keys: wrapperKeys, inputs };
  const results = await runModel(golden, evaluate, options, (traced) =>
    trainingResults(model, run, traced),
  );
  return { ...buffers(chain, config.form), ...results, ...fixedVariances(run) };
}

/** A number as Python writes a float: 1.0, 0.25. */
const pythonFloat = (value: number): string =>
  Number.isInteger(value) ? value.toFixed(1) : String(value);

interface SamplingConfig extends ChainConfig {
  form: Formulation;
  unet: Config;
  var_type: string;
  sample_method: "ddim" | "ddpm";
  resample_strategy: "spaced" | "truncated";
  skip_strategy: string | null;
  n_steps: number;
  guidance_weight: number;
  eta: number;
}

const samplingRules: Rules = {
  ...chainRules,
  form: formulation,
  unet: object,
  var_type: oneOf(...Object.keys(varianceNames)),
  sample_method: oneOf("ddim", "ddpm"),
  resample_strategy: oneOf("spaced", "truncated"),
  skip_strategy: maybe(oneOf(...Object.keys(skips))),
  n_steps: whole(1, limits.timesteps),
  guidance_weight: real(-1e6, 1e6),
  eta: real(0, 100),
  /** After which steps the case shows the state. */
  checkpoints: optional(listOf(whole(1, limits.timesteps), 0, 1000)),
};

/** Levels of the chain that a case samples from. */
function samplingLevels(config: SamplingConfig) {
  const chain = chainOf(config);
  const { form, n_steps: count, resample_strategy, skip_strategy } = config;
  if (resample_strategy === "truncated") return chainLevels(chain, { formulation: form, count });
  const kept = skips[skip_strategy ?? "uniform"]!(config.T, count);
  return chainLevels(respacedChain(chain, kept), { formulation: form });
}

/** The network of a chain on B rows, or on 2B, of which the second half gets no latent. */
const conditionalNetwork =
  (model: DiffuseVaeUnet, { z }: Tensors): ContinuousDenoiser =>
  (_, { x, times, pair }) => {
    const isBoth = z !== undefined && x.shape[0] === 2 * z.shape[0]!;
    const latent = z && readsLatent(model) && { latent: isBoth ? concat([z, z.mul(0)], 0) : z };
    const lowRes = pair && readsPair(model) && { lowRes: pair };
    return model.forward({ x, times, ...lowRes, ...latent });
  };

async function sampling(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, samplingRules);
  const config = golden.config as unknown as SamplingConfig;
  const { guidance_weight: weight, sample_method: method } = config;
  const model = diffuseVaeUnet(diffuseVaeUnetConfig(`${golden.kind}: unet`, config.unet));
  const { parameters } = loadWeights(golden, model.parameters, wrapperKeys);
  const variance = varianceNames[config.var_type]!;
  const sampler = method === "ddim" ? ddim({ eta: config.eta }) : ddpm({ variance });
  const states = await runChain(evaluate, {
    plan: sampler.plan(samplingLevels(config)),
    parameterisation: predictions.eps,
    start: ioValues(golden, "x_T"),
    noise: caseNoise(golden),
    ...(golden.io.has("cond") && { pair: ioValues(golden, "cond") }),
    inputs: valuesGiven(golden, "z"),
    parameters,
    denoise: (t: Trace, input, given) => {
      const conditional = conditionalNetwork(model, given);
      if (weight === 0) return conditional(t, input);
      const B = input.x.shape[0]!;
      const scales = (): Tensor => t.constant(1 + weight).broadcastTo([B, 1]);
      // the published empty branch sees no pair, but a state that it still shifts
      const both = withAndWithoutPair(conditional, { subtract: false });
      return classifierFree(both, { scales })(t, input);
    },
    step: { epsilon: "kept", clamp: [-1, 1] },
  });
  return Object.fromEntries(states.map(({ done, x }) => [`x_after_${done}_steps`, x]));
}

export const diffuseVaeProcessRunners: Readonly<Record<string, GoldenRunner>> = {
  diffusevae_ddpm: training,
  diffusevae_respacing: respacing,
  diffusevae_sampling: sampling,
};
