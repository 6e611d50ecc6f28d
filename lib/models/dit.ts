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
import { mlp } from "../nn/mlp.js";
import { ParamScope } from "../nn/module.js";
import { fromPatches, patchEmbedding } from "../nn/patches.js";
import { gridSinusoids } from "../nn/positions.js";
import { geluTanh } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, limits, listOf, oneOf, optional, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";
import type { ClassInput, GuidanceOptions } from "./class-guidance.js";
import {
  classCondition,
  classGuidance,
  classTransformerRules,
  timeFeatures,
  type ClassTransformerConfig,
} from "./class-transformer.js";

export interface DitConfig extends ClassTransformerConfig {
  /** Height and width of the input, divisible by `patch`. */
  size: readonly [number, number];
  /**
   * What the second half of the output's channels is: the network's variance ("learned", DiT),
   * computed and thrown away ("discarded", SiT), or not there ("none"). Default "learned".
   */
  sigma?: "learned" | "discarded" | "none";
  /**
   * The code that it was trained with. In huggingface/diffusers every block embeds time and class by weights of its own, the
   * slowest frequency of a time is 1 / 10000, and eps of the norm before the MLP 1e-5. Default "original".
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
  ...classTransformerRules,
  size: listOf(whole(1, limits.side), 2, 2),
  sigma: optional(oneOf("learned", "discarded", "none")),
  trainedBy: optional(oneOf("original", "diffusers")),
};

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

/** x (B, H, W, channels) -> the same of twice the channels, unless sigma is "none". */
function tokenPass(config: DitConfig, scope: ParamScope): (input: DitInput) => Tensor {
  const { size, patch, channels = 4, width, layers, trainedBy } = config;
  const grid: [number, number] = [size[0] / patch, size[1] / patch];
  const outChannels = config.sigma === "none" ? channels : 2 * channels;
  const embed = patchEmbedding(scope.child("x_embedder"), { patch, channels, width });
  const places = Array.from({ length: layers }, (_, i) => scope.child("blocks").child(i));
  const [owners, slowest] = trainedBy === "diffusers" ? [places, 1] : [[scope], 0];
  const embedders = owners.map((owner) => classCondition("dit", owner, config, timeFeatures / 2 - slowest)); // prettier-ignore
  const blocks = places.map((place) => block(place, config));
  const last = scope.child("final_layer");
  const finish = finalLayer(last, {
    width,
    out: patch * patch * outChannels,
    modulation: modulation(last.child("adaLN_modulation"), { width, vectors: finalVectors }),
  });
  return ({ x, ...told }) => {
    const [condition, ...others] = embedders.map((embed) => embed(told)) as [Tensor, ...Tensor[]];
    const start = embed(x).add(gridSinusoids(x.trace, { grid, width }));
    const tokens = blocks.reduce((h, run, i) => run(h, others[i - 1] ?? condition), start);
    return fromPatches(finish(tokens, condition), grid, patch, "pqc");
  };
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function dit(config: DitConfig, scope: ParamScope = new ParamScope()): Dit {
  checkConfig(config);
  const { size, channels = 4, sigma } = config;
  const run = tokenPass(config, scope);
  const forward = (input: DitInput): Tensor => {
    checkInput(config, input);
    const map = run(input);
    return sigma === "discarded"
      ? map.slice([0, 0, 0, 0], [input.x.shape[0]!, ...size, channels])
      : map;
  };
  return {
    config,
    parameters: scope.specs(),
    forward,
    guided: classGuidance("dit", config, forward),
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
