// Golden kinds vqd_*_transformer: forward, taps, gradients and training loss of the VQ-Diffusion
// transformer.
import { checkFields, limits, object, whole } from "../models/check-config.js";
import { microsoftVqTransformerKeys } from "../models/vq-transformer.keys.js";
import { vqTransformer } from "../models/vq-transformer.js";
import type { VqTransformer, VqTransformerInput } from "../models/vq-transformer.js";
import {
  drawTokens,
  logCoefficients,
  logCoefficientTable,
  logOneHot,
  transition,
} from "../processes/discrete.js";
import { discreteLoss, lossWeightTable, referenceLoss } from "../processes/discrete-loss.js";
import { coefficientTable, maskReplaceSchedule } from "../processes/schedules.js";
import type { Trace } from "../trace/trace.js";
import type { Tensor } from "../trace/tensor.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues, tableOf } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { runModel, tapResults } from "./model-run.js";
import type { ModelRun } from "./model-run.js";
import { lossRules, transformerConfig } from "./vqd-config.js";
import type { GoldenTransformer } from "./vqd-config.js";
import { lossOptions } from "./vqd-math.js";

interface ModelConfig {
  transformer: GoldenTransformer;
  diffusion_step: number;
  diffusion: {
    auxiliary_loss_weight: number;
    adaptive_auxiliary_loss: boolean;
    mask_weight: [number, number];
  };
}

const rules = {
  transformer: object,
  diffusion_step: whole(1, limits.timesteps),
  diffusion: object,
  batch: whole(1, limits.batch),
};

function givenInputs(golden: GoldenCase): Record<string, Values> {
  const { diffusion_step: T, diffusion, transformer } = golden.config as unknown as ModelConfig;
  const schedule = maskReplaceSchedule({ codes: transformer.K, timesteps: T });
  const times = [...ioValues(golden, "t").data];
  const B = times.length;
  const levels = times.map((t) => ({ t, s: t - 1 }));
  const given = [...golden.io].filter(([, { role }]) => role === "input");
  const weights = lossWeightTable(
    times,
    times.map(() => 1 / T),
    lossOptions(diffusion, T),
  );
  return {
    ...Object.fromEntries(given),
    logTable: tableOf(logCoefficientTable(schedule, levels), B),
    coeffs: tableOf(coefficientTable(schedule, levels), B),
    lossWeights: tableOf(weights, B),
  };
}

/** Network inputs of a case; `tokens` are those at level t. */
const networkInput = (x: Tensors, tokens: Tensor): VqTransformerInput => ({
  tokens,
  times: x["t"]!,
  ...(x["cond_emb"] && { condition: x["cond_emb"] }),
  ...(x["labels"] && { labels: x["labels"] }),
});

function trainingResults(model: VqTransformer, x: Tensors, K: number) {
  const marginal = transition(logOneHot(x["x0"]!, K + 1), logCoefficients(x["logTable"]!).now);
  const xt = drawTokens(marginal, channelsLast(x["uniform_q"]!));
  const logits = model.forward(networkInput(x, xt));
  const inputs = { logits, x0: x["x0"]!, xt, weights: x["lossWeights"]! };
  return {
    reference: referenceLoss({ ...inputs, logTable: x["logTable"]!, times: x["t"]! }),
    fused: discreteLoss({ ...inputs, coeffs: x["coeffs"]! }),
  };
}

/** The null class is one past the last in every row. */
const nullLabels = (t: Trace, labels: Tensor, classes: number): Tensor =>
  t.constant(classes, [], "i32").broadcastTo(labels.shape);

function buildResults(
  golden: GoldenCase,
  model: VqTransformer,
  { t, x, gradientsOf }: ModelRun,
): Tensors {
  const { transformer } = golden.config as unknown as ModelConfig;
  const logits = model.forward(networkInput(x, x["x_t"]!));
  const taps = tapResults(golden, t);
  const linear = channelsFirst(logits).mul(x["upstream"]!).mean();
  const { reference, fused } = trainingResults(model, x, transformer.K);
  const nullClass = golden.io.has("logits_null_class")
    ? { logits_null_class: channelsFirst(nullLogits(model, t, x, transformer.class_number!)) }
    : {};
  const fusedGradients = gradientsOf(fused.loss, "grad.train.");
  return {
    ...taps,
    logits: channelsFirst(logits),
    ...nullClass,
    loss_linear: linear,
    ...gradientsOf(linear, "grad.linear."),
    loss_per_sample: reference.perSample,
    loss_train: reference.loss,
    "loss_per_sample@fused": fused.perSample,
    "loss_train@fused": fused.loss,
    ...gradientsOf(reference.loss, "grad.train."),
    ...Object.fromEntries(
      Object.entries(fusedGradients).map(([name, value]) => [`${name}@fused`, value]),
    ),
  };
}

const nullLogits = (model: VqTransformer, t: Trace, x: Tensors, classes: number): Tensor =>
  model.forward({ ...networkInput(x, x["x_t"]!), labels: nullLabels(t, x["labels"]!, classes) });

async function transformer(
  golden: GoldenCase,
  evaluate: Evaluate,
): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, rules);
  const config = golden.config as unknown as ModelConfig;
  checkFields(`${golden.kind}: diffusion`, config.diffusion, lossRules);
  const model = vqTransformer(transformerConfig(config.transformer, config.diffusion_step));
  const keys = microsoftVqTransformerKeys;
  const options = { parameters: model.parameters, keys, inputs: givenInputs(golden) };
  return runModel(golden, evaluate, options, (run) => buildResults(golden, model, run));
}

export const vqdModelRunners: Readonly<Record<string, GoldenRunner>> = {
  vqd_text2image_transformer: transformer,
  vqd_class_transformer: transformer,
  vqd_uncond_transformer: transformer,
};
