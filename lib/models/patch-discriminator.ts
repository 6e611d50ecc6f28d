// PatchGAN discriminator: strided convolutions to a map of logits, one for each patch. Topology and
// names of CompVis/taming-transformers taming/modules/discriminator/model.py. Source: Isola et al.
// 2017, arXiv:1611.07004.
import type { ParamSpec } from "../ir/param.js";
import { conv2d, type Conv2dLayerOptions } from "../nn/conv.js";
import { normal, ones, zeros } from "../nn/init.js";
import { ParamScope } from "../nn/module.js";
import { leakyRelu } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { checkFields, limits, oneOf, optional, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";

export interface PatchDiscriminatorConfig {
  /** Channels of the picture; default 3. */
  imageChannels?: number;
  /** Channels of the first layer; default 64. */
  channels?: number;
  /** Layers with a norm, all but the last of stride 2; default 3. */
  layers?: number;
  /** "batch": BatchNorm with running statistics; "act": ActNorm. Default "batch". */
  norm?: "batch" | "act";
}

/**
 * "train" uses and updates the statistics of the batch; "eval" the stored ones; "initialise" sets
 * ActNorm from the batch.
 */
export type DiscriminatorMode = "train" | "eval" | "initialise";

/**
 * Running state by name, handed in and out explicitly: a discriminator is called twice in a step.
 */
export type NormState = Readonly<Record<string, Tensor>>;

export interface PatchDiscriminator {
  readonly config: PatchDiscriminatorConfig;
  readonly parameters: readonly ParamSpec[];
  readonly states: readonly ParamSpec[];
  /** State read from the trace's state inputs. */
  state(trace: Trace): NormState;
  /** Image (B, H, W, 3) -> logits (B, h, w, 1) and the state after the call. */
  forward(
    image: Tensor,
    options: { mode: DiscriminatorMode; state: NormState },
  ): { logits: Tensor; state: NormState };
}

const kSlope = 0.2;
const kMomentum = 0.1;
const kBatchNormEps = 1e-5;
const kActNormEps = 1e-6;
const kMaxWidening = 8;

type StatefulLayer = (x: Tensor, mode: DiscriminatorMode, state: Record<string, Tensor>) => Tensor;

/** Mean and biased variance of each channel over batch and space. */
function channelMoments(x: Tensor): { mean: Tensor; variance: Tensor; count: number } {
  const C = x.shape.at(-1)!;
  const flat = x.reshape([x.size / C, C]);
  const mean = flat.mean([0]);
  return { mean, variance: flat.sub(mean).square().mean([0]), count: x.size / C };
}

/**
 * Ioffe and Szegedy 2015, arXiv:1502.03167; the running variance is the unbiased one, momentum 0.1.
 */
function batchNorm(scope: ParamScope, channels: number): StatefulLayer {
  const gamma = scope.param("weight", [channels], normal(0.02, 1));
  const beta = scope.param("bias", [channels], zeros);
  const runningMean = scope.state("running_mean", [channels], zeros);
  const runningVar = scope.state("running_var", [channels], ones);
  const read = (t: Trace, state: Record<string, Tensor>, spec: ParamSpec): Tensor =>
    state[spec.name] ?? t.state(spec.name, { shape: spec.shape });
  return (x, mode, state) => {
    const t = x.trace;
    const stored = { mean: read(t, state, runningMean), variance: read(t, state, runningVar) };
    const batch = mode === "eval" ? undefined : channelMoments(x);
    if (batch) {
      const unbiased = batch.variance.mul(batch.count / Math.max(1, batch.count - 1));
      const blend = (old: Tensor, fresh: Tensor): Tensor =>
        old.mul(1 - kMomentum).add(fresh.mul(kMomentum));
      state[runningMean.name] = blend(stored.mean, batch.mean);
      state[runningVar.name] = blend(stored.variance, unbiased);
    }
    const { mean, variance } = batch ?? stored;
    const scale = t.parameter(gamma).div(variance.add(kBatchNormEps).sqrt());
    const y = x.sub(mean).mul(scale).add(t.parameter(beta));
    t.record(scope.path, y);
    return y;
  };
}

/**
 * y = scale (x + loc), set so that the first batch has zero mean and unit deviation. Kingma and
 * Dhariwal 2018, arXiv:1807.03039, section 3.1. "initialise" puts the new loc and scale into the
 * state under the parameters' names.
 */
function actNorm(scope: ParamScope, channels: number): StatefulLayer {
  const loc = scope.param("loc", [channels], zeros);
  const scale = scope.param("scale", [channels], ones);
  return (x, mode, state) => {
    const t = x.trace;
    if (mode === "initialise") {
      const { mean, variance, count } = channelMoments(x);
      const deviation = variance.mul(count / Math.max(1, count - 1)).sqrt();
      state[loc.name] = mean.neg();
      state[scale.name] = deviation.add(kActNormEps).reciprocal();
    }
    const y = x
      .add(state[loc.name] ?? t.parameter(loc))
      .mul(state[scale.name] ?? t.parameter(scale));
    t.record(scope.path, y);
    return y;
  };
}

const rules: Readonly<Record<keyof PatchDiscriminatorConfig, Rule>> = {
  imageChannels: optional(whole(1, 64)),
  channels: optional(whole(1, limits.width / kMaxWidening)),
  layers: optional(whole(1, 12)),
  norm: optional(oneOf("batch", "act")),
};

type Convolution = Pick<Conv2dLayerOptions, "in" | "out" | "stride"> & { bias: boolean };

/** Module numbers of the reference's sequence: a convolution, then (convolution, norm, activation) a layer. */
function stagesOf(scope: ParamScope, config: PatchDiscriminatorConfig): StatefulLayer[] {
  const { imageChannels = 3, channels = 64, layers = 3, norm = "batch" } = config;
  const convolution = (index: number, options: Convolution): StatefulLayer => {
    const inits = { weightInit: normal(0.02), biasInit: zeros };
    const layer = conv2d(scope.child(index), { kernel: 4, padding: 1, ...inits, ...options });
    return (x) => layer(x);
  };
  const normalise = norm === "batch" ? batchNorm : actNorm;
  const activation: StatefulLayer = (x) => leakyRelu(x, { slope: kSlope });
  const widthOf = (layer: number): number => channels * Math.min(2 ** layer, kMaxWidening);
  const start = convolution(0, { in: imageChannels, out: channels, stride: 2, bias: true });
  const inner = Array.from({ length: layers }, (_, i) => {
    const [first, out, stride] = [3 * i + 2, widthOf(i + 1), i + 1 < layers ? 2 : 1];
    return [
      convolution(first, { in: widthOf(i), out, stride, bias: norm === "act" }),
      normalise(scope.child(first + 1), out),
      activation,
    ];
  });
  return [
    start,
    activation,
    ...inner.flat(),
    convolution(3 * layers + 2, { in: widthOf(layers), out: 1, stride: 1, bias: true }),
  ];
}

export function patchDiscriminator(
  config: PatchDiscriminatorConfig = {},
  scope: ParamScope = new ParamScope(),
): PatchDiscriminator {
  checkFields("patchDiscriminator", config, rules);
  const stages = stagesOf(scope.child("main"), config);
  const states = scope.states();
  return {
    config,
    parameters: scope.specs(),
    states,
    state: (t) =>
      Object.fromEntries(
        states.map((spec) => [spec.name, t.state(spec.name, { shape: spec.shape })]),
      ),
    forward(image, { mode, state }) {
      const next = { ...state };
      const logits = stages.reduce((x, stage) => stage(x, mode, next), image);
      return { logits, state: next };
    },
  };
}
