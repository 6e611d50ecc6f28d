// What transformers on patches that are told a class have in common, as DiT and FiT do: keys of their configurations, the
// vector that their blocks are told, and guidance. Source: Peebles and Xie 2023, arXiv:2212.09748, section 3.2.
import { DiffusionError } from "../errors.js";
import { normalLinear } from "../nn/init.js";
import { labelEmbedding } from "../nn/label-embedding.js";
import type { ParamScope } from "../nn/module.js";
import { timeEmbedding } from "../nn/time-embedding.js";
import type { Tensor } from "../trace/tensor.js";
import { flag, limits, optional, real, whole, type Rule } from "./check-config.js";
import { guidedPass, type ClassInput, type GuidanceOptions } from "./class-guidance.js";

export interface ClassTransformerConfig {
  /** Side of a patch. */
  patch: number;
  /** Channels of the input; default 4. */
  channels?: number;
  /** Divisible by `heads` and by 4. */
  width: number;
  layers: number;
  heads: number;
  /** Hidden width of the MLP in widths, cut to a whole number; default 4. */
  mlpRatio?: number;
  classes: number;
  /** A row of the label table for "no class", index `classes`; default true. */
  nullClass?: boolean;
}

/** What each of these keys may be. */
export const classTransformerRules: Readonly<Record<keyof ClassTransformerConfig, Rule>> = {
  patch: whole(1, limits.side),
  channels: optional(whole(1, limits.width)),
  width: whole(4, limits.width),
  layers: whole(1, limits.layers),
  heads: whole(1, limits.width),
  mlpRatio: optional(real(1 / 64, 64)),
  classes: whole(1, limits.codes),
  nullClass: optional(flag),
};

/** Sinusoids of a time, cosines first. */
export const timeFeatures = 256;

function needNullClass(where: string, { nullClass = true }: ClassTransformerConfig): void {
  if (nullClass) return;
  throw new DiffusionError("option", `${where}: expected a model with nullClass, got one without`);
}

/** Time and class of each sample -> (B, width), what the blocks are told. `divisor` of the sinusoids; default as many. */
export function classCondition(
  where: string,
  scope: ParamScope,
  config: ClassTransformerConfig,
  divisor = timeFeatures / 2,
): (input: Omit<ClassInput, "x">) => Tensor {
  const { width, classes, nullClass = true } = config;
  const embedTime = timeEmbedding(scope.child("t_embedder").child("mlp"), {
    width: timeFeatures,
    out: width,
    divisor,
    inits: normalLinear(0.02),
  });
  const embedLabel = labelEmbedding(scope.child("y_embedder"), { classes, width, nullClass });
  return ({ times, labels, isNull }) => {
    if (isNull) needNullClass(where, config);
    return embedTime(times).add(embedLabel(labels, isNull));
  };
}

/** The guided output of such a network, from one pass over twice the batch. Throws "option" without the null class. */
export const classGuidance =
  (where: string, config: ClassTransformerConfig, forward: (input: ClassInput) => Tensor) =>
  (input: Omit<ClassInput, "isNull">, options: GuidanceOptions): Tensor => {
    needNullClass(where, config);
    return guidedPass({ forward, classes: config.classes, channels: config.channels ?? 4 }, input, options); // prettier-ignore
  };
