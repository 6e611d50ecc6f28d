// U-shaped network with a transformer at its bottom that sees a grid of latents: the second of the two decoders of 4M's
// tokenizers. Topology of apple/ml-4m fourm/vq/models/uvit.py. Sources: Hoogeboom et al. 2023, arXiv:2301.11093 (simple
// diffusion); adaptive norms and gates: Peebles and Xie 2023, arXiv:2212.09748; long skips: Bao et al. 2023,
// arXiv:2209.12152.
import { conv2d, upsample } from "../nn/conv.js";
import { DropoutSites } from "../nn/dropout.js";
import { xavierUniform, zeros } from "../nn/init.js";
import type { Layer } from "../nn/linear.js";
import { ParamScope } from "../nn/module.js";
import { groupNorm } from "../nn/norm.js";
import { resnetBlock } from "../nn/resnet.js";
import { timeEmbedding } from "../nn/time-embedding.js";
import { concat, pixelShuffle } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { checkDecoderInput } from "./diffusion-decoder.js";
import type { DecoderInput, DiffusionDecoder } from "./diffusion-decoder.js";
import { checkUvit } from "./uvit-config.js";
import type { UvitConfig } from "./uvit-config.js";
import { uvitBottom } from "./uvit-bottom.js";

const normEps = 1e-5;

/** (x, embedding of time) -> x. */
type Stage = (x: Tensor, embedding: Tensor) => Tensor;

interface Context {
  groups: number;
  timeWidth: number;
}

const residual = (
  scope: ParamScope,
  { groups, timeWidth }: Context,
  from: number,
  to: number,
): Stage =>
  resnetBlock(scope, { in: from, out: to, groups, eps: normEps, timeWidth, zeroLast: true });

const halve = (scope: ParamScope, channels: number): Layer =>
  conv2d(scope.child("conv"), { in: channels, out: channels, stride: 2, padding: 1 });

interface Path {
  stages: Stage[];
  /** Channels of each kept output. */
  widths: number[];
}

function downPath(scope: ParamScope, config: UvitConfig, context: Context): Path {
  const { imageChannels = 3, patch = 4, widths, residualBlocks = 2 } = config;
  const first = conv2d(scope.child("conv_in"), {
    in: imageChannels,
    out: widths[0]!,
    kernel: patch,
    stride: patch,
    padding: 0,
  });
  const path: Path = { stages: [(x) => first(x)], widths: [widths[0]!] };
  widths.forEach((width, level) => {
    const place = scope.child("down_blocks").child(level);
    for (let i = 0; i < residualBlocks; ++i) {
      const from = path.widths.at(-1)!;
      path.stages.push(residual(place.child("resnets").child(i), context, from, width));
      path.widths.push(width);
    }
    if (level === widths.length - 1) return;
    const shrink = halve(place.child("downsamplers.0"), width);
    path.stages.push((x) => shrink(x));
    path.widths.push(width);
  });
  return path;
}

/** A stage of the up path, and what follows it before the next joins a kept map. */
interface UpStage {
  stage: Stage;
  grow?: Layer;
}

function upPath(
  scope: ParamScope,
  config: UvitConfig,
  context: Context,
  kept: readonly number[],
): UpStage[] {
  const { residualBlocks = 2 } = config;
  const skips = [...kept];
  const stages: UpStage[] = [];
  let from = config.widths.at(-1)!;
  [...config.widths].reverse().forEach((width, i) => {
    const place = scope.child("up_blocks").child(i);
    for (let j = 0; j <= residualBlocks; ++j) {
      const block = place.child("resnets").child(j);
      stages.push({ stage: residual(block, context, from + skips.pop()!, width) });
      from = width;
    }
    if (i < config.widths.length - 1)
      stages.at(-1)!.grow = upsample(place.child("upsamplers.0"), width);
  });
  return stages;
}

/** Norm, silu, and each pixel to a patch: a transposed convolution without overlap. */
function head(scope: ParamScope, config: UvitConfig): Layer {
  const { imageChannels = 3, outChannels = imageChannels, patch = 4, groups = 32 } = config;
  const channels = config.widths[0]!;
  const norm = groupNorm(scope.child("conv_norm_out"), {
    channels,
    groups,
    eps: normEps,
    activation: "silu",
  });
  const place = scope.child("conv_out");
  const outputs = outChannels * patch ** 2;
  const weight = place.param("weight", [channels, outputs], xavierUniform(channels, outputs));
  const bias = place.param("bias", [outChannels], zeros);
  return (x) => {
    const t = x.trace;
    const y = pixelShuffle(norm(x).matmul(t.parameter(weight)), patch).add(t.parameter(bias));
    t.record(place.path, y);
    return y;
  };
}

/** Sides that the network divides by before the transformer. */
const strideOf = ({ patch = 4, widths, middleDownsample = false }: UvitConfig): number =>
  patch * 2 ** (widths.length - 1 + (middleDownsample ? 1 : 0));

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function uvit(config: UvitConfig, scope: ParamScope = new ParamScope()): DiffusionDecoder {
  const where = "uvit";
  checkUvit(where, config);
  const { imageChannels: channels = 3, widths, groups = 32, conditionWidth } = config;
  const stride = strideOf(config);
  const context = { groups, timeWidth: 4 * widths[0]! };
  const time = timeEmbedding(scope.child("time_embedding"), {
    width: widths[0]!,
    out: context.timeWidth,
    names: ["linear_1", "linear_2"],
  });
  const down = downPath(scope, config, context);
  const last = widths.at(-1)!;
  const shrink = config.middleDownsample && halve(scope.child("downsample_mid"), last);
  const sites = new DropoutSites(config.dropout ?? 0);
  const bottom = uvitBottom(scope.child("mid_block"), config, sites);
  const grow = config.middleDownsample && upsample(scope.child("upsample_mid"), last);
  const up = upPath(scope, config, context, down.widths);
  const finish = head(scope, config);
  return {
    stride,
    parameters: scope.specs(),
    forward(input: DecoderInput) {
      checkDecoderInput({ where, channels, stride, conditionWidth }, input);
      const embedding = time(input.times);
      const kept: Tensor[] = [];
      for (const stage of down.stages) kept.push(stage(kept.at(-1) ?? input.x, embedding));
      const deepest = kept.at(-1)!;
      const middle = bottom(shrink ? shrink(deepest) : deepest, { ...input, embedding });
      let h = grow ? grow(middle) : middle;
      for (const { stage, grow: after } of up) {
        h = stage(concat([h, kept.pop()!], 3), embedding);
        if (after) h = after(h);
      }
      const y = finish(h);
      input.x.trace.record(scope.path, y);
      return y;
    },
  };
}
