// Golden kinds vqd_schedule and vqd_diffusion_math: schedule arrays, marginals, posterior, losses
// and truncation of VQ-Diffusion, without a network. Log-probabilities are (B, classes, L) in the
// cases and (B, N, classes) here.
import { gradients } from "../autodiff/differentiate.js";
import { checkFields, limits, listOf, real, whole } from "../models/check-config.js";
import {
  drawTokens,
  gumbelOf,
  keepBest,
  logCoefficients,
  logCoefficientTable,
  logOneHot,
  posterior,
  predictStart,
  transition,
  truncate,
} from "../processes/discrete.js";
import {
  discreteLoss,
  lossWeightTable,
  referenceLoss,
  timestepProbabilities,
  updateImportance,
} from "../processes/discrete-loss.js";
import type { LossOptions } from "../processes/discrete-loss.js";
import { coefficientTable, logBuffers, maskReplaceSchedule } from "../processes/schedules.js";
import type { MaskReplaceSchedule } from "../processes/schedules.js";
import { topK } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { maybe, only } from "./adm-models.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues, tableOf, valuesGiven, vector } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { lossRules } from "./vqd-config.js";

/** What the cases write for -infinity. */
const kWrittenInfinity = -1e30;

/** The arrays of a schedule and their logarithms by the references' names. */
export function scheduleResults(arrays: MaskReplaceSchedule): Record<string, Values> {
  const { a: at, b: bt, c: ct, abar: att, bbar: btt, cbar: ctt } = arrays;
  const raw = Object.entries({ at, bt, ct, att, btt, ctt });
  const logs = Object.entries(logBuffers(arrays));
  return Object.fromEntries([
    ...raw.map(([name, values]) => [`raw.${name}`, vector(values)] as const),
    ...logs.map(([name, values]) => {
      return [name, vector(values.map((x) => Math.max(x, kWrittenInfinity)))] as const;
    }),
  ]);
}

const scheduleRules = {
  T: whole(1, limits.timesteps),
  K: whole(1, limits.codes),
  alpha_init_type: maybe(only("alpha1")),
  att_1: real(0, 1),
  att_T: real(0, 1),
  ctt_1: real(0, 1),
  ctt_T: real(0, 1),
};

function schedule(golden: GoldenCase): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, scheduleRules);
  const c = golden.config as Record<"T" | "K" | "att_1" | "att_T" | "ctt_1" | "ctt_T", number>;
  const arrays = maskReplaceSchedule({
    codes: c.K,
    timesteps: c.T,
    endpoints: { abarFirst: c.att_1, abarLast: c.att_T, cbarFirst: c.ctt_1, cbarLast: c.ctt_T },
  });
  return Promise.resolve(scheduleResults(arrays));
}

interface MathConfig {
  T: number;
  K: number;
  auxiliary_loss_weight: number;
  adaptive_auxiliary_loss: boolean;
  mask_weight: [number, number];
  truncation_rates: number[];
  truncation_topk: number;
}

const mathRules = {
  ...lossRules,
  T: whole(1, limits.timesteps),
  K: whole(1, limits.codes),
  spatial: listOf(whole(1, limits.side), 2, 2),
  truncation_rates: listOf(real(0, 1), 1, 100),
  truncation_topk: whole(1, limits.codes),
};

/** The reference's loss options in our words. */
export const lossOptions = (
  config: Pick<MathConfig, "auxiliary_loss_weight" | "adaptive_auxiliary_loss" | "mask_weight">,
  timesteps: number,
): LossOptions => ({
  timesteps,
  auxiliaryWeight: config.auxiliary_loss_weight,
  adaptiveAuxiliary: config.adaptive_auxiliary_loss,
  maskWeight: config.mask_weight,
});

function mathInputs(golden: GoldenCase, arrays: MaskReplaceSchedule): Record<string, Values> {
  const config = golden.config as unknown as MathConfig;
  const times = [...ioValues(golden, "t").data];
  const B = times.length;
  const levels = times.map((t) => ({ t, s: t - 1 }));
  const history = {
    history: Float64Array.from(ioValues(golden, "Lt_history_before").data),
    counts: Float64Array.from(ioValues(golden, "Lt_count_before").data),
  };
  const p = timestepProbabilities(history);
  const uniform = times.map(() => 1 / config.T);
  const drawn = times.map((t) => p[t]!);
  const options = lossOptions(config, config.T);
  return {
    ...valuesGiven(golden, "x0", "t", "uniform_q", "uniform_p", "logits", "x_t_given"),
    logTable: tableOf(logCoefficientTable(arrays, levels), B),
    coeffs: tableOf(coefficientTable(arrays, levels), B),
    weights: tableOf(lossWeightTable(times, drawn, options), B),
    uniformWeights: tableOf(lossWeightTable(times, uniform, options), B),
  };
}

function lossResults(x: Tensors, xt: Tensor, logits: Tensor): Tensors {
  const given = { logits, x0: x["x0"]!, xt, logTable: x["logTable"]!, times: x["t"]! };
  const trained = referenceLoss({ ...given, weights: x["weights"]! });
  const plain = referenceLoss({ ...given, weights: x["uniformWeights"]! });
  const fused = discreteLoss({ ...given, coeffs: x["coeffs"]!, weights: x["weights"]! });
  return {
    kl: trained.kl,
    loss_per_sample: trained.perSample,
    loss: trained.loss,
    loss_per_sample_uniform_t: plain.perSample,
    klPerSample: trained.klPerSample,
    "grad.logits": gradients(trained.loss, [x["logits"]!])[0]!,
    "loss@fused": fused.loss,
    "loss_per_sample@fused": fused.perSample,
    "grad.logits@fused": gradients(fused.loss, [x["logits"]!])[0]!,
  };
}

function mathResults(config: MathConfig, x: Tensors): Tensors {
  const { K, truncation_rates: rates, truncation_topk: best } = config;
  const [uniformQ, uniformP] = [channelsLast(x["uniform_q"]!), channelsLast(x["uniform_p"]!)];
  const levels = logCoefficients(x["logTable"]!);
  const logits = channelsLast(x["logits"]!);
  const logX0 = logOneHot(x["x0"]!, K + 1);
  const marginal = transition(logX0, levels.now);
  const xt = drawTokens(marginal, uniformQ);
  const given = x["x_t_given"]!;
  const predicted = predictStart(logits);
  const model = posterior(predicted, xt, levels);
  const drawnFrom = posterior(truncate(predicted, rates[0]!), given, levels);
  const logs = {
    log_onehot_x0: logX0,
    q_pred: marginal,
    q_pred_tm1: transition(logX0, levels.to),
    q_pred_one_timestep: transition(logOneHot(xt, K + 1), levels.step),
    predict_start: predicted,
    q_posterior_true: posterior(logX0, xt, levels),
    q_posterior_model: model,
    model_prob_log: model,
    q_posterior_model_given: posterior(predicted, given, levels),
    p_pred_truncated: drawnFrom,
    [`truncated_top${best}`]: keepBest(predicted, best),
    ...Object.fromEntries(rates.map((r) => [`truncated_r${r}`, truncate(predicted, r)])),
  };
  const named = Object.entries(logs).map(([name, value]) => [name, channelsFirst(value)]);
  return {
    ...(Object.fromEntries(named) as Tensors),
    x_t: xt,
    ...lossResults(x, xt, logits),
    p_sample: drawTokens(drawnFrom, uniformP),
    "tap.p_sample_margin": drawMargin(drawnFrom, uniformP),
    "tap.q_sample_margin": drawMargin(marginal, uniformQ),
  };
}

/** How clear each draw is: best minus second best of what the argmax sees. */
export function drawMargin(logP: Tensor, uniform: Tensor): Tensor {
  const { values } = topK(logP.add(gumbelOf(uniform)), { k: 2, descending: true });
  const [B, N] = values.shape as [number, number, number];
  const column = (i: number): Tensor => values.slice([0, 0, i], [B, N, 1]).reshape([B, N]);
  return column(0).sub(column(1));
}

async function diffusionMath(
  golden: GoldenCase,
  evaluate: Evaluate,
): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, mathRules);
  const config = golden.config as unknown as MathConfig;
  const arrays = maskReplaceSchedule({ codes: config.K, timesteps: config.T });
  const results = await evaluate((_, inputs) => mathResults(config, inputs), {
    inputs: mathInputs(golden, arrays),
  });
  const { klPerSample, ...compared } = results;
  const before = {
    history: Float64Array.from(ioValues(golden, "Lt_history_before").data),
    counts: Float64Array.from(ioValues(golden, "Lt_count_before").data),
  };
  const after = updateImportance(before, [...ioValues(golden, "t").data], klPerSample!.data);
  return {
    ...compared,
    importance_probs: vector(timestepProbabilities(before)),
    Lt_history_after: vector(after.history),
    Lt_count_after: vector(after.counts),
  };
}

export const vqdMathRunners: Readonly<Record<string, GoldenRunner>> = {
  vqd_schedule: schedule,
  vqd_diffusion_math: diffusionMath,
};
