// Golden kinds ldm_ddim_tables and ldm_ddim_sampling: schedules, timesteps and tables of latent
// diffusion's DDIM, and its whole chain with guidance.
import { checkChoice } from "../errors.js";
import {
  checkFields,
  limits,
  listOf,
  object,
  optional,
  real,
  whole,
} from "../models/check-config.js";
import type { Rule, Rules } from "../models/check-config.js";
import { latentDiffusionUnet } from "../models/latent-diffusion-unet.js";
import {
  latentDiffusionCodeUnetKeys,
  latentDiffusionUnetKeys,
} from "../models/latent-diffusion-unet.keys.js";
import { chainLevel, gaussianChain } from "../processes/gaussian.js";
import type { GaussianChain } from "../processes/gaussian.js";
import { posteriorDeviation, predictions } from "../processes/gaussian-levels.js";
import type { Level } from "../processes/gaussian-levels.js";
import {
  betasOfAlphaBar,
  cosineAlphaBar,
  linearBetas,
  scaledLinearBetas,
  squareRootBetas,
} from "../processes/gaussian-schedules.js";
import { latentTimesteps } from "../processes/respacing.js";
import { ddim } from "../samplers/ddim.js";
import { classifierFree } from "../samplers/guidance.js";
import { concat } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Config, GoldenCase, Values } from "./case.js";
import { byWord, integers, ioValues, valuesGiven, vector } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { latentUnetConfig } from "./ldm-unet.js";
import { caseNoise, runChain } from "./sampled-chain.js";
import { loadWeights } from "./weights.js";

/** The reference's names: its "linear" is linear in sqrt(beta), its "sqrt_linear" the plain one. */
const schedules: Readonly<
  Record<string, (range: { timesteps: number; first: number; last: number }) => number[]>
> = {
  linear: scaledLinearBetas,
  sqrt_linear: linearBetas,
  sqrt: squareRootBetas,
  cosine: ({ timesteps }) => betasOfAlphaBar(cosineAlphaBar, timesteps),
};

type ScheduleConfig = [name: string, T: number, first: number, last: number];

const betasOf = ([name, timesteps, first, last]: ScheduleConfig): number[] =>
  byWord("a schedule", name, schedules)({ timesteps, first, last });

const methodOf = (method: string): "uniform" | "quad" =>
  checkChoice("parity", "a method", method, ["uniform", "quad"]);

/** Levels of the reference's DDIM: timesteps as they are, and an end at timestep 0, not at clean data. */
const ddimLevels = (chain: GaussianChain, timesteps: readonly number[]): Level[] => [
  ...timesteps.map((t) => chainLevel(chain, t)).reverse(),
  chainLevel(chain, 0),
];

const row: Rule = (value) => (Array.isArray(value) && value.length === 4 ? undefined : "4 values");

const tableRules: Rules = { schedules: listOf(row, 1, 1000), ddim: listOf(row, 0, 1000) };

function tables(golden: GoldenCase): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, tableRules);
  const config = golden.config as unknown as {
    schedules: ScheduleConfig[];
    ddim: [schedule: number, method: string, steps: number, eta: number][];
  };
  const results: Record<string, Values> = {};
  const betas = config.schedules.map(betasOf);
  betas.forEach((values, i) => (results[`${i}.betas`] = vector(values)));
  config.ddim.forEach(([schedule, method, steps, eta], j) => {
    const chain = gaussianChain(betas[schedule]!);
    const timesteps = latentTimesteps(chain.timesteps, steps, methodOf(method));
    const pairs = ddimLevels(chain, timesteps).reverse();
    const [previous, now] = [pairs.slice(0, -1), pairs.slice(1)];
    results[`ddim${j}.timesteps`] = integers(timesteps);
    results[`ddim${j}.sigmas`] = vector(
      now.map((from, i) => eta * posteriorDeviation(from, previous[i]!)),
    );
    results[`ddim${j}.alphas`] = vector(now.map(({ a }) => a * a));
    results[`ddim${j}.alphas_prev`] = vector(previous.map(({ a }) => a * a));
  });
  return Promise.resolve(results);
}

interface SamplingConfig {
  unet: Config;
  beta_schedule: ScheduleConfig;
  ddim_steps: number;
  eta: number;
  unconditional_guidance_scale: number;
  ddim_discretize?: string;
  temperature?: number;
}

const samplingRules: Rules = {
  unet: object,
  beta_schedule: row,
  ddim_steps: whole(1, limits.timesteps),
  eta: real(0, 100),
  unconditional_guidance_scale: real(-1e6, 1e6),
  ddim_discretize: optional((value) => (value === "quad" || value === "uniform" ? undefined : "quad or uniform")), // prettier-ignore
  temperature: optional(real(0, 1e6)),
  /** What follows from the options above. */
  actual_steps: optional(whole(1, limits.timesteps)),
  ddim_timesteps: optional(listOf(whole(0, limits.timesteps), 1, limits.timesteps)),
};

const scaledValues = ({ shape, data }: Values, factor: number): Values => ({
  shape,
  data: Float32Array.from(data, (value) => value * factor),
});

/** Conditions of one branch, or of both, the conditional first. */
const conditions = (given: Tensors, isGuided: boolean): Tensors => {
  const context = given["cond"];
  if (!context) return {};
  return { context: isGuided ? concat([context, given["uncond"]!], 0) : context };
};

async function sampling(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, samplingRules);
  const config = golden.config as unknown as SamplingConfig;
  const { unconditional_guidance_scale: scale, ddim_discretize = "uniform" } = config;
  const network = latentUnetConfig(`${golden.kind}: unet`, config.unet);
  const model = latentDiffusionUnet(network);
  const keys = network.codes === undefined ? latentDiffusionUnetKeys : latentDiffusionCodeUnetKeys;
  const { parameters } = loadWeights(golden, model.parameters, keys);
  const chain = gaussianChain(betasOf(config.beta_schedule));
  const timesteps = latentTimesteps(chain.timesteps, config.ddim_steps, methodOf(ddim_discretize));
  const inputs = valuesGiven(golden, "cond", "uncond");
  // without an empty condition, or at scale 1, the reference calls the network once
  const isGuided = scale !== 1 && "uncond" in inputs;
  const states = await runChain(evaluate, {
    plan: ddim({ eta: config.eta }).plan(ddimLevels(chain, timesteps)),
    parameterisation: predictions.eps,
    start: ioValues(golden, "x_T"),
    noise: (step, place) => scaledValues(caseNoise(golden)(step, place), config.temperature ?? 1),
    inputs,
    parameters,
    denoise: (t, input, given) => {
      const context = conditions(given, isGuided);
      if (!isGuided) return model.forward({ x: input.x, times: input.times, ...context });
      const B = input.x.shape[0]!;
      const scales = (): Tensor => t.constant(scale).broadcastTo([B, 1]);
      const both = classifierFree((_, { x, times }) => model.forward({ x, times, ...context }), {
        scales,
      });
      return both(t, input);
    },
    step: { epsilon: "kept" },
  });
  return Object.fromEntries([
    ...states.flatMap(({ done, x, x0 }) => [
      [`x.${done}`, x],
      [`pred_x0.${done}`, x0],
    ]),
    ["sample", states.at(-1)!.x],
  ]) as Record<string, Values>;
}

export const ldmSamplingRunners: Readonly<Record<string, GoldenRunner>> = {
  ldm_ddim_tables: tables,
  ldm_ddim_sampling: sampling,
};
