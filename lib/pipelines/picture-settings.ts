// The settings that a generated picture carries, and back to the options that make it again.
import { DiffusionError } from "../errors.js";
import type { GenerationMetadata } from "../image/image-io.js";
import { checkFields, optional, text, whole, type Rules } from "../models/check-config.js";
import { samplingRules, type SamplingSettings } from "../trainers/vq-diffusion-recipe.js";
import { version } from "../version.js";
import type { GenerateOptions } from "./generate-options.js";
import type { Job } from "./jobs.js";

export interface Picture {
  /** Name of the pipeline. */
  model: string;
  job: Job;
  seed: number;
  sampling: SamplingSettings;
  /** Names of the values of each attribute. */
  attributes: Readonly<Record<string, readonly string[]>>;
  isInpainted: boolean;
}

/** What a picture carries. */
export function metadataOf({
  model,
  job,
  seed,
  sampling,
  attributes,
  isInpainted,
}: Picture): GenerationMetadata {
  const said = Object.entries(job.attributes)
    .map(([name, value]): [string, string | undefined] => [name, attributes[name]![value]])
    .filter(([, value]) => value !== undefined);
  return {
    model,
    code: version,
    prompt: job.prompt,
    seed,
    settings: {
      ...sampling,
      sample: job.sample,
      ...Object.fromEntries(said),
      ...(isInpainted && { inpainted: true }),
    },
  };
}

const settingRules: Rules = {
  ...Object.fromEntries(
    Object.entries(samplingRules).map(([name, rule]) => [name, optional(rule)]),
  ),
  sample: optional(whole(0, 2 ** 31 - 1)),
  style: optional(text(256)),
  category: optional(text(256)),
  class: optional(text(256)),
  inpainted: () => undefined,
};

const metadataRules: Rules = {
  prompt: optional(text(4096)),
  seed: optional(whole(0, Number.MAX_SAFE_INTEGER)),
};

/** Options that make a picture again. The metadata comes from a PNG of a stranger. Throws "data". */
export function optionsOf({ prompt, seed, settings = {} }: GenerationMetadata): GenerateOptions {
  try {
    checkFields("settings", settings, settingRules);
    checkFields("metadata", { prompt, seed }, metadataRules);
  } catch (cause) {
    throw new DiffusionError("data", `regenerate: ${(cause as Error).message}`, { cause });
  }
  const { sample = 0, inpainted, ...rest } = settings;
  if (inpainted)
    throw new DiffusionError(
      "data",
      "regenerate: expected a picture made from a prompt alone, got an inpainted one; its source picture is not stored",
    );
  return {
    ...(rest as GenerateOptions),
    prompt: prompt ?? "",
    seed: seed ?? 0,
    firstSample: sample as number,
  };
}
