// U-Net of latent diffusion: ADM's U-Net with spatial transformers that attend to a condition. Topology and parameter
// names of CompVis/latent-diffusion ldm/modules/diffusionmodules/openaimodel.py (UNetModel). Source: Rombach et al. 2021,
// arXiv:2112.10752, section 3.3.
import { DiffusionError, formatShape } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { linear } from "../nn/linear.js";
import type { Layer } from "../nn/linear.js";
import { ParamScope } from "../nn/module.js";
import { groupNorm } from "../nn/norm.js";
import { qkvAttention } from "../nn/qkv-attention.js";
import { spatialTransformer } from "../nn/spatial-transformer.js";
import type { Tensor } from "../trace/tensor.js";
import { admStride, admTrunk, admTrunkRules, admWidths, checkAdmTrunk } from "./adm-trunk.js";
import type { AdmAttention, AdmTrunkConfig } from "./adm-trunk.js";
import { admClassEmbedding, admEmbedding, admHead } from "./adm-unet.js";
import { checkFields, flag, limits, object, optional, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";
import { checkUnetInput } from "./unet-input.js";
import type { UnetInput } from "./unet-input.js";

export interface SpatialTransformerConfig {
  /** Width of the condition's tokens. */
  contextWidth: number;
  /** Transformer blocks in each place; default 1. */
  depth?: number;
}

export interface LatentDiffusionUnetConfig extends AdmTrunkConfig {
  /** Side of the training latents; the network itself takes any sides divisible by its stride. */
  resolution: number;
  /** Channels of x: those of a latent and of everything joined to it. */
  inChannels: number;
  /** Channels of the prediction. */
  outChannels: number;
  /** Number of classes added to the embedding of time; default none. */
  classes?: number;
  /** Attention is a transformer that also attends to a condition; default over the pixels alone. */
  transformer?: SpatialTransformerConfig;
  /**
   * With headChannels, transformers fill the width of the map with heads even where headChannels does not divide it, and
   * without them upHeads counts. False in the text-to-image and Stable Diffusion releases. Default true.
   */
  legacyHeads?: boolean;
  /** Predicts logits of the codes of a first stage instead of latents. */
  codes?: number;
}

export interface LatentDiffusionInput extends Omit<UnetInput, "lowRes" | "latent"> {
  /** Condition tokens (B, M, contextWidth): exactly when the model has transformers. */
  context?: Tensor;
  /** Additive mask over the condition's tokens, broadcastable to (B, heads, H W, M). */
  contextMask?: Tensor;
}

export interface LatentDiffusionUnet {
  readonly config: LatentDiffusionUnetConfig;
  /** Sides of x are multiples of this. */
  readonly stride: number;
  readonly parameters: readonly ParamSpec[];
  /** Prediction (B, H, W, outChannels), or logits (B, H, W, codes). Throws "shape" for inputs that do not fit. */
  forward(input: LatentDiffusionInput): Tensor;
}

const where = "latentDiffusionUnet";

const rules: Readonly<Record<keyof LatentDiffusionUnetConfig, Rule>> = {
  ...admTrunkRules,
  resolution: whole(1, limits.side),
  inChannels: whole(1, limits.width),
  outChannels: whole(1, limits.width),
  classes: optional(whole(1, limits.width)),
  transformer: optional(object),
  legacyHeads: optional(flag),
  codes: optional(whole(1, limits.codes)),
};

const transformerRules: Readonly<Record<keyof SpatialTransformerConfig, Rule>> = {
  contextWidth: whole(1, limits.width),
  depth: optional(whole(1, limits.layers)),
};

/** Heads of a transformer on maps of `width` channels, rounded down as in the reference. */
function transformerHeads(
  { heads = 1, headChannels, legacyHeads = true }: LatentDiffusionUnetConfig,
  width: number,
): { heads: number; headWidth: number } {
  const count = headChannels === undefined ? heads : Math.floor(width / headChannels);
  const fills = legacyHeads || headChannels === undefined;
  return { heads: count, headWidth: fills ? Math.floor(width / count) : headChannels };
}

const transformerAttention =
  (
    config: LatentDiffusionUnetConfig,
    { contextWidth, depth = 1 }: SpatialTransformerConfig,
  ): AdmAttention =>
  (scope, channels) => {
    const mix = spatialTransformer(scope, {
      channels,
      ...transformerHeads(config, channels),
      depth,
      contextWidth,
      groups: config.groups ?? 32,
    });
    return (x, { context, contextMask }) => mix(x, context, contextMask);
  };

/** Without `legacyHeads`, attention over pixels has as many heads as fit of the width that `heads` of them would have. */
const pixelHeads = ({ heads = 1 }: LatentDiffusionUnetConfig, width: number): number =>
  width / Math.floor(width / heads);

const pixelAttention =
  (config: LatentDiffusionUnetConfig): AdmAttention =>
  (scope, channels) => {
    const { groups = 32, attentionOrder: order = "heads-first" } = config;
    const heads = pixelHeads(config, channels);
    const mix = qkvAttention(scope, { channels, heads, groups, order });
    return (x) => mix(x);
  };

/** Undefined: the trunk's own attention. */
function attentionOf(config: LatentDiffusionUnetConfig): AdmAttention | undefined {
  const { transformer, headChannels, legacyHeads = true } = config;
  if (transformer) return transformerAttention(config, transformer);
  return legacyHeads || headChannels !== undefined ? undefined : pixelAttention(config);
}

function checkPixelHeads(config: LatentDiffusionUnetConfig): void {
  const widths = admWidths(config);
  const attended = widths.filter(
    (_, level) => config.attentionFactors.includes(2 ** level) || level === widths.length - 1,
  );
  const unfit = attended.find((width) => !Number.isInteger(pixelHeads(config, width)));
  if (unfit === undefined) return;
  throw new DiffusionError(
    "option",
    `${where}: expected heads of a width that divides ${unfit} channels, got ${config.heads ?? 1} heads`,
  );
}

function checkConfig(config: LatentDiffusionUnetConfig): void {
  checkFields(where, config, rules);
  const { transformer, headChannels, heads = 1, multipliers } = config;
  if (multipliers[0] !== 1) {
    throw new DiffusionError(
      "option",
      `${where}: expected 1 as the first multiplier, got ${multipliers[0]}`,
    );
  }
  const own = attentionOf(config);
  // heads of its own attention are checked here: they need not divide the width
  checkAdmTrunk(where, own ? { ...config, headChannels: 1 } : config);
  if (!own) return;
  const narrowest = Math.min(...admWidths(config));
  if ((headChannels ?? heads) > narrowest) {
    throw new DiffusionError(
      "option",
      `${where}: expected at most ${narrowest} ${headChannels === undefined ? "heads" : "headChannels"}, got ${headChannels ?? heads}`,
    );
  }
  if (transformer) checkFields(`${where}: transformer`, transformer, transformerRules);
  else checkPixelHeads(config);
}

/** Norm without activation and a 1x1 convolution to the logits of codes. */
function codeHead(scope: ParamScope, groups: number, from: number, codes: number): Layer {
  const norm = groupNorm(scope.child(0), { channels: from, groups, eps: 1e-5 });
  const project = linear(scope.child(1), { in: from, out: codes });
  return (x) => project(norm(x));
}

function checkContext(
  { transformer }: LatentDiffusionUnetConfig,
  { x, context }: LatentDiffusionInput,
): void {
  const wanted = transformer && `context (${x.shape[0]}, M, ${transformer.contextWidth})`;
  const fits =
    context?.rank === 3 &&
    context.shape[0] === x.shape[0] &&
    context.shape[2] === transformer?.contextWidth;
  if (transformer ? fits : context === undefined) return;
  throw new DiffusionError(
    "shape",
    `${where}: expected ${wanted ?? "no context for this model"}, got ${context ? formatShape(context.shape) : "none"}`,
  );
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function latentDiffusionUnet(
  config: LatentDiffusionUnetConfig,
  scope: ParamScope = new ParamScope(),
): LatentDiffusionUnet {
  checkConfig(config);
  const { inChannels: channels, outChannels, classes, codes, groups = 32 } = config;
  const stride = admStride(config);
  const time = admEmbedding(scope, config);
  const label = classes === undefined ? undefined : admClassEmbedding(scope, config, classes);
  const trunk = admTrunk(scope, config, channels, attentionOf(config));
  const head =
    codes === undefined
      ? admHead(scope.child("out"), groups, trunk.width, outChannels)
      : codeHead(scope.child("id_predictor"), groups, trunk.width, codes);
  return {
    config,
    stride,
    parameters: scope.specs(),
    forward(input) {
      checkUnetInput({ where, channels, stride, classes }, input);
      checkContext(config, input);
      const { x, times, labels, dropoutKey, context, contextMask } = input;
      const base = time(times);
      const embedding = label && labels ? base.add(label(labels)) : base;
      return head(trunk.run(x, { embedding, dropoutKey, context, contextMask }));
    },
  };
}
