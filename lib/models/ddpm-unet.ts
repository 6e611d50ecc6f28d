// The U-Net of denoising diffusion models in its first form. Topology and parameter names of
// ermongroup/ddim models/diffusion.py, with the heads and latent projection of kpandey008/DiffuseVAE
// main/models/diffusion/unet_ddim.py (branch rework-exact-repro). Source: Ho et al. 2020,
// arXiv:2006.11239, appendix B.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { conv2d, downsample, upsample } from "../nn/conv.js";
import { DropoutSites } from "../nn/dropout.js";
import { embedding } from "../nn/embedding.js";
import { normal } from "../nn/init.js";
import { linear } from "../nn/linear.js";
import type { Layer } from "../nn/linear.js";
import { ParamScope } from "../nn/module.js";
import { groupNorm } from "../nn/norm.js";
import { resnetBlock } from "../nn/resnet.js";
import { siluMlp, timeEmbedding } from "../nn/time-embedding.js";
import { meanPixels, repeatPixels } from "../nn/unet-block.js";
import { attention as attend, concat } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, flag, limits, listOf, oneOf, optional, real, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";
import { checkUnetInput } from "./unet-input.js";
import type { UnetInput } from "./unet-input.js";

export interface DdpmUnetConfig {
  /**
   * Side of the training images: decides, with attentionResolutions, which levels have attention.
   */
  resolution: number;
  /** Channels of x; default 3. */
  imageChannels?: number;
  /** Channels of the prediction; default imageChannels. */
  outChannels?: number;
  /** Channels of level l are channels * multipliers[l]; each level but the last halves the size. */
  channels: number;
  multipliers: readonly number[];
  /** Residual blocks in each level of the down path; the up path has one more. */
  residualBlocks: number;
  /** Sides in pixels whose levels have attention; the middle always has it. */
  attentionResolutions: readonly number[];
  /** Rate before the last convolution of each residual block, from 0 to below 1; default 0. */
  dropout?: number;
  /** Learned convolutions between levels; default true. */
  convResample?: boolean;
  /** Attention heads; default 1. */
  heads?: number;
  /** Attention heads of the up path; default `heads`. */
  upHeads?: number;
  /**
   * Channels of a head in place of `heads`, whose scale is then that of its own width: huggingface/diffusers UNet2DModel
   * (attention_head_dim). Default: `heads` with the scale of all channels.
   */
  headChannels?: number;
  /** Of the norms; default 1e-6, 1e-5 in networks trained with diffusers. */
  eps?: number;
  /**
   * Features of a time: sines first with frequencies up to period 10000 ("sin"), or cosines first with frequencies that end
   * before it ("cos": ADM, and networks trained with diffusers). Default "sin".
   */
  timeFirst?: "sin" | "cos";
  /** Zeros of the convolutions between levels: at the "end", or on "both" sides (diffusers). Default "end". */
  downsamplePadding?: "end" | "both";
  /** Number of classes; default none. */
  classes?: number;
  /** Width of a latent vector that is projected and added to the embedding of time; default none. */
  latentWidth?: number;
  /** Groups of the group norms; default 32. */
  groups?: number;
}

export interface DdpmUnet {
  readonly config: DdpmUnetConfig;
  /** Sides of x are multiples of this. */
  readonly stride: number;
  readonly parameters: readonly ParamSpec[];
  /** Prediction (B, H, W, outChannels). Throws "shape" for inputs that do not fit. */
  forward(input: UnetInput): Tensor;
}

const maxLevels = 12;
const maxBlocks = 64;

export const ddpmUnetRules: Readonly<Record<keyof DdpmUnetConfig, Rule>> = {
  resolution: whole(1, limits.side),
  imageChannels: optional(whole(1, limits.width)),
  outChannels: optional(whole(1, limits.width)),
  channels: whole(4, limits.width),
  multipliers: listOf(whole(1, 1024), 1, maxLevels),
  residualBlocks: whole(0, maxBlocks),
  attentionResolutions: listOf(whole(1, limits.side), 0, 2 * maxLevels),
  dropout: optional(real(0, 0.999)),
  convResample: optional(flag),
  heads: optional(whole(1, limits.width)),
  upHeads: optional(whole(1, limits.width)),
  headChannels: optional(whole(1, limits.width)),
  eps: optional(real(1e-12, 1)),
  timeFirst: optional(oneOf("sin", "cos")),
  downsamplePadding: optional(oneOf("end", "both")),
  classes: optional(whole(1, limits.width)),
  latentWidth: optional(whole(1, limits.width)),
  groups: optional(whole(1, limits.width)),
};

interface Level {
  width: number;
  hasAttention: boolean;
}

function levelsOf(config: DdpmUnetConfig): Level[] {
  let side = config.resolution;
  return config.multipliers.map((multiplier) => {
    const hasAttention = config.attentionResolutions.includes(side);
    side = Math.floor(side / 2);
    return { width: config.channels * multiplier, hasAttention };
  });
}

/** Throws "option" for channels that the groups or heads do not divide. */
export function checkDdpmUnet(where: string, config: DdpmUnetConfig): void {
  const { groups = 32, headChannels, heads = headChannels ?? 1, upHeads = heads } = config;
  if (headChannels !== undefined && (config.heads ?? config.upHeads) !== undefined) {
    throw new DiffusionError(
      "option",
      `${where}: expected heads and upHeads, or headChannels, got both`,
    );
  }
  const levels = levelsOf(config);
  for (const width of [config.channels, ...levels.map((level) => level.width)]) {
    if (width % groups === 0 && width <= limits.width) continue;
    throw new DiffusionError(
      "option",
      `${where}: expected channel counts up to ${limits.width} and divisible by ${groups} groups, got ${width}`,
    );
  }
  const attended = levels.filter((level, l) => level.hasAttention || l === levels.length - 1);
  for (const { width, hasAttention } of attended) {
    if (width % heads === 0 && (!hasAttention || width % upHeads === 0)) continue;
    throw new DiffusionError(
      "option",
      headChannels === undefined
        ? `${where}: expected channels of attention divisible by heads ${heads} and upHeads ${upHeads}, got ${width}`
        : `${where}: expected channels of attention divisible by headChannels ${headChannels}, got ${width}`,
    );
  }
}

/**
 * x + project(attention(norm(x))) with several heads on (B, H, W, C).
 * Differs: with a number of heads the scale is 1 / sqrt(C), as in DiffuseVAE's unet_ddim.py, whose checkpoints expect it.
 */
function mapHeads(
  scope: ParamScope,
  channels: number,
  count: number,
  { headChannels, groups = 32, eps = 1e-6 }: DdpmUnetConfig,
): Layer {
  const heads = headChannels === undefined ? count : channels / headChannels;
  const norm = groupNorm(scope.child("norm"), { channels, groups, eps });
  const [q, k, v, out] = ["q", "k", "v", "proj_out"].map((name) =>
    linear(scope.child(name), { in: channels, out: channels }),
  ) as [Layer, Layer, Layer, Layer];
  const scale = 1 / Math.sqrt(headChannels ?? channels);
  return (x) => {
    const [B, H, W, C] = x.shape as [number, number, number, number];
    const flat = norm(x).reshape([B, H * W, C]);
    const split = (project: Layer): Tensor => project(flat).reshape([B, H * W, heads, C / heads]);
    const mixed = attend(split(q), split(k), split(v), { scale }).out;
    const y = x.add(out(mixed.reshape([B, H * W, C])).reshape([B, H, W, C]));
    x.trace.record(scope.path, y);
    return y;
  };
}

/** (x, embedding, dropout key) -> features. */
type Stage = (x: Tensor, embedding: Tensor, dropoutKey?: Tensor) => Tensor;

interface Context {
  config: DdpmUnetConfig;
  sites: DropoutSites;
}

function residual({ config, sites }: Context, scope: ParamScope, from: number, to: number): Stage {
  const { groups = 32, eps = 1e-6, channels } = config;
  const dropout = sites.next();
  return resnetBlock(scope, { in: from, out: to, groups, eps, timeWidth: 4 * channels, dropout });
}

/** Blocks of one level, each with its attention; "block" and "attn" are numbered together. */
function stagesOf(
  context: Context,
  scope: ParamScope,
  level: Level,
  inputs: readonly number[],
  heads: number,
): Stage[] {
  return inputs.map((from, i) => {
    const block = residual(context, scope.child("block").child(i), from, level.width);
    if (!level.hasAttention) return block;
    const mix = mapHeads(scope.child("attn").child(i), level.width, heads, context.config);
    return (x, embedding, dropoutKey) => mix(block(x, embedding, dropoutKey));
  });
}

interface Path {
  stages: Stage[];
  /** Channels of each output. */
  widths: number[];
}

/** Halves the size by a convolution. */
const shrinker = (scope: ParamScope, width: number, { config }: Context): Layer =>
  config.downsamplePadding === "both"
    ? conv2d(scope.child("conv"), { in: width, out: width, stride: 2 })
    : downsample(scope, width);

function downPath(context: Context, scope: ParamScope, inChannels: number): Path {
  const { channels, residualBlocks, heads = 1, convResample = true } = context.config;
  const first = conv2d(scope.child("conv_in"), { in: inChannels, out: channels });
  const path: Path = { stages: [(x) => first(x)], widths: [channels] };
  const levels = levelsOf(context.config);
  levels.forEach((level, l) => {
    const place = scope.child("down").child(l);
    const inputs = Array.from({ length: residualBlocks }, (_, i) =>
      i === 0 ? path.widths.at(-1)! : level.width,
    );
    path.stages.push(...stagesOf(context, place, level, inputs, heads));
    path.widths.push(...inputs.map(() => level.width));
    if (l === levels.length - 1) return;
    const width = path.widths.at(-1)!;
    const shrink = convResample ? shrinker(place.child("downsample"), width, context) : meanPixels;
    path.stages.push((x) => shrink(x));
    path.widths.push(width);
  });
  return path;
}

function middle(context: Context, scope: ParamScope, width: number): Stage {
  const { heads = 1 } = context.config;
  const first = residual(context, scope.child("block_1"), width, width);
  const mix = mapHeads(scope.child("attn_1"), width, heads, context.config);
  const second = residual(context, scope.child("block_2"), width, width);
  return (x, embedding, dropoutKey) => {
    const y = second(mix(first(x, embedding, dropoutKey)), embedding, dropoutKey);
    x.trace.record(scope.path, y);
    return y;
  };
}

/** A stage of the up path, and what follows it before the next joins a kept map. */
interface UpStage {
  stage: Stage;
  grow?: Layer;
}

/** Levels run from the coarsest; `up.0` is the finest, as in the reference. */
function upPath(
  context: Context,
  scope: ParamScope,
  kept: readonly number[],
): { stages: UpStage[]; width: number } {
  const { residualBlocks, heads = 1, upHeads = heads, convResample = true } = context.config;
  const levels = levelsOf(context.config);
  const skips = [...kept];
  const stages: UpStage[] = [];
  let width = skips.at(-1)!;
  for (let l = levels.length - 1; l >= 0; --l) {
    const place = scope.child("up").child(l);
    const level = levels[l]!;
    const inputs = Array.from({ length: residualBlocks + 1 }, (_, i) => {
      return (i === 0 ? width : level.width) + skips.pop()!;
    });
    stages.push(...stagesOf(context, place, level, inputs, upHeads).map((stage) => ({ stage })));
    width = level.width;
    if (l > 0)
      stages.at(-1)!.grow = convResample
        ? upsample(place.child("upsample"), width)
        : (x) => repeatPixels(x);
  }
  return { stages, width };
}

/** (times, labels, latent) -> (B, 4 C). */
function embeddingOf(scope: ParamScope, config: DdpmUnetConfig): (input: UnetInput) => Tensor {
  const { channels, classes, latentWidth, timeFirst: first = "sin" } = config;
  const out = 4 * channels;
  const half = Math.floor(channels / 2);
  const time = timeEmbedding(scope.child("temb"), {
    width: channels,
    out,
    first,
    divisor: first === "sin" ? half - 1 : half,
    names: ["dense.0", "dense.1"],
  });
  const project = latentWidth && siluMlp(scope.child("proj"), { in: latentWidth, out });
  const label =
    classes && embedding(scope.child("label_emb"), { count: classes, width: out, init: normal(1) });
  return ({ times, labels, latent }) => {
    const parts = [time(times)];
    if (project && latent) parts.push(project(latent));
    if (label && labels) parts.push(label(labels));
    return parts.reduce((sum, part) => sum.add(part));
  };
}

/**
 * The network with `inChannels` at its first convolution: the image's, or more when something is
 * joined to it. It does not check the configuration.
 */
export function ddpmNetwork(scope: ParamScope, config: DdpmUnetConfig, inChannels: number) {
  const { imageChannels = 3, outChannels = imageChannels, groups = 32, eps = 1e-6 } = config;
  const context: Context = { config, sites: new DropoutSites(config.dropout ?? 0) };
  const embed = embeddingOf(scope, config);
  const down = downPath(context, scope, inChannels);
  const mid = middle(context, scope.child("mid"), down.widths.at(-1)!);
  const up = upPath(context, scope, down.widths);
  const normOut = groupNorm(scope.child("norm_out"), {
    channels: up.width,
    groups,
    eps,
    activation: "silu",
  });
  const convOut = conv2d(scope.child("conv_out"), { in: up.width, out: outChannels });
  return (image: Tensor, input: UnetInput): Tensor => {
    const emb = embed(input);
    const kept: Tensor[] = [];
    for (const stage of down.stages) kept.push(stage(kept.at(-1) ?? image, emb, input.dropoutKey));
    let h = mid(kept.at(-1)!, emb, input.dropoutKey);
    for (const { stage, grow } of up.stages) {
      h = stage(concat([h, kept.pop()!], 3), emb, input.dropoutKey);
      if (grow) h = grow(h);
    }
    return convOut(normOut(h));
  };
}

/** Sides of x are multiples of this. */
export const ddpmStride = ({ multipliers }: DdpmUnetConfig): number =>
  2 ** (multipliers.length - 1);

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function ddpmUnet(config: DdpmUnetConfig, scope: ParamScope = new ParamScope()): DdpmUnet {
  const where = "ddpmUnet";
  checkFields(where, config, ddpmUnetRules);
  checkDdpmUnet(where, config);
  const { imageChannels: channels = 3, classes, latentWidth } = config;
  const stride = ddpmStride(config);
  const network = ddpmNetwork(scope, config, channels);
  return {
    config,
    stride,
    parameters: scope.specs(),
    forward(input) {
      checkUnetInput({ where, channels, stride, classes, latentWidth }, input);
      return network(input.x, input);
    },
  };
}
