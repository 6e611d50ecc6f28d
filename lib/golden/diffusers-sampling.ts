// Golden kinds diffusers_vqdiffusion_scheduler and diffusers_vqdiffusion_pipeline: the schedule and its steps, and whole
// chains from text states to an image.
import { checkFields, limits, listOf, object, real, whole } from "../models/check-config.js";
import type { Rules } from "../models/check-config.js";
import { vqTransformer } from "../models/vq-transformer.js";
import type { VqTransformer } from "../models/vq-transformer.js";
import { vqgan } from "../models/vqgan.js";
import {
  appendMask,
  drawTokens,
  logCoefficients,
  logCoefficientTable,
  truncate,
  unclampedPosterior,
} from "../processes/discrete.js";
import { maskReplaceSchedule, maskToken } from "../processes/schedules.js";
import type { MaskReplaceSchedule } from "../processes/schedules.js";
import { logSoftmax, logSumExp } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { maybe } from "./adm-models.js";
import type { Config, GoldenCase, Values } from "./case.js";
import { ioValues, tableOf, vector } from "./case.js";
import { transformerConfig, vqModelConfig } from "./diffusers-config.js";
import { codecKeys, transformerKeys } from "./diffusers-models.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { drawMargin, scheduleResults } from "./vqd-math.js";
import { loadWeights } from "./weights.js";

/** Log-probabilities are not below this after truncation. */
const kLogFloor = -70;
/** The most probable class is kept even at rate 0. */
const kSmallestRate = 1e-30;

const endpointRules: Rules = {
  alpha_cum_start: maybe(real(0, 1)),
  alpha_cum_end: maybe(real(0, 1)),
  gamma_cum_start: maybe(real(0, 1)),
  gamma_cum_end: maybe(real(0, 1)),
};

const schedulerRules: Rules = {
  ...endpointRules,
  num_vec_classes: whole(2, limits.codes),
  num_train_timesteps: maybe(whole(1, limits.timesteps)),
  timesteps_tested: listOf(whole(0, limits.timesteps), 0, limits.timesteps),
  truncation_rates: listOf(real(0, 1), 0, 100),
};

/** VQDiffusionScheduler's arrays; the defaults are its own. */
function scheduleOf(codes: number, c: Config): MaskReplaceSchedule {
  const value = (name: string, fallback: number): number =>
    (c[name] as number | null | undefined) ?? fallback;
  return maskReplaceSchedule({
    codes,
    timesteps: value("num_train_timesteps", 100),
    endpoints: {
      abarFirst: value("alpha_cum_start", 0.99999),
      abarLast: value("alpha_cum_end", 9e-6),
      cbarFirst: value("gamma_cum_start", 9e-6),
      cbarLast: value("gamma_cum_end", 0.99999),
    },
  });
}

const levelTable = (schedule: MaskReplaceSchedule, t: number, rows: number): Values => {
  const levels = Array.from({ length: rows }, () => ({ t, s: t - 1 }));
  return tableOf(logCoefficientTable(schedule, levels), rows);
};

/** log p(x_{t-1} | x_t) of scheduler.step: the posterior, or log p(x0) itself at t = 0 (without a mask class). */
const stepProbabilities = (t: number, logX0: Tensor, x: Tensors): Tensor =>
  t === 0
    ? logX0
    : unclampedPosterior(appendMask(logX0, kLogFloor), x["xt"]!, logCoefficients(x["levels"]!));

/** VQDiffusionPipeline.truncate and the clamp behind it. */
const truncated = (logX0: Tensor, rate: number): Tensor =>
  truncate(logX0, Math.max(rate, kSmallestRate)).maximum(kLogFloor);

function testedStep(t: number, rates: readonly number[], x: Tensors): Tensors {
  const logX0 = channelsLast(x["logX0"]!);
  const uniform = channelsLast(x["uniform"]!);
  const logP = stepProbabilities(t, logX0, x);
  return {
    ...(t > 0 && { q_posterior: channelsFirst(logP) }),
    prev_sample: drawTokens(logP, uniform),
    argmax_margin: drawMargin(logP, uniform),
    ...Object.fromEntries(
      rates.map((rate) => [`trunc${rate}`, channelsFirst(truncated(logX0, rate))]),
    ),
  };
}

async function scheduler(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, schedulerRules);
  const c = golden.config;
  const schedule = scheduleOf((c["num_vec_classes"] as number) - 1, c);
  const results = scheduleResults(schedule);
  for (const t of c["timesteps_tested"] as number[]) {
    const given = (name: string): Values => ioValues(golden, `t${t}.${name}`);
    const xt = given("x_t");
    const inputs = {
      logX0: given("log_p_x0"),
      uniform: given("uniform"),
      xt,
      levels: levelTable(schedule, t, xt.shape[0]!),
    };
    const step = await evaluate((_, x) => testedStep(t, c["truncation_rates"] as number[], x), {
      inputs,
    });
    for (const [name, values] of Object.entries(step)) results[`t${t}.${name}`] = values;
  }
  return results;
}

const pipelineRules: Rules = {
  ...endpointRules,
  transformer: object,
  vqvae: object,
  num_train_timesteps: whole(1, limits.timesteps),
  num_inference_steps: whole(1, limits.timesteps),
  guidance_scale: real(0, 1e6),
  truncation_rate: real(0, 1),
  batch: whole(1, limits.batch),
};

interface PipelineConfig {
  num_inference_steps: number;
  guidance_scale: number;
  truncation_rate: number;
  batch: number;
}

/** The weights of one model of a pipeline. */
const part = (golden: GoldenCase, prefix: string): GoldenCase => ({
  ...golden,
  weights: new Map(
    [...golden.weights]
      .filter(([name]) => name.startsWith(prefix))
      .map(([name, values]) => [name.slice(prefix.length), values]),
  ),
});

/** log p(x0), guided when the scale is above 1: the first half of the text states is the empty condition. */
function predicted(model: VqTransformer, c: PipelineConfig, x: Tensors): Tensor {
  const text = x["text"]!;
  const [rows, M, D] = text.shape as [number, number, number];
  const { batch: B, guidance_scale: scale } = c;
  const predict = (first: number): Tensor =>
    logSoftmax(
      model.forward({
        tokens: x["xt"]!,
        times: x["times"]!,
        condition: text.slice([first, 0, 0], [B, M, D]),
      }),
    );
  if (scale <= 1) return predict(0);
  const empty = predict(0);
  const mixed = empty.add(
    predict(rows - B)
      .sub(empty)
      .mul(scale),
  );
  return mixed.sub(logSumExp(mixed, -1, true));
}

async function pipeline(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, pipelineRules);
  const c = golden.config as unknown as PipelineConfig;
  const { batch: B, num_inference_steps: steps } = c;
  const config = transformerConfig(golden.kind, golden.config["transformer"] as Config);
  const model = vqTransformer(config);
  const schedule = scheduleOf(config.codes, golden.config);
  const { parameters } = loadWeights(
    part(golden, "transformer."),
    model.parameters,
    transformerKeys(config),
  );
  const N = config.grid[0] * config.grid[1];
  const results: Record<string, Values> = {};
  const margins: number[] = [];
  let xt: Values = { shape: [B, N], data: new Int32Array(B * N).fill(maskToken(config.codes)) };
  for (let k = 0; k < steps; ++k) {
    const t = steps - 1 - k; // not respaced
    const inputs = {
      text: ioValues(golden, "text_embeddings"),
      uniform: ioValues(golden, `uniform.${k}`),
      times: { shape: [B], data: new Int32Array(B).fill(t) },
      xt,
      levels: levelTable(schedule, t, B),
    };
    const step = await evaluate(
      (_, x) => {
        const logX0 = truncated(predicted(model, c, x), c.truncation_rate);
        const logP = stepProbabilities(t, logX0, x);
        const uniform = channelsLast(x["uniform"]!);
        return { tokens: drawTokens(logP, uniform), margin: drawMargin(logP, uniform).min() };
      },
      { inputs, parameters },
    );
    xt = step["tokens"]!;
    results[`sample.${k}`] = xt;
    margins.push(step["margin"]!.data[0]!);
  }
  return {
    ...results,
    image: await decoded(golden, evaluate, xt, config.grid),
    "tap.argmax_margin_per_step": vector(margins),
  };
}

/** Tokens -> pixels in [0, 1], (B, H, W, C). */
async function decoded(
  golden: GoldenCase,
  evaluate: Evaluate,
  tokens: Values,
  grid: readonly [number, number],
): Promise<Values> {
  const config = vqModelConfig(golden.kind, golden.config["vqvae"] as Config);
  const codec = vqgan(config);
  const { parameters } = loadWeights(part(golden, "vqvae."), codec.parameters, codecKeys(config));
  const { image } = await evaluate(
    (_, x) => ({ image: codec.detokenize(x["tokens"]!, grid).mul(0.5).add(0.5).clamp(0, 1) }),
    { inputs: { tokens }, parameters },
  );
  return image!;
}

export const diffusersSamplingRunners: Readonly<Record<string, GoldenRunner>> = {
  diffusers_vqdiffusion_scheduler: scheduler,
  diffusers_vqdiffusion_pipeline: pipeline,
};
