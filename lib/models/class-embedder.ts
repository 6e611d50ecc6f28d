// One vector a class as the context of latent diffusion: ClassEmbedder of CompVis/latent-diffusion
// ldm/modules/encoders/modules.py. Source: Rombach et al. 2021, arXiv:2112.10752, section 4.3.1.
import type { ParamSpec } from "../ir/param.js";
import { embedding } from "../nn/embedding.js";
import { normal } from "../nn/init.js";
import { ParamScope } from "../nn/module.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, flag, limits, optional, whole } from "./check-config.js";

export interface ClassEmbedderConfig {
  classes: number;
  /** A last row, index `classes`, for "no class"; default false. */
  nullClass?: boolean;
  width: number;
}

export interface ClassEmbedder {
  readonly config: ClassEmbedderConfig;
  readonly parameters: readonly ParamSpec[];
  /** Labels i32 (B) -> context (B, 1, width). */
  forward(labels: Tensor): Tensor;
}

/** Builds the table on a scope of its own, or below `scope` when it is part of something larger. */
export function classEmbedder(
  config: ClassEmbedderConfig,
  scope: ParamScope = new ParamScope(),
): ClassEmbedder {
  checkFields("classEmbedder", config, {
    classes: whole(1, limits.codes),
    nullClass: optional(flag),
    width: whole(1, limits.width),
  });
  const { classes, nullClass = false, width } = config;
  const count = classes + Number(nullClass);
  const table = embedding(scope.child("embedding"), { count, width, init: normal(1) });
  return {
    config,
    parameters: scope.specs(),
    forward: (labels) => table(labels).reshape([labels.shape[0]!, 1, width]),
  };
}
