// ADM U-Net: a denoiser on pixels with attention, conditioned on time and class. Topology and
// parameter names of openai/guided-diffusion guided_diffusion/unet.py; improved-diffusion has the
// same network with fewer options. Its upsamplers (SuperResModel) see a low-resolution image beside the
// noisy one. Sources: Dhariwal and Nichol 2021, arXiv:2105.05233, section 3; Nichol and Dhariwal 2021,
// arXiv:2102.09672.
import type { ParamSpec } from "../ir/param.js";
import { conv2d } from "../nn/conv.js";
import { embedding } from "../nn/embedding.js";
import { normal, zeros } from "../nn/init.js";
import type { Layer } from "../nn/linear.js";
import { ParamScope } from "../nn/module.js";
import { groupNorm } from "../nn/norm.js";
import { timeEmbedding } from "../nn/time-embedding.js";
import { concat, resize } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import {
  admEmbeddingWidth,
  admStride,
  admTrunk,
  admTrunkRules,
  checkAdmTrunk,
} from "./adm-trunk.js";
import type { AdmTrunkConfig } from "./adm-trunk.js";
import { checkFields, flag, limits, optional, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";
import { checkUnetInput } from "./unet-input.js";
import type { UnetInput } from "./unet-input.js";

export interface AdmUnetConfig extends AdmTrunkConfig {
  /** Side of the training images; the network itself takes any sides divisible by its stride. */
  resolution: number;
  /** Channels of x; default 3. */
  imageChannels?: number;
  /** Channels of the prediction, twice the image's with learned variances; default imageChannels. */
  outChannels?: number;
  /** Number of classes; default none. */
  classes?: number;
  /**
   * An upsampler: `lowRes`, resized bilinearly (half-pixel centres, no antialiasing), is joined to x,
   * so that the first convolution sees twice the image's channels. Default false.
   */
  superResolution?: boolean;
}

export interface AdmUnet {
  readonly config: AdmUnetConfig;
  /** Sides of x are multiples of this. */
  readonly stride: number;
  readonly parameters: readonly ParamSpec[];
  /** Prediction (B, H, W, outChannels). Throws "shape" for inputs that do not fit. */
  forward(input: UnetInput): Tensor;
}

export const admUnetRules: Readonly<Record<keyof AdmUnetConfig, Rule>> = {
  ...admTrunkRules,
  resolution: whole(1, limits.side),
  imageChannels: optional(whole(1, limits.width)),
  outChannels: optional(whole(1, limits.width)),
  classes: optional(whole(1, limits.width)),
  superResolution: optional(flag),
};

/** (times (B), labels (B)) -> (B, 4 C): sinusoids and a small network, plus a row for the class. */
export function admEmbedding(scope: ParamScope, config: AdmTrunkConfig): (times: Tensor) => Tensor {
  const out = admEmbeddingWidth(config);
  return timeEmbedding(scope.child("time_embed"), { width: config.channels, out });
}

/** Row of a class that is added to the embedding of time. */
export const admClassEmbedding = (
  scope: ParamScope,
  config: AdmTrunkConfig,
  classes: number,
): Layer =>
  embedding(scope.child("label_emb"), {
    count: classes,
    width: admEmbeddingWidth(config),
    init: normal(1),
  });

/** Norm, silu and a 3x3 convolution that starts at zero. */
export function admHead(scope: ParamScope, groups: number, from: number, to: number): Layer {
  const norm = groupNorm(scope.child(0), {
    channels: from,
    groups,
    eps: 1e-5,
    activation: "silu",
  });
  const conv = conv2d(scope.child(2), { in: from, out: to, weightInit: zeros, biasInit: zeros });
  return (x) => conv(norm(x));
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function admUnet(config: AdmUnetConfig, scope: ParamScope = new ParamScope()): AdmUnet {
  const where = "admUnet";
  checkFields(where, config, admUnetRules);
  checkAdmTrunk(where, config);
  const { imageChannels = 3, outChannels = imageChannels, classes, groups = 32 } = config;
  const conditional = config.superResolution ?? false;
  const stride = admStride(config);
  const time = admEmbedding(scope, config);
  const label = classes === undefined ? undefined : admClassEmbedding(scope, config, classes);
  const trunk = admTrunk(scope, config, (conditional ? 2 : 1) * imageChannels);
  const head = admHead(scope.child("out"), groups, trunk.width, outChannels);
  return {
    config,
    stride,
    parameters: scope.specs(),
    forward(input) {
      checkUnetInput({ where, channels: imageChannels, stride, classes, conditional }, input);
      const { x, times, labels, lowRes, dropoutKey } = input;
      const size = x.shape.slice(1, 3) as [number, number];
      const image = lowRes ? concat([x, resize(lowRes, { size })], 3) : x;
      const base = time(times);
      const embedding = label && labels ? base.add(label(labels)) : base;
      return head(trunk.run(image, { embedding, dropoutKey }));
    },
  };
}
