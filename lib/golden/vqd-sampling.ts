// Golden kinds vqd_sampling and vqd_prior_sample: whole chains with given uniform draws, and one
// call of the purity prior.
import { checkFields, limits, listOf, object, oneOf, real, whole } from "../models/check-config.js";
import { microsoftVqTransformerKeys } from "../models/vq-transformer.keys.js";
import { vqTransformer } from "../models/vq-transformer.js";
import type { VqTransformer } from "../models/vq-transformer.js";
import {
  drawTokens,
  guide,
  logCoefficients,
  logCoefficientTable,
  posterior,
  predictStart,
  truncate,
} from "../processes/discrete.js";
import { maskReplaceSchedule, maskToken } from "../processes/schedules.js";
import type { MaskReplaceSchedule } from "../processes/schedules.js";
import { discretePlan, releasedFastPlan } from "../samplers/discrete.js";
import type { DiscreteStep } from "../samplers/discrete.js";
import { nextReveal, positionScores, selectionScores, sharpen } from "../samplers/purity.js";
import type { PositionRule } from "../samplers/purity.js";
import { where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues, tableOf, valuesGiven, vector } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { loadWeights } from "./weights.js";
import { only } from "./adm-models.js";
import { transformerConfig } from "./vqd-config.js";
import type { GoldenTransformer } from "./vqd-config.js";
import { drawMargin } from "./vqd-math.js";

interface SamplingConfig {
  transformer: GoldenTransformer;
  diffusion_step: number;
  guidance_scale: number;
  truncation_rate: number;
  mode: "full" | "fast";
  skip_step: number;
  batch: number;
}

const samplingRules = {
  transformer: object,
  diffusion_step: whole(1, limits.timesteps),
  guidance_scale: real(-1e6, 1e6),
  truncation_rate: real(0, 1),
  mode: oneOf("full", "fast"),
  skip_step: whole(0, limits.timesteps),
  batch: whole(1, limits.batch),
};

/** A model that is told nothing has nothing to be guided by. */
const unguidedRules = { ...samplingRules, guidance_scale: only(1) };

/**
 * The released code asks for class 1000 as the empty condition; every index from the class count on
 * is the null class.
 */
const unconditional = (x: Tensors, config: SamplingConfig): Tensors => {
  if (x["uncond_emb"]) return { condition: x["uncond_emb"] };
  const labels = x["labels"]!;
  const nullClass = labels.trace.constant(config.transformer.class_number!, [], "i32");
  return { labels: nullClass.broadcastTo(labels.shape) };
};

const conditional = ({ cond_emb: condition, labels }: Tensors): Tensors => ({
  ...(condition && { condition }),
  ...(labels && { labels }),
});

function sampleStep(model: VqTransformer, config: SamplingConfig, x: Tensors): Tensors {
  const { guidance_scale: scale, truncation_rate: rate } = config;
  const tokens = x["tokens"]!;
  const predict = (condition: Tensors): Tensor =>
    predictStart(model.forward({ tokens, times: x["times"]!, ...condition }));
  const predicted = predict(conditional(x));
  const guided =
    Math.abs(scale - 1) < 1e-3
      ? predicted
      : guide(predicted, predict(unconditional(x, config)), scale);
  const logP = posterior(truncate(guided, rate), tokens, logCoefficients(x["logTable"]!));
  const uniform = channelsLast(x["uniform"]!);
  return {
    tokens: drawTokens(logP, uniform),
    logP: channelsFirst(logP),
    margin: drawMargin(logP, uniform).min(),
  };
}

const planOf = (config: SamplingConfig, schedule: MaskReplaceSchedule): DiscreteStep[] =>
  config.mode === "fast" ? releasedFastPlan(schedule, config.skip_step) : discretePlan(schedule);

async function sampling(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, samplingRules);
  const config = golden.config as unknown as SamplingConfig;
  const { transformer, diffusion_step: timesteps, batch: B } = config;
  if (transformer.kind === "uncond") checkFields(golden.kind, golden.config, unguidedRules);
  const model = vqTransformer(transformerConfig(transformer, timesteps));
  const schedule = maskReplaceSchedule({ codes: transformer.K, timesteps });
  const { parameters } = loadWeights(golden, model.parameters, microsoftVqTransformerKeys);
  const N = transformer.hw[0] * transformer.hw[1];
  const condition = valuesGiven(golden, "cond_emb", "uncond_emb", "labels");
  const results: Record<string, Values> = {};
  const margins: number[] = [];
  let tokens: Values = {
    shape: [B, N],
    data: new Int32Array(B * N).fill(maskToken(transformer.K)),
  };
  for (const [k, { t, s, posteriorT }] of planOf(config, schedule).entries()) {
    const levels = Array.from({ length: B }, () => ({ t: posteriorT, s }));
    const inputs = {
      ...condition,
      tokens,
      times: { shape: [B], data: new Int32Array(B).fill(t) },
      logTable: tableOf(logCoefficientTable(schedule, levels), B),
      uniform: ioValues(golden, `uniform.${k}`),
    };
    const step = await evaluate((_, x) => sampleStep(model, config, x), { inputs, parameters });
    tokens = step["tokens"]!;
    results[`tokens.${k}`] = tokens;
    results["content_token"] = tokens;
    results[`tap.log_p.${k}`] = step["logP"]!;
    margins.push(step["margin"]!.data[0]!);
  }
  return { ...results, "tap.argmax_margin_per_step": vector(margins) };
}

interface PriorConfig {
  K: number;
  prior_rule: 1 | 2;
  prior_weight: number;
  prior_ps: number;
  to_sample: number;
}

const priorRules = {
  T: whole(1, limits.timesteps),
  K: whole(1, limits.codes),
  /** At timestep 0 the reference takes a plain step, without a prior. */
  t: whole(1, limits.timesteps),
  prior_rule: whole(1, 2),
  prior_weight: real(-1e6, 1e6),
  prior_ps: whole(1, 1e6),
  to_sample: whole(0, 1e6),
  spatial: listOf(whole(1, limits.side), 2, 2),
};

const rules: Readonly<Record<PriorConfig["prior_rule"], PositionRule>> = {
  1: "uniform",
  2: "purity",
};

async function priorSample(
  golden: GoldenCase,
  evaluate: Evaluate,
): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, priorRules);
  const config = golden.config as unknown as PriorConfig;
  const xt = ioValues(golden, "x_t");
  const [B, N] = xt.shape as [number, number];
  const count = nextReveal(config.to_sample, config.prior_ps);
  const chosen = new Int32Array(B * N);
  for (let b = 0; b < B; ++b) {
    for (const place of ioValues(golden, `selected.${b}`).data.subarray(0, count))
      chosen[b * N + place] = 1;
  }
  const inputs = {
    logits: ioValues(golden, "logits"),
    uniform: ioValues(golden, "uniform"),
    xt,
    chosen: { shape: [B, N], data: chosen },
  };
  const results = await evaluate(
    (t, x) => {
      const logX0 = predictStart(channelsLast(x["logits"]!));
      const rule = rules[config.prior_rule];
      const scores = positionScores(logX0, rule);
      const weight = rule === "purity" ? config.prior_weight : 0;
      const drawn = drawTokens(sharpen(logX0, scores, weight), channelsLast(x["uniform"]!));
      const isChosen = t.constant(0, [], "i32").less(x["chosen"]!);
      return {
        selection_scores: selectionScores(scores, x["xt"]!, config.K),
        tokens: where(isChosen, drawn, x["xt"]!),
      };
    },
    { inputs },
  );
  return { ...results, sampled: newlyVisible(xt, results["tokens"]!, config.K) };
}

/** Positions of each sample that were masked before and are not after. */
function newlyVisible(before: Values, after: Values, K: number): Values {
  const [B, N] = before.shape as [number, number];
  const isVisible = (values: Values, i: number): number => (values.data[i] === K ? 0 : 1);
  const data = new Int32Array(B);
  for (let i = 0; i < B * N; ++i)
    data[Math.floor(i / N)]! += isVisible(after, i) - isVisible(before, i);
  return { shape: [B], data };
}

export const vqdSamplingRunners: Readonly<Record<string, GoldenRunner>> = {
  vqd_sampling: sampling,
  vqd_prior_sample: priorSample,
};
