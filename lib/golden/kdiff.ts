// Golden kinds kdiff_sigmas, kdiff_samplers and kdiff_denoisers: noise levels, solvers on an analytic
// denoiser, and wrappers of networks, of crowsonkb/k-diffusion.
import { checkChoice, checkOptions, DiffusionError } from "../errors.js";
import { checkFields, listOf, real, whole, limits } from "../models/check-config.js";
import {
  denoised,
  denoiserCoefficients,
  denoiserColumns,
  denoiserLoss,
  denoiserTable,
} from "../processes/denoiser-loss.js";
import type { DenoiserLossOptions } from "../processes/denoiser-loss.js";
import { edmPreconditioning, predictions } from "../processes/gaussian-levels.js";
import type { Level } from "../processes/gaussian-levels.js";
import {
  ancestralStep,
  DiscreteSigmas,
  exponentialSigmas,
  karrasSigmas,
  polyexponentialSigmas,
  sigmaLevel,
  sigmaLine,
  vpSigmas,
} from "../processes/sigmas.js";
import { samplerOf } from "../samplers/samplers.js";
import type { SamplerName } from "../samplers/samplers.js";
import type { ContinuousDenoiser } from "../samplers/continuous-step.js";
import type { Solver } from "../samplers/solver.js";
import type { Tensor } from "../trace/tensor.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues } from "./case.js";
import { runPlan } from "./continuous-run.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { channelsLast } from "./layouts.js";

const list = (values: readonly number[]): Values => ({
  shape: [values.length],
  data: Float64Array.from(values),
});

/** Grids by the reference's names and order of arguments; what is left out has its default. */
const grids: Readonly<Record<string, (...args: number[]) => number[]>> = {
  karras: (n, min, max, rho) => karrasSigmas(n!, { min: min!, max: max! }, rho),
  exponential: (n, min, max) => exponentialSigmas(n!, { min: min!, max: max! }),
  polyexponential: (n, min, max, rho) => polyexponentialSigmas(n!, { min: min!, max: max! }, rho),
  vp: (n, betaD, betaMin, end) =>
    vpSigmas(n!, {
      ...(betaD !== undefined && { betaD }),
      ...(betaMin !== undefined && { betaMin }),
      ...(end !== undefined && { end }),
    }),
};

const pair = (value: unknown): string | undefined =>
  Array.isArray(value) && value.length === 2 ? undefined : "a pair of a name and its arguments";

function sigmas(golden: GoldenCase): Promise<Record<string, Values>> {
  checkFields(`parity: ${golden.name}`, golden.config, {
    specs: listOf(pair, 0, 1e4),
    etas: listOf(real(0, 1e6), 0, 1e4),
  });
  const { specs, etas } = golden.config as { specs: [string, number[]][]; etas: number[] };
  const results = specs.map(([name, args], i): Record<string, Values> => {
    const levels = grids[checkChoice("parity", "a grid", name, Object.keys(grids))]!(...args);
    const steps = etas.flatMap((eta) =>
      levels.slice(1).map((to, k) => ancestralStep(levels[k]!, to, eta)),
    );
    const shape = [etas.length, levels.length - 1];
    return {
      [`${i}.sigmas`]: list(levels),
      [`${i}.sigma_down`]: { shape, data: Float64Array.from(steps, ({ down }) => down) },
      [`${i}.sigma_up`]: { shape, data: Float64Array.from(steps, ({ up }) => up) },
    };
  });
  return Promise.resolve(Object.assign({}, ...results) as Record<string, Values>);
}

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
  const [ours, words] = known[checkChoice("parity", "a sampler", name, Object.keys(known))]!;
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

async function solve(
  golden: GoldenCase,
  evaluate: Evaluate,
  [name, options]: [string, Record<string, unknown>],
  index: number,
): Promise<Record<string, Values>> {
  const { data_std: std } = golden.config as { data_std: number };
  const levels = [...ioValues(golden, "sigmas").data].map(sigmaLevel);
  const results: Record<string, Values> = {};
  let draws = 0;
  const run = runPlan(evaluate, {
    plan: knownSampler(name, options).plan(levels, sigmaLine),
    parameterisation: predictions.x0,
    denoise: (t, input, given) => mixtureDenoiser(channelsLast(given["mu"]!), std)(t, input),
    start: ioValues(golden, "x_init"),
    // churn has the noise of its step; the others draw when they need some
    noise: (step, place) => ioValues(golden, `noise.${place === "before" ? step : draws++}`),
    inputs: { mu: ioValues(golden, "mu") },
  });
  for await (const { step, isFirst, read, x0, x } of run) {
    if (isFirst) {
      results[`${index}.x.${step}`] = read;
      results[`${index}.denoised.${step}`] = x0;
    }
    results[`${index}.final`] = x;
  }
  return results;
}

async function samplers(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
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

/** tanh of a mix of channels, plus 0.1 cos(0.05 time). */
function toyNetwork(mix: Tensor, times: Tensor): (x: Tensor) => Tensor {
  return (x) => {
    const [B, C, ...space] = x.shape as [number, number, ...number[]];
    const size = space.reduce((all, extent) => all * extent, 1);
    const mixed = mix.matmul(
      x
        .reshape([B, C, size])
        .transpose([1, 0, 2])
        .reshape([C, B * size]),
    );
    const back = mixed.tanh().reshape([mix.shape[0]!, B, size]).transpose([1, 0, 2]);
    const clock = times.mul(0.05).cos().mul(0.1).reshape([B, 1, 1]);
    return back.add(clock).reshape([B, mix.shape[0]!, ...space]);
  };
}

/** Denoised state and loss of one wrapper; x is of the exploding form. */
function wrapperResults(
  x: Tensors,
  name: string,
  { scale, losses }: { scale: Tensor; losses: Readonly<Record<string, string>> },
): Tensors {
  const state = x["x"]!;
  const net = toyNetwork(x["mix"]!, x[`${name}.times`]!);
  const read = (table: string) => denoiserCoefficients(x[table]!, state.rank);
  const given = { x0: state, noise: x["noise"]! };
  const entries = Object.entries(losses).map(([output, table]) => [
    `${name}.${output}`,
    denoiserLoss(given, net, read(table)),
  ]);
  return {
    [`${name}.denoised`]: denoised(state.mul(scale), net, read(`${name}.table`)),
    ...(Object.fromEntries(entries) as Tensors),
  };
}

interface DenoiserConfig {
  T: number;
  sigma_data: number;
}

/** Steps in the name `eps.get_sigmas_N`. */
const spreadOutputs = (golden: GoldenCase): [string, number][] =>
  [...golden.io.keys()].flatMap((name) => {
    const match = /^eps\.get_sigmas_(\d+)$/.exec(name);
    return match ? [[name, Number(match[1])] as [string, number]] : [];
  });

async function denoisers(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(`parity: ${golden.name}`, golden.config, {
    T: whole(2, limits.timesteps),
    sigma_data: real(0, 1e6),
  });
  const { T, sigma_data: sigmaData } = golden.config as unknown as DenoiserConfig;
  const bars = ioValues(golden, "alphas_cumprod");
  if (bars.data.length !== T)
    throw new DiffusionError("data", `parity: expected ${T} levels, got ${bars.data.length}`);
  const discrete = new DiscreteSigmas(bars.data);
  const given = [...ioValues(golden, "sigma").data];
  const levels = { discrete: given.map((s) => discrete.level(s)), karras: given.map(sigmaLevel) };
  const table = (options: DenoiserLossOptions, at: readonly Level[]): Values => ({
    shape: [at.length, denoiserColumns.length],
    data: denoiserTable(options, at),
  });
  const edm = edmPreconditioning({ sigmaData });
  const x = ioValues(golden, "x");
  const results = await evaluate(
    (t, inputs) => {
      const scale = inputs["scale"]!;
      const one = t.constant(1);
      const plain = (name: string) => ({ loss_per_sample: `${name}.table` });
      return {
        ...wrapperResults(inputs, "eps", { scale, losses: plain("eps") }),
        ...wrapperResults(inputs, "v", { scale, losses: plain("v") }),
        ...wrapperResults(inputs, "karras", {
          scale: one,
          losses: { ...plain("karras"), soft_min_snr_loss: "karras.snr" },
        }),
      };
    },
    {
      inputs: {
        x,
        noise: ioValues(golden, "noise"),
        mix: ioValues(golden, "mix"),
        scale: {
          shape: [given.length, ...x.shape.slice(1).map(() => 1)],
          data: Float32Array.from(levels.discrete, ({ a }) => a),
        },
        "eps.times": list(levels.discrete.map(({ time }) => time)),
        "v.times": list(levels.discrete.map(({ time }) => time)),
        "karras.times": list(given),
        "eps.table": table({ parameterisation: predictions.eps }, levels.discrete),
        "v.table": table({ parameterisation: predictions.v }, levels.discrete),
        "karras.table": table({ parameterisation: edm, sigmaData }, levels.karras),
        "karras.snr": table(
          { parameterisation: edm, weight: "soft-min-snr", sigmaData },
          levels.karras,
        ),
      },
    },
  );
  const readings = levels.karras.map(edm);
  return {
    ...results,
    "eps.sigmas": list(discrete.sigmas),
    "eps.sigma_to_t": list(levels.discrete.map(({ time }) => time)),
    "eps.sigma_to_t_quantized": {
      shape: [given.length],
      data: Int32Array.from(given, (s) => discrete.nearestTime(s)),
    },
    "eps.t_to_sigma": list([...ioValues(golden, "t_query").data].map((q) => discrete.sigmaOf(q))),
    ...Object.fromEntries(
      spreadOutputs(golden).map(([name, steps]) => [name, list(discrete.spread(steps))]),
    ),
    "karras.c_skip": list(readings.map(({ x0 }) => x0[0])),
    "karras.c_out": list(readings.map(({ x0 }) => x0[2])),
    "karras.c_in": list(readings.map(({ inputScale }) => inputScale)),
  };
}

export const kdiffRunners: Readonly<Record<string, GoldenRunner>> = {
  kdiff_sigmas: sigmas,
  kdiff_samplers: samplers,
  kdiff_denoisers: denoisers,
};
