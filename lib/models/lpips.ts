// LPIPS: a perceptual distance from the features of VGG16, with one learned weight a channel. Names of
// CompVis/taming-transformers taming/modules/losses/lpips.py. Sources: Zhang et al. 2018, arXiv:1801.03924; Simonyan and
// Zisserman 2014, arXiv:1409.1556 (configuration D).
import { DiffusionError, formatShape } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { conv2d } from "../nn/conv.js";
import { linear } from "../nn/linear.js";
import { ParamScope } from "../nn/module.js";
import type { Layer } from "../nn/linear.js";
import { maxPool2d } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, limits, listOf, optional, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";

export interface LpipsConfig {
  /** Channels of the five stages of VGG16; default 64, 128, 256, 512, 512. */
  widths?: readonly number[];
}

export interface Lpips {
  readonly config: LpipsConfig;
  /** All of them are fixed: the reference trains none. */
  readonly parameters: readonly ParamSpec[];
  /** Shift and scale of the colours, also from the checkpoint. */
  readonly states: readonly ParamSpec[];
  /** Image (B, H, W, 3) in [-1, 1] -> the maps relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3. */
  features(image: Tensor): Tensor[];
  /** Distance of each pair of images (B, H, W, 3): (B). Sides are at least 16. */
  distance(x: Tensor, y: Tensor): Tensor;
}

const rules: Readonly<Record<keyof LpipsConfig, Rule>> = {
  widths: optional(listOf(whole(1, limits.width), 5, 5)),
};

const vgg16Widths = [64, 128, 256, 512, 512];
/** Convolutions of each stage, by their place in the flat list of VGG's layers. */
const stageLayers = [
  [0, 2],
  [5, 7],
  [10, 12, 14],
  [17, 19, 21],
  [24, 26, 28],
];
export const lpipsTaps = ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"];

/** ImageNet's mean and deviation, for images in [-1, 1]. */
const colourShift = [-0.03, -0.088, -0.188];
const colourScale = [0.458, 0.448, 0.45];
const kUnitEps = 1e-10;
const kSmallestSide = 2 ** (stageLayers.length - 1);

/** Where all channels are 0 the value is the same with this floor, and the gradient is 0 instead of 0 / 0. */
const kSquaresFloor = 1e-30;

/** x / (|x| + 1e-10) over channels. */
const unitChannels = (x: Tensor): Tensor => {
  const length = x
    .square()
    .sum([x.rank - 1], true)
    .maximum(kSquaresFloor)
    .sqrt();
  return x.div(length.add(kUnitEps));
};

/** The scaling layer's default values by our names: for checkpoints without them. */
export const lpipsColourScaling: ReadonlyMap<string, Float32Array> = new Map([
  ["scaling_layer.shift", Float32Array.from(colourShift)],
  ["scaling_layer.scale", Float32Array.from(colourScale)],
]);

/** The convolutions of each slice of the VGG network. */
function vggStages(scope: ParamScope, widths: readonly number[]): Layer[][] {
  let from = 3;
  return stageLayers.map((places, stage) => {
    const slice = scope.child(`slice${stage + 1}`);
    return places.map((place) => {
      const conv = conv2d(slice.child(place), { in: from, out: widths[stage]! });
      from = widths[stage]!;
      return conv;
    });
  });
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function lpips(config: LpipsConfig = {}, scope: ParamScope = new ParamScope()): Lpips {
  checkFields("lpips", config, rules);
  const { widths = vgg16Widths } = config;
  const scaling = scope.child("scaling_layer");
  const shift = scaling.state("shift", [3], { kind: "zeros" });
  const scale = scaling.state("scale", [3], { kind: "ones" });
  const stages = vggStages(scope.child("net"), widths);
  const weights = widths.map((width, stage) =>
    linear(scope.child(`lin${stage}.model.1`), { in: width, out: 1, bias: false }),
  );

  const features = (image: Tensor): Tensor[] => {
    const t = image.trace;
    const [, H = 0, W = 0, C] = image.shape;
    if (image.rank !== 4 || C !== 3 || H < kSmallestSide || W < kSmallestSide) {
      throw new DiffusionError(
        "shape",
        `lpips: expected images (B, H, W, 3) with sides from ${kSmallestSide}, got ${formatShape(image.shape)}`,
      );
    }
    let h = image.sub(t.state(shift.name, { shape: [3] })).div(t.state(scale.name, { shape: [3] }));
    return stages.map((convolutions, stage) => {
      if (stage > 0) h = maxPool2d(h, { kernel: 2 });
      h = convolutions.reduce((map, conv) => conv(map).relu(), h);
      t.record(scope.nameOf(lpipsTaps[stage]!), h);
      return h;
    });
  };
  return {
    config,
    parameters: scope.specs(),
    states: scope.states(),
    features,
    distance(x, y) {
      const B = x.shape[0]!;
      const right = features(y);
      const left = features(x); // last, so that its taps stay
      const parts = left.map((map, stage) => {
        const difference = unitChannels(map).sub(unitChannels(right[stage]!)).square();
        return weights[stage]!(difference)
          .reshape([B, map.shape[1]! * map.shape[2]!])
          .mean([1]);
      });
      return parts.reduce((sum, part) => sum.add(part));
    },
  };
}
