// The game against a discriminator and the perceptual term as recipes of autoencoders hold them.
import { DiffusionError } from "../errors.js";
import {
  checkFields,
  listOf,
  object,
  oneOf,
  optional,
  text,
  whole,
  type Rule,
} from "../models/check-config.js";
import { lpips } from "../models/lpips.js";
import { patchDiscriminator } from "../models/patch-discriminator.js";
import { discriminatorLosses } from "../processes/adversarial.js";
import type { AdversarialOptions } from "./adversarial-trainer.js";
import type { PerceptualOptions } from "./perceptual-term.js";
import { weight } from "./recipe-fields.js";

export interface AdversarialRecipe {
  /** The game against a discriminator; off by default. */
  adversarial?: AdversarialOptions;
  /** LPIPS beside the other reconstruction terms; off by default. */
  perceptual?: PerceptualOptions;
}

/** What is known of the pictures. */
interface Pictures {
  resolution: number;
  imageChannels?: number;
}

export const adversarialRecipeRules: Readonly<Record<keyof AdversarialRecipe, Rule>> = {
  adversarial: optional(object),
  perceptual: optional(object),
};

const lpipsSmallestSide = 16;

const adversarialRules: Readonly<Record<keyof AdversarialOptions, Rule>> = {
  start: whole(0, 1e9),
  weight: optional(weight),
  loss: optional(oneOf(...Object.keys(discriminatorLosses))),
  discriminator: optional(object),
};

const perceptualRules: Readonly<Record<keyof PerceptualOptions, Rule>> = {
  weights: (value) =>
    text(4096)(value) === undefined || listOf(text(4096), 1, 16)(value) === undefined
      ? undefined
      : "a file, or a list of files",
  weight: optional(weight),
  widths: () => undefined, // by lpips
};

/** LPIPS; it halves pictures of three channels four times. */
function checkPerceptual(
  where: string,
  options: PerceptualOptions,
  { resolution, imageChannels = 3 }: Pictures,
): void {
  checkFields(where, options, perceptualRules);
  lpips(options.widths ? { widths: options.widths } : {});
  if (resolution < lpipsSmallestSide || imageChannels !== 3)
    throw new DiffusionError(
      "option",
      `${where}: expected pictures of 3 channels and at least ${lpipsSmallestSide} pixels, got ${imageChannels} and ${resolution}`,
    );
}

/** The game; every stride-2 layer of the discriminator must leave pixels for the last two layers. */
function checkGame(where: string, options: AdversarialOptions, pictures: Pictures): void {
  checkFields(where, options, adversarialRules);
  const { layers = 3, imageChannels = 3 } = patchDiscriminator(options.discriminator).config;
  const wanted = pictures.imageChannels ?? 3;
  if (imageChannels !== wanted)
    throw new DiffusionError(
      "option",
      `${where}: expected discriminator.imageChannels ${wanted} as the pictures have, got ${imageChannels}`,
    );
  if (pictures.resolution < 3 * 2 ** layers)
    throw new DiffusionError(
      "option",
      `${where}: expected pictures of at least ${3 * 2 ** layers} pixels for ${layers} layers, got ${pictures.resolution}; set discriminator.layers`,
    );
}

/** Checks both terms for pictures of a model. Throws "option". */
export function checkAdversarialRecipe(
  path: string,
  { adversarial, perceptual }: AdversarialRecipe,
  pictures: Pictures,
): void {
  if (adversarial) checkGame(`${path}: adversarial`, adversarial, pictures);
  if (perceptual) checkPerceptual(`${path}: perceptual`, perceptual, pictures);
}
