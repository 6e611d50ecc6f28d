// What a call of `generate` or `stream` may say, and its checks.
import type { Image } from "../image/image-io.js";
import {
  checkFields,
  isObject,
  limits,
  listOf,
  optional,
  text,
  whole,
  type Rule,
} from "../models/check-config.js";
import { samplingRules, type SamplingSettings } from "../trainers/vq-diffusion-recipe.js";

/** Classes by name or number. */
export type ClassName = string | number;

/** One for all pictures, or one for each. */
export type OneOrEach<T> = T | readonly T[];

/** What every pipeline is asked with. */
export interface CommonOptions {
  /** What to show: one text, or one a picture. Without it the model chooses. */
  prompt?: OneOrEach<string>;
  /** Class of a class-conditional model, by name or number: one, or one a picture. Default: the model chooses. */
  class?: OneOrEach<ClassName>;
  /** Pictures for each prompt, or each class; default 1. */
  count?: number;
  /** Default 0. The picture depends on (seed, its number) and not on the batch. */
  seed?: number;
  /** Number of the first picture under the seed; default 0. */
  firstSample?: number;
  /** Pictures in one run of the network; default 8. */
  batchSize?: number;
  signal?: AbortSignal;
  onProgress?: (event: { step: number; steps: number }) => void;
  onWarning?: (message: string) => void;
}

export interface GenerateOptions extends CommonOptions {
  /** Style by name: one, or one a picture. Default: the model chooses. */
  style?: OneOrEach<string>;
  /** Category by name: one, or one a picture. */
  category?: OneOrEach<string>;
  /**
   * Levels of noise visited, not calls of the network. "exact" calls it once a level; "released" walks with the whole
   * stride nearest to timesteps / steps, so a few times more or less; "purity" skips levels that reveal no token, and
   * its plan (purityPlan, with perCall) may split a level over several calls.
   */
  steps?: number;
  /** Classifier-free guidance; 1 = off. */
  guidanceScale?: number;
  /** Keep classes while the mass before them is below this; 1 = off. */
  truncation?: number;
  /** Below 1 safer, above 1 wilder. */
  temperature?: number;
  /** Keep this many classes; 0 = off. */
  topK?: number;
  /** "exact": exact posterior at any stride; "released": the published fast form; "purity": surest tokens first. */
  sampler?: SamplingSettings["sampler"];
  /** Picture to change where `mask` is 1. */
  image?: Image;
  /** One byte a pixel of `image`, 1 = make anew; a token is made anew when any of its pixels is. */
  mask?: Uint8Array;
  /** In place of both: token ids to keep, in rows of the grid, -1 = make anew. */
  known?: readonly number[] | Int32Array;
}

/** What `stream` takes beside the options of `generate`. */
export interface PreviewOptions {
  /** Steps between previews; default 0 = none. */
  previewEvery?: number;
}

export interface StreamOptions extends GenerateOptions, PreviewOptions {}

const longestText = 4096;

/** Pictures in one call. */
export const maxPictures = 65536;

const either =
  (...rules: readonly Rule[]): Rule =>
  (value) => {
    const expected = rules.map((rule) => rule(value));
    return expected.includes(undefined) ? undefined : expected.join(" or ");
  };

export const oneOrList = (rule: Rule): Rule => optional(either(rule, listOf(rule, 1, maxPictures)));
const call: Rule = (value) => (typeof value === "function" ? undefined : "a function");
const index = whole(0, maxPictures);

export const picture: Rule = (value) =>
  isObject(value) && ArrayBuffer.isView(value["data"])
    ? undefined
    : "a picture { width, height, data }";

export const commonRules: Readonly<Record<keyof (CommonOptions & PreviewOptions), Rule>> = {
  prompt: oneOrList(text(longestText)),
  class: oneOrList(either(text(longestText), index)),
  count: optional(whole(1, maxPictures)),
  seed: optional(whole(0, Number.MAX_SAFE_INTEGER)),
  firstSample: optional(whole(0, 2 ** 31 - 1 - maxPictures)),
  batchSize: optional(whole(1, maxPictures)),
  signal: optional((value) => (value instanceof AbortSignal ? undefined : "an AbortSignal")),
  onProgress: optional(call),
  onWarning: optional(call),
  previewEvery: optional(whole(0, 1e9)),
};

const { batchSize, signal, onProgress } = commonRules;

/** Rules of what codecs are asked with. */
export const codecRules = { batchSize, signal, onProgress };

/** Settings of sampling have rules of their own. */
export const checkedElsewhere = <Name extends string>(
  names: Readonly<Record<Name, Rule>>,
): Record<Name, Rule> =>
  Object.fromEntries(Object.keys(names).map((name) => [name, () => undefined])) as Record<Name, never>; // prettier-ignore

/** Against the grid and the codebook, `knownTokens` checks them. */
export const knownRule: Rule = (value) =>
  value instanceof Int32Array ? undefined : listOf(whole(-1, limits.codes), 1, 2 ** 20)(value);

const rules: Readonly<Record<keyof StreamOptions, Rule>> = {
  ...commonRules,
  style: oneOrList(text(longestText)),
  category: oneOrList(text(longestText)),
  ...checkedElsewhere(samplingRules),
  image: optional(picture),
  mask: optional((value) => (value instanceof Uint8Array ? undefined : "a Uint8Array")),
  known: optional(knownRule),
};

/** Checks the options of `generate` and `stream` except those of sampling. Throws "option". */
export const checkGenerateOptions = (options: object): void =>
  checkFields("generate", options, rules);

/** Settings of sampling: those of a call over the defaults of a pipeline. */
export const samplingOf = (
  options: GenerateOptions,
  defaults: SamplingSettings,
): SamplingSettings =>
  Object.fromEntries(
    Object.entries(defaults).map(([name, value]) => [
      name,
      options[name as keyof SamplingSettings] ?? value,
    ]),
  ) as unknown as SamplingSettings;
