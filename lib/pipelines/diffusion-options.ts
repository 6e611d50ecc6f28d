// What a call of `generate` or `stream` of a diffusion pipeline may say, and its checks.
import { DiffusionError } from "../errors.js";
import type { Image } from "../image/image-io.js";
import { checkFields, isObject, limits, optional, real, text, whole, type Rule, type Rules } from "../models/check-config.js"; // prettier-ignore
import {
  diffusionSamplingRules,
  samplingOver,
  type DiffusionSampling,
} from "../trainers/diffusion-sampling.js";
import {
  checkedElsewhere,
  commonRules,
  oneOrList,
  picture,
  type CommonOptions,
  type OneOrEach,
  type PreviewOptions,
} from "./generate-options.js";

/** Pixels of a picture. */
export interface PictureSize {
  width: number;
  height: number;
}

/** Settings that a picture carries beside those of sampling. */
export interface DiffusionAsk {
  /** What guidance leads away from, of a model that reads text; default "". */
  negativePrompt?: string;
  /** Size in pixels, one number for a square; networks of one size refuse others. Default: that of the training. */
  size?: number | PictureSize;
}

export interface DiffusionGenerateOptions
  extends CommonOptions, Partial<DiffusionSampling>, DiffusionAsk {
  /** The sampler's option eta: the share of fresh noise. */
  eta?: number;
  /**
   * A picture, or one for each: what DiffuseVAE refines instead of a sample of its VAE, what an upsampler enlarges, what
   * DiVAE encodes.
   */
  image?: OneOrEach<Image>;
}

export interface DiffusionStreamOptions extends DiffusionGenerateOptions, PreviewOptions {}

const side = whole(1, 65536);

const sizeRule: Rule = (value) => {
  const sides = isObject(value) ? [value["width"], value["height"]] : [value];
  return sides.every((each) => side(each) === undefined)
    ? undefined
    : "a number of pixels or { width, height }";
};

/** Rules of what a picture carries. */
export const carriedRules: Rules = {
  ...diffusionSamplingRules,
  negativePrompt: text(4096),
  size: sizeRule,
};

const rules: Readonly<Record<keyof DiffusionStreamOptions, Rule>> = {
  ...commonRules,
  ...checkedElsewhere(diffusionSamplingRules),
  negativePrompt: optional(text(4096)),
  size: optional(sizeRule),
  eta: optional(real(0, 100)),
  image: oneOrList(picture),
};

/** Checks the options of `generate` and `stream` except those of sampling. Throws "option". */
export const checkDiffusionOptions = (options: object): void =>
  checkFields("generate", options, rules);

/** Settings of sampling: those of a call over the defaults of a pipeline. */
export function diffusionSamplingOf(
  { eta, ...given }: DiffusionGenerateOptions,
  defaults: DiffusionSampling,
): DiffusionSampling {
  const sampling = samplingOver(given, defaults);
  if (eta === undefined) return sampling;
  return { ...sampling, samplerOptions: { ...sampling.samplerOptions, eta } };
}

/** Height and width of a state. Throws "option" for a size that the network does not take. */
export function stateSize(
  { size }: DiffusionAsk,
  network: { size: readonly [number, number]; pixels: number; stride: number | undefined },
): readonly [number, number] {
  if (size === undefined) return network.size;
  const { width, height } = typeof size === "number" ? { width: size, height: size } : size;
  const sides = [height / network.pixels, width / network.pixels] as const;
  const { stride } = network;
  const fits =
    stride === undefined
      ? sides.join() === network.size.join()
      : sides.every((each) => each % stride === 0 && each <= limits.side);
  if (fits) return sides;
  const [h, w] = network.size.map((each) => each * network.pixels);
  throw new DiffusionError(
    "option",
    `generate: expected size ${stride === undefined ? `${w} x ${h}` : `with sides divisible by ${stride * network.pixels}`}, got ${width} x ${height}`,
  );
}
