// Golden kinds sit_paths and sit_transport_loss: coefficients, conversions and training losses of the
// interpolants of willisma/SiT. Its time runs from noise (0) to data (1); there x1 is data, x0 noise.
import { checkFields, listOf, object, real } from "../models/check-config.js";
import type { Rule } from "../models/check-config.js";
import { facebookDitKeys } from "../models/dit.keys.js";
import { sit } from "../models/sit.js";
import type { SitConfig } from "../models/sit.js";
import { predictions } from "../processes/gaussian-levels.js";
import { diffusionAt, forwardDrift, forwardVariance, pathLevel } from "../processes/interpolant.js";
import type { PathLevel } from "../processes/interpolant.js";
import {
  interpolate,
  pathVelocity,
  transportCoefficients,
  transportColumns,
  transportLoss,
  transportTable,
} from "../processes/interpolant-loss.js";
import { defaultEpsilons, timeRange } from "../processes/path-range.js";
import type { TransportPrediction } from "../processes/path-range.js";
import type { GoldenCase, Values } from "./case.js";
import { byWord, ioValues, vector } from "./case.js";
import { ditConfigOf, goldenDitRules } from "./dit.js";
import type { GoldenDit } from "./dit.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { gradientResults, gradientsInForeignLayout } from "./gradients.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { sitForms, sitPaths, sitPredictions, sitWeights } from "./sit-names.js";
import { loadWeights } from "./weights.js";
import type { LoadedWeights } from "./weights.js";

/** For each sample, `x` times a number plus `y` times another. */
function affine(
  levels: readonly PathLevel[],
  weights: (level: PathLevel) => readonly [x: number, y: number],
  x: Values,
  y: Values = x,
): Values {
  const size = x.data.length / levels.length;
  const rows = levels.map(weights);
  const data = Float64Array.from(x.data, (value, i) => {
    const [first, second] = rows[Math.floor(i / size)]!;
    return first * value + second * y.data[i]!;
  });
  return { shape: x.shape, data };
}

/** x0 and eps as a prediction tells them, weighted: what a weighted sum of both is of (x, output). */
function reading(
  prediction: TransportPrediction,
  level: PathLevel,
  [ofX0, ofEps]: readonly [number, number],
): [number, number] {
  const { x0, eps } = predictions[prediction](level);
  return [ofX0 * x0[0] + ofEps * eps[0], ofX0 * x0[2] + ofEps * eps[2]];
}

/** Coefficients of a path at the times of the case, and what follows from them. */
function pathResults(golden: GoldenCase, levels: readonly PathLevel[]): Record<string, Values> {
  const { diffusion_norm: norm } = golden.config as { diffusion_norm: number };
  const io = (name: string): Values => ioValues(golden, name);
  const each = (of: (level: PathLevel) => number): Values => vector(levels.map(of));
  const forms = Object.entries(sitForms).map(([word, form]) => [
    `diffusion.${word}`,
    each((level) => diffusionAt(form, level, norm)),
  ]);
  return {
    alpha: each(({ a }) => a),
    d_alpha: each(({ rates }) => rates.a),
    sigma: each(({ c }) => c),
    d_sigma: each(({ rates }) => rates.c),
    d_alpha_over_alpha: each(({ a, rates }) => rates.a / a),
    drift_mean: affine(levels, (level) => [forwardDrift(level), 0], io("x")),
    drift_var: each(forwardVariance),
    ...(Object.fromEntries(forms) as Record<string, Values>),
    score_from_velocity: affine(
      levels,
      (l) => reading("velocity", l, [0, -1 / l.c]),
      io("x"),
      io("v"),
    ),
    noise_from_velocity: affine(levels, (l) => reading("velocity", l, [0, 1]), io("x"), io("v")),
    velocity_from_score: affine(
      levels,
      (l) => reading("score", l, [l.rates.a, l.rates.c]),
      io("x"),
      io("s"),
    ),
    xt: affine(levels, ({ a, c }) => [a, c], io("x1"), io("x0")),
    ut: affine(levels, ({ rates }) => [rates.a, rates.c], io("x1"), io("x0")),
  };
}

/** The same states and velocities by the functions of training. */
function tracedPath(x: Tensors): Tensors {
  const coefficients = transportCoefficients(x["table"]!, x["x1"]!.rank);
  return {
    xt: interpolate(x["x1"]!, x["x0"]!, coefficients),
    ut: pathVelocity(x["x1"]!, x["x0"]!, coefficients),
  };
}

const table = (
  levels: readonly PathLevel[],
  options: Parameters<typeof transportTable>[0],
): Values => ({
  shape: [levels.length, transportColumns.length],
  data: transportTable(options, levels),
});

async function paths(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(`parity: ${golden.name}`, golden.config, { diffusion_norm: real(0, 1e6) });
  const results: Record<string, Values> = {};
  for (const [word, path] of Object.entries(sitPaths)) {
    const levels = [...ioValues(golden, "t").data].map((t) => pathLevel(path, 1 - t, "data"));
    const inputs = {
      x0: ioValues(golden, "x0"),
      x1: ioValues(golden, "x1"),
      table: table(levels, { prediction: "velocity" }),
    };
    const traced = await evaluate((_, x) => tracedPath(x), { inputs });
    for (const [name, values] of Object.entries(pathResults(golden, levels)))
      results[`${word}.${name}`] = values;
    for (const [name, values] of Object.entries(traced)) results[`${word}.${name}@traced`] = values;
  }
  return results;
}

/** Path, prediction and weight by the reference's words. */
type Combination = [path: string, prediction: string, weight: string | null];

const combination: Rule = (value) =>
  Array.isArray(value) && value.length === 3 ? undefined : "[path, prediction, weight]";

interface LossConfig {
  model: GoldenDit;
  combinations: Combination[];
}

/** A SiT by the reference's arguments, and its weights. */
export function goldenSit(golden: GoldenCase): {
  model: ReturnType<typeof sit>;
  weights: LoadedWeights;
} {
  const { model: config } = golden.config as unknown as { model: GoldenDit };
  checkFields(`parity: ${golden.name}: model`, config, goldenDitRules);
  const model = sit(ditConfigOf(config, "discarded") as SitConfig);
  return { model, weights: loadWeights(golden, model.parameters, facebookDitKeys) };
}

async function combinationResults(
  golden: GoldenCase,
  evaluate: Evaluate,
  [pathWord, predictionWord, weightWord]: Combination,
): Promise<Record<string, Values>> {
  const path = byWord("a path", pathWord, sitPaths);
  const prediction = byWord("a prediction", predictionWord, sitPredictions);
  const weight = byWord("a loss weight", weightWord ?? "none", sitWeights);
  const { model, weights } = goldenSit(golden);
  const { low, high } = timeRange(path, prediction, defaultEpsilons(path, prediction).train);
  // the reference's time: 1 - high is its first
  const times = [...ioValues(golden, "u").data].map((u) => u * (high - low) + (1 - high));
  const levels = times.map((t) => pathLevel(path, 1 - t, "data"));
  const name = `${pathWord}.${predictionWord}.${weightWord ?? "none"}`;
  const inputs = {
    x0: ioValues(golden, "x0"),
    x1: ioValues(golden, "x1"),
    y: ioValues(golden, "y"),
    times: vector(times),
    table: table(levels, { prediction, weight }),
  };
  const results = await evaluate(
    (_, x) => {
      const coefficients = transportCoefficients(x["table"]!, x["x1"]!.rank);
      const [x0, noise] = [channelsLast(x["x1"]!), channelsLast(x["x0"]!)];
      const xt = interpolate(x0, noise, coefficients);
      const predicted = model.forward({ x: xt, times: x["times"]!, labels: x["y"]! });
      const { perSample, loss } = transportLoss(prediction, { predicted, x0, noise, coefficients });
      const request = {
        golden,
        prefix: `grad.${name}.`,
        inputs: {},
        weights,
        specs: model.parameters,
      };
      return {
        [`${name}.pred`]: channelsFirst(predicted),
        [`${name}.loss_per_sample`]: perSample,
        [`loss.${name}.mean`]: loss,
        ...gradientResults(loss, request),
      };
    },
    { inputs, parameters: weights.parameters },
  );
  gradientsInForeignLayout(results, { prefix: `grad.${name}.`, weights, inputs: {} });
  return { ...results, [`${name}.t`]: vector(times) };
}

async function losses(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(`parity: ${golden.name}`, golden.config, {
    model: object,
    combinations: listOf(combination, 0, 1e4),
  });
  const { combinations } = golden.config as unknown as LossConfig;
  const results: Record<string, Values> = {};
  for (const each of combinations)
    Object.assign(results, await combinationResults(golden, evaluate, each));
  return results;
}

export const sitTransportRunners: Readonly<Record<string, GoldenRunner>> = {
  sit_paths: paths,
  sit_transport_loss: losses,
};
