// ADM half U-Net: the classifier on noisy images whose gradients guide sampling (EncoderUNetModel of
// openai/guided-diffusion guided_diffusion/unet.py), with its four heads. Source: Dhariwal and Nichol
// 2021, arXiv:2105.05233, section 4; attention pooling: Radford et al. 2021, arXiv:2103.00020,
// section 2.4.
import { DiffusionError, formatShape } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { normal, zeros } from "../nn/init.js";
import { linear } from "../nn/linear.js";
import type { Layer } from "../nn/linear.js";
import { ParamScope } from "../nn/module.js";
import { groupNorm } from "../nn/norm.js";
import { splitHeads } from "../nn/qkv-attention.js";
import { attention as attend, concat } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import {
  admContext,
  admDownPath,
  admMiddle,
  admStride,
  admTrunkRules,
  checkAdmTrunk,
} from "./adm-trunk.js";
import type { AdmTrunkConfig } from "./adm-trunk.js";
import { admEmbedding } from "./adm-unet.js";
import { checkFields, limits, oneOf, optional, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";
import { checkUnetInput } from "./unet-input.js";
import type { UnetInput } from "./unet-input.js";

export type EncoderPool = "adaptive" | "attention" | "spatial" | "spatial-v2";

export interface AdmEncoderUnetConfig extends AdmTrunkConfig {
  /** Side of the training images; attention pooling takes no other. */
  resolution: number;
  /** Channels of x; default 3. */
  imageChannels?: number;
  /** Numbers in the result: logits of classes. */
  outputs: number;
  /**
   * "adaptive": mean of the last map; "attention": a query of its mean (needs headChannels);
   * "spatial" and "spatial-v2": a small network on the means of all maps. Default "adaptive".
   */
  pool?: EncoderPool;
}

export interface AdmEncoderUnet {
  readonly config: AdmEncoderUnetConfig;
  readonly stride: number;
  readonly parameters: readonly ParamSpec[];
  /** (B, outputs), not normalised. Throws "shape" for inputs that do not fit. */
  forward(input: UnetInput): Tensor;
}

const rules: Readonly<Record<keyof AdmEncoderUnetConfig, Rule>> = {
  ...admTrunkRules,
  resolution: whole(1, limits.side),
  imageChannels: optional(whole(1, limits.width)),
  outputs: whole(1, limits.width),
  pool: optional(oneOf("adaptive", "attention", "spatial", "spatial-v2")),
};

/** Width between the two layers of the spatial heads. */
const kSpatialWidth = 2048;

/** Mean over the pixels of (B, H, W, C). */
const pixelMean = (x: Tensor): Tensor => x.mean([1, 2]);

interface HeadOptions {
  config: AdmEncoderUnetConfig;
  /** Channels of the last map. */
  width: number;
  /** Channels of all kept maps together. */
  features: number;
}

/** The last map, and the means of all maps where a head reads them. */
type EncoderHead = (last: Tensor, means: Tensor) => Tensor;

const headNorm = (scope: ParamScope, channels: number, config: AdmEncoderUnetConfig): Layer =>
  groupNorm(scope, { channels, groups: config.groups ?? 32, eps: 1e-5, activation: "silu" });

function adaptiveHead(scope: ParamScope, { config, width }: HeadOptions): EncoderHead {
  const norm = headNorm(scope.child(0), width, config);
  const zero = { weightInit: zeros, biasInit: zeros };
  const out = linear(scope.child(3), { in: width, out: config.outputs, ...zero });
  return (last) => out(pixelMean(norm(last)));
}

/** The mean joins the pixels as token 0, and only its answer is read. */
function attentionHead(scope: ParamScope, { config, width }: HeadOptions): EncoderHead {
  const norm = headNorm(scope.child(0), width, config);
  const place = scope.child(2);
  const tokens = Math.floor(config.resolution / admStride(config)) ** 2 + 1;
  const shape = [tokens, width];
  const positions = place.param("positional_embedding", shape, normal(1 / Math.sqrt(width)));
  const project = linear(place.child("qkv_proj"), { in: width, out: 3 * width });
  const out = linear(place.child("c_proj"), { in: width, out: config.outputs });
  const heads = Math.floor(width / config.headChannels!);
  return (last) => {
    const t = last.trace;
    const [B, H, W, C] = last.shape as [number, number, number, number];
    if (H * W + 1 !== tokens) {
      throw new DiffusionError(
        "shape",
        `admEncoderUnet: expected images of ${config.resolution} x ${config.resolution} for attention pooling, got a last map ${formatShape(last.shape)}`,
      );
    }
    const map = norm(last).reshape([B, H * W, C]);
    const all = concat([map.mean([1], true), map], 1).add(t.parameter(positions));
    const [q, k, v] = splitHeads(project(all), heads, "qkv-first") as [Tensor, Tensor, Tensor];
    const first = q.slice([0, 0, 0, 0], [B, 1, heads, C / heads]);
    const y = out(attend(first, k, v).out.reshape([B, C]));
    t.record(place.path, y);
    return y;
  };
}

function spatialHead(scope: ParamScope, { config, features }: HeadOptions): EncoderHead {
  const isSecond = config.pool === "spatial-v2";
  const first = linear(scope.child(0), { in: features, out: kSpatialWidth });
  const norm = isSecond ? headNorm(scope.child(1), kSpatialWidth, config) : undefined;
  const out = linear(scope.child(isSecond ? 3 : 2), { in: kSpatialWidth, out: config.outputs });
  return (_, means) => {
    const h = first(means);
    return out(norm ? norm(h) : h.relu());
  };
}

const encoderHeads: Readonly<
  Record<EncoderPool, (scope: ParamScope, options: HeadOptions) => EncoderHead>
> = {
  adaptive: adaptiveHead,
  attention: attentionHead,
  spatial: spatialHead,
  "spatial-v2": spatialHead,
};

function checkPool({ pool, headChannels, groups = 32 }: AdmEncoderUnetConfig): void {
  if (pool === "attention" && headChannels === undefined) {
    throw new DiffusionError(
      "option",
      "admEncoderUnet: expected headChannels for attention pooling, got none",
    );
  }
  if (pool !== "spatial-v2" || kSpatialWidth % groups === 0) return;
  throw new DiffusionError(
    "option",
    `admEncoderUnet: expected groups that divide ${kSpatialWidth} for spatial-v2 pooling, got ${groups}`,
  );
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function admEncoderUnet(
  config: AdmEncoderUnetConfig,
  scope: ParamScope = new ParamScope(),
): AdmEncoderUnet {
  const where = "admEncoderUnet";
  checkFields(where, config, rules);
  checkAdmTrunk(where, config);
  checkPool(config);
  const { imageChannels: channels = 3, pool = "adaptive" } = config;
  const stride = admStride(config);
  const context = admContext(config);
  const time = admEmbedding(scope, config);
  const down = admDownPath(context, scope.child("input_blocks"), channels);
  const width = down.widths.at(-1)!;
  const middle = admMiddle(context, scope.child("middle_block"), width);
  const features = down.widths.reduce((a, b) => a + b, width);
  const head = encoderHeads[pool](scope.child("out"), { config, width, features });
  return {
    config,
    stride,
    parameters: scope.specs(),
    forward(input) {
      checkUnetInput({ where, channels, stride: 1 }, input);
      const { x, times, dropoutKey } = input;
      const call = { embedding: time(times), dropoutKey };
      const maps: Tensor[] = [];
      for (const stage of down.stages) maps.push(stage(maps.at(-1) ?? x, call));
      maps.push(middle(maps.at(-1)!, call));
      const y = head(maps.at(-1)!, concat(maps.map(pixelMean), 1));
      x.trace.record(scope.nameOf("out"), y);
      return y;
    },
  };
}
