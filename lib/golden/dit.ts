// Golden kinds dit_forward and sit_forward: output, taps, gradients, guidance and label dropout.
import { DiffusionError } from "../errors.js";
import { checkFields, flag, limits, real, whole } from "../models/check-config.js";
import type { Rules } from "../models/check-config.js";
import { guideHalves } from "../models/class-guidance.js";
import { dit } from "../models/dit.js";
import type { Dit, DitConfig } from "../models/dit.js";
import { facebookDitKeys } from "../models/dit.keys.js";
import { sit } from "../models/sit.js";
import { gridSinusoids } from "../nn/positions.js";
import { concat, less } from "../trace/functions.js";
import type { GoldenCase, Values } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";
import { givenValues, runModel, tapResults } from "./model-run.js";
import type { ModelRun } from "./model-run.js";

/** Arguments of the reference's constructor, as the cases write them. */
export interface GoldenDit {
  input_size: number;
  patch_size: number;
  in_channels: number;
  hidden_size: number;
  depth: number;
  num_heads: number;
  mlp_ratio: number;
  class_dropout_prob: number;
  num_classes: number;
  learn_sigma: boolean;
}

interface ForwardConfig extends GoldenDit {
  /** null: the case has no guided output. */
  cfg_scale?: number | null;
}

/** What each argument may be. */
export const goldenDitRules: Rules = {
  input_size: whole(1, limits.side),
  patch_size: whole(1, limits.side),
  in_channels: whole(1, limits.width),
  hidden_size: whole(1, limits.width),
  depth: whole(1, limits.layers),
  num_heads: whole(1, limits.width),
  mlp_ratio: real(0, 64),
  class_dropout_prob: real(0, 1),
  num_classes: whole(1, limits.codes),
  learn_sigma: flag,
};

const forwardRules: Rules = {
  ...goldenDitRules,
  cfg_scale: (value) =>
    value === undefined || value === null ? undefined : real(-1e6, 1e6)(value),
};

/** The configuration of the reference in our words; `sigma` is what becomes of variance channels. */
export const ditConfigOf = (config: GoldenDit, sigma: "learned" | "discarded"): DitConfig => ({
  size: [config.input_size, config.input_size],
  patch: config.patch_size,
  channels: config.in_channels,
  width: config.hidden_size,
  layers: config.depth,
  heads: config.num_heads,
  mlpRatio: config.mlp_ratio,
  classes: config.num_classes,
  nullClass: config.class_dropout_prob > 0,
  sigma: config.learn_sigma ? sigma : "none",
});

/** The reference guides the first three channels. */
const guidedChannels = 3;

function guidedOutput(model: Dit, x: Tensors, scale: number): Tensors {
  const rows = x["cfg_x"];
  if (!rows) throw new DiffusionError("data", "parity: expected cfg_x beside cfg_scale, got none");
  const half = rows.slice(
    rows.shape.map(() => 0),
    [rows.shape[0]! / 2, ...rows.shape.slice(1)],
  );
  const output = model.forward({
    x: channelsLast(concat([half, half], 0)),
    times: x["cfg_t"]!,
    labels: x["cfg_y"]!,
  });
  return { cfg_output: channelsFirst(guideHalves(output, scale, guidedChannels)) };
}

/** Our tap of one of theirs: an embedding of time is what its network says. */
const tapOf = (name: string): string => (name === "t_embedder" ? "t_embedder.mlp" : name);

function buildResults(golden: GoldenCase, model: Dit, { t, x, gradientsOf }: ModelRun): Tensors {
  const { cfg_scale: scale, class_dropout_prob: dropout } =
    golden.config as unknown as ForwardConfig;
  const input = { x: channelsLast(x["x"]!), times: x["t"]!, labels: x["y"]! };
  const output = channelsFirst(model.forward(input));
  const results: Tensors = { ...tapResults(golden, t, tapOf), output };
  if (x["upstream"]) {
    const loss = output.mul(x["upstream"]).mean();
    Object.assign(results, { loss }, gradientsOf(loss));
  }
  if (typeof scale === "number") Object.assign(results, guidedOutput(model, x, scale));
  if (x["drop_uniform"]) {
    const isNull = less(x["drop_uniform"], t.constant(dropout)).cast("f32");
    const dropped = model.forward(dropout > 0 ? { ...input, isNull } : input);
    results["output_train_label_drop"] = channelsFirst(dropped);
  }
  return results;
}

/** The stored position table must be the fixed one that the model computes. */
async function checkPositions(
  golden: GoldenCase,
  { size, patch, width }: DitConfig,
  evaluate: Evaluate,
): Promise<void> {
  const stored = golden.weights.get("pos_embed");
  if (!stored) return;
  const grid = [size[0] / patch, size[1] / patch] as const;
  const { table } = await evaluate((t) => ({ table: gridSinusoids(t, { grid, width }) }), {});
  const differences = Array.from(table!.data, (value, i) => Math.abs(value - stored.data[i]!));
  const furthest = Math.max(...differences);
  if (stored.data.length === table!.data.length && furthest < 1e-6) return;
  throw new DiffusionError(
    "checkpoint",
    `parity: expected pos_embed of ${golden.name} to be the sinusoids of its grid, got values that differ by ${furthest}`,
  );
}

const runner =
  (sigma: "learned" | "discarded"): GoldenRunner =>
  async (golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> => {
    checkFields(`parity: ${golden.name}`, golden.config, forwardRules);
    const config = ditConfigOf(golden.config as unknown as ForwardConfig, sigma);
    const model = sigma === "learned" ? dit(config) : sit(config as Parameters<typeof sit>[0]);
    await checkPositions(golden, config, evaluate);
    const inputs = givenValues(golden);
    const options = { parameters: model.parameters, keys: facebookDitKeys, inputs };
    return runModel(golden, evaluate, options, (run) => buildResults(golden, model, run));
  };

export const ditRunners: Readonly<Record<string, GoldenRunner>> = {
  dit_forward: runner("learned"),
  sit_forward: runner("discarded"),
};
