// DiT: a transformer on patches of a noisy latent, told time and class through its norms. Topology
// and parameter names of facebookresearch/DiT models.py. Source: Peebles and Xie 2023,
// arXiv:2212.09748.
import { DiffusionError, formatShape } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import {
  adaLnZeroBlock,
  blockVectors,
  finalLayer,
  finalVectors,
  modulation,
} from "../nn/adaln-zero.js";
import type { AdaLnZeroBlock } from "../nn/adaln-zero.js";
import { fusedAttention } from "../nn/fused-attention.js";
import { normalLinear } from "../nn/init.js";
import { labelEmbedding } from "../nn/label-embedding.js";
import { mlp } from "../nn/mlp.js";
import { ParamScope } from "../nn/module.js";
import { fromPatches, patchEmbedding } from "../nn/patches.js";
import { gridSinusoids } from "../nn/positions.js";
import { timeEmbedding } from "../nn/time-embedding.js";
import { geluTanh } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, flag, limits, listOf, oneOf, optional, real, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";
import { guidedPass } from "./class-guidance.js";
import type { ClassInput, GuidanceOptions } from "./class-guidance.js";

export interface DitConfig {
  /** Height and width of the input, divisible by `patch`. */
  size: readonly [number, number];
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
  /**
   * What the second half of the output's channels is: the network's variance ("learned", DiT),
   * computed and thrown away ("discarded", SiT), or not there ("none"). Default "learned".
   */
  sigma?: "learned" | "discarded" | "none";
  /**
   * Constants of the code that it was trained with. Those of huggingface/diffusers differ from the original's: the slowest
   * frequency of a time is 1 / 10000, and eps of the norm before the MLP 1e-5. Default "original".
   */
  trainedBy?: "original" | "diffusers";
}

export type DitInput = ClassInput;

export interface Dit {
  readonly config: DitConfig;
  readonly parameters: readonly ParamSpec[];
  /** (B, H, W, 2 channels) with learned sigma: prediction, then variance; else (B, H, W, channels). */
  forward(input: DitInput): Tensor;
  /** The guided output, from one pass over twice the batch; needs the null class. */
  guided(input: Omit<DitInput, "isNull">, options: GuidanceOptions): Tensor;
}

/** What each key of a configuration may be. */
export const ditRules: Readonly<Record<keyof DitConfig, Rule>> = {
  size: listOf(whole(1, limits.side), 2, 2),
  patch: whole(1, limits.side),
  channels: optional(whole(1, limits.width)),
  width: whole(4, limits.width),
  layers: whole(1, limits.layers),
  heads: whole(1, limits.width),
  mlpRatio: optional(real(1 / 64, 64)),
  classes: whole(1, limits.codes),
  nullClass: optional(flag),
  sigma: optional(oneOf("learned", "discarded", "none")),
  trainedBy: optional(oneOf("original", "diffusers")),
};

/** Sinusoids of a time, cosines first. */
const timeFeatures = 256;

function checkConfig(config: DitConfig): void {
  checkFields("dit", config, ditRules);
  const { size, patch, width, heads } = config;
  if (size.some((side) => side % patch !== 0)) {
    throw new DiffusionError(
      "option",
      `dit: expected a size divisible by patch ${patch}, got ${size.join(" x ")}`,
    );
  }
  if (width % heads !== 0 || width % 4 !== 0) {
    throw new DiffusionError(
      "option",
      `dit: expected a width divisible by 4 and by ${heads} heads, got ${width}`,
    );
  }
}

function checkInput({ size, channels = 4 }: DitConfig, { x, times, labels }: DitInput): void {
  const [H, W] = size;
  const B = x.shape[0]!;
  if (x.rank !== 4 || x.shape.slice(1).join() !== [H, W, channels].join()) {
    throw new DiffusionError(
      "shape",
      `dit: expected x (B, ${H}, ${W}, ${channels}), got ${formatShape(x.shape)}`,
    );
  }
  for (const [name, value] of Object.entries({ times, labels })) {
    if (value.rank === 1 && value.size === B) continue;
    throw new DiffusionError(
      "shape",
      `dit: expected ${name} (${B}), got ${formatShape(value.shape)}`,
    );
  }
}

function block(scope: ParamScope, config: DitConfig): AdaLnZeroBlock<void> {
  const { width, heads, mlpRatio = 4 } = config;
  const attend = fusedAttention(scope.child("attn"), { width, heads });
  return adaLnZeroBlock(scope, {
    modulation: modulation(scope.child("adaLN_modulation"), { width, vectors: blockVectors }),
    attention: (x) => attend(x),
    mlp: mlp(scope.child("mlp"), geluTanh, { in: width, hidden: Math.floor(width * mlpRatio) }),
    ...(config.trainedBy === "diffusers" && { mlpEps: 1e-5 }),
  });
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function dit(config: DitConfig, scope: ParamScope = new ParamScope()): Dit {
  checkConfig(config);
  const { size, patch, channels = 4, width, layers, classes, nullClass = true } = config;
  const { sigma = "learned", trainedBy = "original" } = config;
  const grid: [number, number] = [size[0] / patch, size[1] / patch];
  const outChannels = sigma === "none" ? channels : 2 * channels;

  const embed = patchEmbedding(scope.child("x_embedder"), { patch, channels, width });
  const embedTime = timeEmbedding(scope.child("t_embedder").child("mlp"), {
    width: timeFeatures,
    out: width,
    divisor: timeFeatures / 2 - (trainedBy === "diffusers" ? 1 : 0),
    inits: normalLinear(0.02),
  });
  const embedLabel = labelEmbedding(scope.child("y_embedder"), { classes, width, nullClass });
  const blocks = Array.from({ length: layers }, (_, i) =>
    block(scope.child("blocks").child(i), config),
  );
  const last = scope.child("final_layer");
  const finish = finalLayer(last, {
    width,
    out: patch * patch * outChannels,
    modulation: modulation(last.child("adaLN_modulation"), { width, vectors: finalVectors }),
  });

  const forward = (input: DitInput): Tensor => {
    checkInput(config, input);
    const { x, times, labels, isNull } = input;
    if (isNull) needNullClass();
    const condition = embedTime(times).add(embedLabel(labels, isNull));
    const start = embed(x).add(gridSinusoids(x.trace, { grid, width }));
    const tokens = finish(
      blocks.reduce((h, run) => run(h, condition), start),
      condition,
    );
    const map = fromPatches(tokens, grid, patch, "pqc");
    return sigma === "discarded" ? map.slice([0, 0, 0, 0], [x.shape[0]!, ...size, channels]) : map;
  };
  const needNullClass = (): void => {
    if (nullClass) return;
    throw new DiffusionError("option", "dit: expected a model with nullClass, got one without");
  };
  return {
    config,
    parameters: scope.specs(),
    forward,
    guided(input, options) {
      needNullClass();
      return guidedPass({ forward, classes, channels }, input, options);
    },
  };
}

const sizes = {
  S: { layers: 12, width: 384, heads: 6 },
  B: { layers: 12, width: 768, heads: 12 },
  L: { layers: 24, width: 1024, heads: 16 },
  XL: { layers: 28, width: 1152, heads: 16 },
} as const;

export type DitSize = keyof typeof sizes;
export type DitPatch = 2 | 4 | 8;

/** A published size for ImageNet latents; `side` is 32 for 256 pixels and 64 for 512. */
export const publishedDit = (size: DitSize, patch: DitPatch, side: 32 | 64 = 32): DitConfig => ({
  size: [side, side],
  patch,
  ...sizes[size],
  classes: 1000,
});

const patches: readonly DitPatch[] = [2, 4, 8];

/** Configurations of the published sizes by name, e.g. "XL/2", for 256 x 256 pixels. */
export const ditConfigs: Readonly<Record<`${DitSize}/${DitPatch}`, DitConfig>> = Object.fromEntries(
  (Object.keys(sizes) as DitSize[]).flatMap((size) =>
    patches.map((patch) => [`${size}/${patch}`, publishedDit(size, patch)]),
  ),
) as Record<`${DitSize}/${DitPatch}`, DitConfig>;
