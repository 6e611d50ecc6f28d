// Golden kinds kdiff_sigmas, kdiff_samplers and kdiff_denoisers: noise levels, solvers (kdiff-samplers.ts)
// and wrappers of networks, of crowsonkb/k-diffusion.
import { DiffusionError } from "../errors.js";
import { sizeOf } from "../ir/shape.js";
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
  vpSigmas,
} from "../processes/sigmas.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import type { GoldenCase, Values } from "./case.js";
import { byWord, integers, ioValues, vector } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { pair, samplers } from "./kdiff-samplers.js";

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

function sigmas(golden: GoldenCase): Promise<Record<string, Values>> {
  checkFields(`parity: ${golden.name}`, golden.config, {
    specs: listOf(pair, 0, 1e4),
    etas: listOf(real(0, 1e6), 0, 1e4),
  });
  const { specs, etas } = golden.config as { specs: [string, number[]][]; etas: number[] };
  const results = specs.map(([name, args], i): Record<string, Values> => {
    const levels = byWord("a grid", name, grids)(...args);
    const steps = etas.flatMap((eta) =>
      levels.slice(1).map((to, k) => ancestralStep(levels[k]!, to, eta)),
    );
    const shape = [etas.length, levels.length - 1];
    return {
      [`${i}.sigmas`]: vector(levels),
      [`${i}.sigma_down`]: { shape, data: Float64Array.from(steps, ({ down }) => down) },
      [`${i}.sigma_up`]: { shape, data: Float64Array.from(steps, ({ up }) => up) },
    };
  });
  return Promise.resolve(Object.assign({}, ...results) as Record<string, Values>);
}

/** tanh of a mix of channels, plus 0.1 cos(0.05 time). */
function toyNetwork(mix: Tensor, times: Tensor): (x: Tensor) => Tensor {
  return (x) => {
    const [B, C, ...space] = x.shape as [number, number, ...number[]];
    const size = sizeOf(space);
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

const table = (options: DenoiserLossOptions, at: readonly Level[]): Values => ({
  shape: [at.length, denoiserColumns.length],
  data: denoiserTable(options, at),
});

/** Levels of the case's sigmas, for networks trained on a chain and for those told sigma. */
interface CaseLevels {
  discrete: readonly Level[];
  karras: readonly Level[];
}

const timesOf = (levels: readonly Level[]): Values => vector(levels.map(({ time }) => time));

function denoiserInputs(golden: GoldenCase, { discrete, karras }: CaseLevels, sigmaData: number) {
  const edm = edmPreconditioning({ sigmaData });
  const x = ioValues(golden, "x");
  return {
    x,
    noise: ioValues(golden, "noise"),
    mix: ioValues(golden, "mix"),
    scale: {
      shape: [discrete.length, ...x.shape.slice(1).map(() => 1)],
      data: Float32Array.from(discrete, ({ a }) => a),
    },
    "eps.times": timesOf(discrete),
    "v.times": timesOf(discrete),
    "karras.times": timesOf(karras),
    "eps.table": table({ parameterisation: predictions.eps }, discrete),
    "v.table": table({ parameterisation: predictions.v }, discrete),
    "karras.table": table({ parameterisation: edm, sigmaData }, karras),
    "karras.snr": table({ parameterisation: edm, weight: "soft-min-snr", sigmaData }, karras),
  };
}

function allWrappers(t: Trace, inputs: Tensors): Tensors {
  const scale = inputs["scale"]!;
  const plain = (name: string) => ({ loss_per_sample: `${name}.table` });
  const losses = { ...plain("karras"), soft_min_snr_loss: "karras.snr" };
  return {
    ...wrapperResults(inputs, "eps", { scale, losses: plain("eps") }),
    ...wrapperResults(inputs, "v", { scale, losses: plain("v") }),
    ...wrapperResults(inputs, "karras", { scale: t.constant(1), losses }),
  };
}

/** Quantities that need no network. */
function wrapperNumbers(
  golden: GoldenCase,
  discrete: DiscreteSigmas,
  levels: CaseLevels,
  sigmaData: number,
): Record<string, Values> {
  const sigmas = [...ioValues(golden, "sigma").data];
  const readings = levels.karras.map(edmPreconditioning({ sigmaData }));
  return {
    "eps.sigmas": vector(discrete.sigmas),
    "eps.sigma_to_t": timesOf(levels.discrete),
    "eps.sigma_to_t_quantized": integers(sigmas.map((s) => discrete.nearestTime(s))),
    "eps.t_to_sigma": vector([...ioValues(golden, "t_query").data].map((q) => discrete.sigmaOf(q))),
    ...Object.fromEntries(
      spreadOutputs(golden).map(([name, steps]) => [name, vector(discrete.spread(steps))]),
    ),
    "karras.c_skip": vector(readings.map(({ x0 }) => x0[0])),
    "karras.c_out": vector(readings.map(({ x0 }) => x0[2])),
    "karras.c_in": vector(readings.map(({ inputScale }) => inputScale)),
  };
}

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
  return {
    ...(await evaluate(allWrappers, { inputs: denoiserInputs(golden, levels, sigmaData) })),
    ...wrapperNumbers(golden, discrete, levels, sigmaData),
  };
}

export const kdiffRunners: Readonly<Record<string, GoldenRunner>> = {
  kdiff_sigmas: sigmas,
  kdiff_samplers: samplers,
  kdiff_denoisers: denoisers,
};
