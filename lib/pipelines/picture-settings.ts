// The settings that a generated picture carries, and back to the options that make it again.
import { DiffusionError } from "../errors.js";
import type { GenerationMetadata } from "../image/image-io.js";
import { checkFields, optional, shown, text, whole, type Rules } from "../models/check-config.js";
import type { Quantize } from "../runtime/program.js";
import { version } from "../version.js";
import type { Job, JobOptions } from "./jobs.js";

export interface Picture {
  /** Name of the pipeline. */
  model: string;
  job: Job;
  seed: number;
  /** Settings that make it again, beside its number and attributes. */
  sampling: object;
  /** Names of the values of each attribute. */
  attributes: Readonly<Record<string, readonly string[]>>;
  /** How the network that is called in every step was computed. */
  quantize?: Quantize | undefined;
  /** Made from a picture too, which it does not carry. */
  isDerived?: boolean;
}

/** What a picture carries. */
export function metadataOf({
  model,
  job,
  seed,
  sampling,
  attributes,
  quantize,
  isDerived,
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
      ...(quantize && { quantize }),
      ...(isDerived && { derived: true }),
    },
  };
}

const settingRules: Rules = {
  sample: optional(whole(0, 2 ** 31 - 1)),
  style: optional(text(256)),
  category: optional(text(256)),
  class: optional(text(256)),
  quantize: optional(text(64)),
  derived: () => undefined,
};

const metadataRules: Rules = {
  prompt: optional(text(4096)),
  seed: optional(whole(0, Number.MAX_SAFE_INTEGER)),
};

const described = (quantize: unknown): string =>
  quantize === undefined ? "no quantize" : `quantize ${shown(quantize)}`;

/**
 * Options that make a picture again by a pipeline with these rules of sampling that computes in this way. The metadata
 * comes from a PNG of a stranger. Throws "data", also for a picture that was computed in another way.
 */
export function optionsOf(
  { prompt, seed, settings = {} }: GenerationMetadata,
  rules: Rules,
  quantize: Quantize | undefined,
): JobOptions & { seed: number } {
  const sampling = Object.entries(rules).map(([name, rule]) => [name, optional(rule)] as const);
  try {
    checkFields("settings", settings, { ...Object.fromEntries(sampling), ...settingRules });
    checkFields("metadata", { prompt, seed }, metadataRules);
  } catch (cause) {
    throw new DiffusionError("data", `regenerate: ${(cause as Error).message}`, { cause });
  }
  const { sample = 0, quantize: made, derived, ...rest } = settings;
  if (made !== quantize)
    throw new DiffusionError(
      "data",
      `regenerate: expected a picture made with ${described(quantize)} as this pipeline computes, got one with ${described(made)}; load the pipeline with the same`,
    );
  if (derived)
    throw new DiffusionError(
      "data",
      "regenerate: expected a picture made from what it carries, got one made from another picture, which is not stored",
    );
  return { ...rest, prompt: prompt ?? "", seed: seed ?? 0, firstSample: sample as number };
}
