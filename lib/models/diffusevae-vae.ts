// DiffuseVAE's first stage: a variational autoencoder with one latent vector an image, without norms.
// Topology and parameter names of kpandey008/DiffuseVAE main/models/vae.py, and its class-conditional
// form. Source: Pandey et al. 2022, arXiv:2201.00308; residual blocks: Child 2021, arXiv:2011.10650,
// section 3.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { conv2d } from "../nn/conv.js";
import { embedding } from "../nn/embedding.js";
import { normal, zeros } from "../nn/init.js";
import { linear } from "../nn/linear.js";
import type { Layer } from "../nn/linear.js";
import { ParamScope } from "../nn/module.js";
import { repeatPixels } from "../nn/unet-block.js";
import { avgPool2d, concat } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { channelsOf, parseBlocks, parseChannels } from "./block-string.js";
import { checkFields, limits, optional, text, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";

export interface DiffuseVaeConfig {
  /** Side of the training images, and the label whose channels the decoder ends with. */
  resolution: number;
  /** Blocks of the encoder, e.g. "32x7,32d2,32t16,…,1x3". */
  encoder: string;
  /** Blocks of the decoder, from one pixel up, e.g. "1x1,1u4,1t4,…,32x15". */
  decoder: string;
  /** Channels of each label of the encoder, e.g. "32:64,…,1:512"; the first is 64. */
  encoderChannels: string;
  decoderChannels: string;
  /** Number of classes; default none. */
  classes?: number;
  /** Channels that a class adds to the latent; default 512. */
  classWidth?: number;
}

/** Per image, before anything is drawn. */
export interface Posterior {
  /** (B, 1, 1, D) for images of the training side. */
  mean: Tensor;
  logVariance: Tensor;
}

export interface DiffuseVae {
  readonly config: DiffuseVaeConfig;
  /** Channels of a latent. */
  readonly latentWidth: number;
  readonly parameters: readonly ParamSpec[];
  /** Images (B, H, W, 3) in [0, 1], labels (B) exactly when there are classes -> posterior. */
  encode(image: Tensor, labels?: Tensor): Posterior;
  /** Latents (B, 1, 1, D) -> images (B, H, W, 3) in (0, 1). */
  decode(latent: Tensor, labels?: Tensor): Tensor;
}

const rules: Readonly<Record<keyof DiffuseVaeConfig, Rule>> = {
  resolution: whole(1, limits.side),
  encoder: text(4096),
  decoder: text(4096),
  encoderChannels: text(4096),
  decoderChannels: text(4096),
  classes: optional(whole(1, limits.width)),
  classWidth: optional(whole(1, limits.width)),
};

/** Channels after the first convolution, whatever the configuration. */
const kFirstWidth = 64;
const kImageChannels = 3;

/** (x, labels) -> x. */
type Stage = (x: Tensor, labels?: Tensor) => Tensor;

interface BlockOptions {
  width: number;
  /** Side of the two middle kernels. */
  kernel: number;
  pool: number | undefined;
  classes: number | undefined;
}

/** x + 1x1, 3x3, 3x3, 1x1 at half the width, each behind a gelu; then means over pixels. */
function residualBlock(scope: ParamScope, options: BlockOptions): Stage {
  const { width, kernel, pool, classes } = options;
  const inner = Math.floor(width / 2);
  const label =
    classes && embedding(scope.child("cls_embedding"), { count: classes, width, init: normal(1) });
  const bias = { biasInit: zeros };
  const layers = [
    linear(scope.child("c1"), { in: width, out: inner, ...bias }),
    conv2d(scope.child("c2"), { in: inner, out: inner, kernel, ...bias }),
    conv2d(scope.child("c3"), { in: inner, out: inner, kernel, ...bias }),
    linear(scope.child("c4"), { in: inner, out: width, ...bias }),
  ];
  return (x, labels) => {
    const h = layers.reduce((y, layer) => layer(y.gelu()), x);
    const branch = label && labels ? h.add(label(labels).reshape([x.shape[0]!, 1, 1, width])) : h;
    const sum = x.add(branch);
    const y = pool === undefined ? sum : avgPool2d(sum, { kernel: pool });
    x.trace.record(scope.path, y);
    return y;
  };
}

interface StackOptions {
  where: string;
  blocks: string;
  channels: ReadonlyMap<number, number>;
  /** Channels that come in. */
  width: number;
  isDecoder: boolean;
  classes?: number | undefined;
}

function mismatch(where: string, label: number, wanted: number, width: number): DiffusionError {
  return new DiffusionError(
    "option",
    `${where}: expected ${width} channels for ${label} from what comes before, got ${wanted}`,
  );
}

/** The blocks of a string one after another, numbered as items, and the channels they end with. */
function stack(scope: ParamScope, options: StackOptions): { run: Stage; width: number } {
  const { where, channels, isDecoder, classes } = options;
  let width = options.width;
  const take = (label: number): void => {
    const wanted = channelsOf(where, channels, label);
    if (wanted !== width) throw mismatch(where, label, wanted, width);
  };
  const stages = parseBlocks(where, options.blocks).map((step, i): Stage => {
    const place = scope.child(i);
    if (step.kind === "upsample") {
      if (isDecoder) return (x) => repeatPixels(x, step.factor);
      throw new DiffusionError(
        "option",
        `${where}: expected no upsampling, got factor ${step.factor}`,
      );
    }
    if (step.kind === "transition") {
      take(step.from);
      const from = width;
      width = channelsOf(where, channels, step.to);
      const change = linear(place, { in: from, out: width, bias: false });
      return (x) => change(x);
    }
    take(step.label);
    if (isDecoder && step.pool !== undefined)
      throw new DiffusionError("option", `${where}: expected no pooling, got factor ${step.pool}`);
    const kernel = step.label > 1 ? 3 : 1;
    return residualBlock(place, { width, kernel, pool: step.pool, classes });
  });
  const run: Stage = (x, labels) => {
    const y = stages.reduce((h, stage) => stage(h, labels), x);
    x.trace.record(scope.path, y);
    return y;
  };
  return { run, width };
}

interface VaeEncoder {
  latentWidth: number;
  run: (image: Tensor, labels?: Tensor) => Posterior;
}

function encoder(scope: ParamScope, config: DiffuseVaeConfig): VaeEncoder {
  const where = "diffuseVae.encoder";
  const channels = parseChannels(where, config.encoderChannels, limits.width);
  const first = conv2d(scope.child("in_conv"), {
    in: kImageChannels,
    out: kFirstWidth,
    bias: false,
  });
  const { classes } = config;
  const { run, width } = stack(scope.child(classes === undefined ? "block_mod" : "blocks"), {
    where,
    blocks: config.encoder,
    channels,
    width: kFirstWidth,
    isDecoder: false,
    classes,
  });
  const wanted = channelsOf(where, channels, 1);
  if (wanted !== width) throw mismatch(where, 1, wanted, width);
  const project = (name: string): Layer =>
    linear(scope.child(name), { in: width, out: width, bias: false });
  const mean = project("mu");
  const logVariance = project("logvar");
  return {
    latentWidth: width,
    run(image, labels) {
      const h = run(first(image), labels);
      return { mean: mean(h), logVariance: logVariance(h) };
    },
  };
}

function decoder(scope: ParamScope, config: DiffuseVaeConfig, inWidth: number): Layer {
  const where = "diffuseVae.decoder";
  const channels = parseChannels(where, config.decoderChannels, limits.width);
  const { run, width } = stack(scope.child("block_mod"), {
    where,
    blocks: config.decoder,
    channels,
    width: inWidth,
    isDecoder: true,
  });
  const wanted = channelsOf(where, channels, config.resolution);
  if (wanted !== width) throw mismatch(where, config.resolution, wanted, width);
  const last = conv2d(scope.child("last_conv"), {
    in: width,
    out: kImageChannels,
  });
  return (latent) => last(run(latent)).sigmoid();
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function diffuseVae(
  config: DiffuseVaeConfig,
  scope: ParamScope = new ParamScope(),
): DiffuseVae {
  checkFields("diffuseVae", config, rules);
  const { classes, classWidth = 512 } = config;
  const analyse = encoder(scope.child("enc"), config);
  const { latentWidth } = analyse;
  const label =
    classes &&
    embedding(scope.child("y_emb"), { count: classes, width: classWidth, init: normal(1) });
  const synthesise = decoder(scope.child("dec"), config, latentWidth + (label ? classWidth : 0));
  const checkLabels = (labels: Tensor | undefined): void => {
    if ((labels !== undefined) === (classes !== undefined)) return;
    throw new DiffusionError(
      "shape",
      `diffuseVae: expected ${classes === undefined ? "no labels" : "labels"}, got ${labels ? "some" : "none"}`,
    );
  };
  return {
    config,
    latentWidth,
    parameters: scope.specs(),
    encode(image, labels) {
      checkLabels(labels);
      return analyse.run(image, labels);
    },
    decode(latent, labels) {
      checkLabels(labels);
      if (!label || !labels) return synthesise(latent);
      const [B, H, W] = latent.shape as [number, number, number, number];
      const row = label(labels).reshape([B, 1, 1, classWidth]).broadcastTo([B, H, W, classWidth]);
      return synthesise(concat([latent, row], 3));
    },
  };
}

/** mean + exp(logVariance / 2) noise. Kingma and Welling 2013, arXiv:1312.6114, eq. 10. */
export const drawLatent = ({ mean, logVariance }: Posterior, noise: Tensor): Tensor =>
  mean.add(logVariance.mul(0.5).exp().mul(noise));

export interface DiffuseVaeLoss {
  /** Sum of squared errors over the whole batch. */
  reconstruction: Tensor;
  /** Divergence of the posterior from the standard normal, summed over the whole batch. */
  kl: Tensor;
  total: Tensor;
}

/**
 * reconstruction + klWeight KL, both sums over the batch: Kingma and Welling 2013, arXiv:1312.6114,
 * eq. 10 with a weight (Higgins et al. 2017, beta-VAE). klWeight defaults to 1.
 */
export function diffuseVaeLoss(
  images: Tensor,
  decoded: Tensor,
  { mean, logVariance }: Posterior,
  klWeight = 1,
): DiffuseVaeLoss {
  const reconstruction = decoded.sub(images).square().sum();
  const kl = logVariance.add(1).sub(mean.square()).sub(logVariance.exp()).sum().mul(-0.5);
  return { reconstruction, kl, total: reconstruction.add(kl.mul(klWeight)) };
}
