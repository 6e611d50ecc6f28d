// Which pictures a call asks for: prompts and names of attribute values, checked against what the model knows.
import { DiffusionError, nearestName } from "../errors.js";
import { shown } from "../models/check-config.js";
import type { EncodedText } from "../text/tokenizer.js";
import type { SampleCondition } from "../trainers/condition-rows.js";
import { maxPictures, type ClassName, type GenerateOptions, type OneOrEach } from "./generate-options.js"; // prettier-ignore

/** One picture to make. */
export interface Job {
  prompt: string;
  /** Value of each attribute of the model; the number of its values means "not said". */
  attributes: Record<string, number>;
  /** Number of the picture under the seed. */
  sample: number;
  /** Its place in lists of prompts, classes and the like. */
  subject: number;
}

/** What a model can be told. */
export interface Askable {
  readsText: boolean;
  /** Names of the values of each attribute. */
  attributes: Readonly<Record<string, readonly string[]>>;
}

const attributeOptions = ["style", "category", "class"] as const;

/** What decides which pictures a call asks for. */
export type JobOptions = Pick<
  GenerateOptions,
  "prompt" | (typeof attributeOptions)[number] | "count" | "firstSample"
>;

const isEach = <T>(value: OneOrEach<T> | undefined): value is readonly T[] => Array.isArray(value);

/** The value of picture `i`, when one value or one for each was given. */
export const at = <T>(value: OneOrEach<T> | undefined, i: number): T | undefined =>
  isEach(value) ? value[i] : value;

/** How many different pictures are asked for. Throws "option" when lists differ in length. */
function subjects(
  { prompt = "", ...rest }: JobOptions,
  others: Readonly<Record<string, OneOrEach<unknown> | undefined>>,
): number {
  const said = attributeOptions.map((name) => [name, rest[name]] as const);
  const lists = [...said, ...Object.entries(others)];
  const lengths = lists.map(([, value]) => (isEach(value) ? value.length : 1));
  const n = isEach(prompt) ? prompt.length : Math.max(...lengths);
  for (const [name, value] of lists) {
    if (!isEach(value) || value.length === n) continue;
    throw new DiffusionError(
      "option",
      `generate: expected one ${name} or one for each of ${n} ${isEach(prompt) ? "prompts" : "pictures"}, got ${value.length}`,
    );
  }
  return n;
}

/** Throws "option" for something said that the model does not know. */
function checkKnown(options: JobOptions, { readsText, attributes }: Askable): void {
  const { prompt } = options;
  const isSaid = [prompt ?? ""].flat().some((text) => text.trim() !== "");
  const foreign = attributeOptions.find(
    (name) => options[name] !== undefined && !Object.hasOwn(attributes, name),
  );
  const unknown = isSaid && !readsText ? "prompt" : foreign;
  if (unknown)
    throw new DiffusionError(
      "option",
      `generate: expected no ${unknown}, which this model does not know, got ${shown(options[unknown])}`,
    );
}

/** Index of an attribute's value; the count of values means "not said". */
function valueOf(
  attribute: string,
  names: readonly string[],
  value: ClassName | undefined,
): number {
  if (value === undefined) return names.length;
  const named = typeof value === "number" ? value : names.indexOf(value);
  const found = named < 0 && /^\d+$/.test(String(value)) ? Number(value) : named;
  if (found >= 0 && found < names.length) return found;
  const near = nearestName(String(value), names);
  throw new DiffusionError(
    "option",
    `generate: expected ${attribute} to be one of ${names.join(", ")}, got ${JSON.stringify(value)}${near ? `; did you mean "${near}"?` : ""}`,
  );
}

/** The pictures of a call, in order; `others` may have a value for each of them too. Throws "option". */
export function jobsOf(
  options: JobOptions,
  askable: Askable,
  others: Readonly<Record<string, OneOrEach<unknown> | undefined>> = {},
): Job[] {
  const n = subjects(options, others);
  const { prompt = "", count = 1, firstSample = 0 } = options;
  if (n * count > maxPictures)
    throw new DiffusionError(
      "option",
      `generate: expected at most ${maxPictures} pictures in one call, got ${n * count}; call it several times`,
    );
  checkKnown(options, askable);
  return Array.from({ length: n }, (_, i) => {
    const said = (name: string): ClassName | undefined =>
      at(options[name as (typeof attributeOptions)[number]], i);
    const attributes = Object.fromEntries(
      Object.entries(askable.attributes).map(([name, names]) => [
        name,
        valueOf(name, names, said(name)),
      ]),
    );
    return Array.from({ length: count }, (_unused, j) => ({
      prompt: at(prompt, i)!,
      attributes,
      sample: firstSample + i * count + j,
      subject: i,
    }));
  }).flat();
}

/** What the network is told for a picture. */
export const conditionOf = ({ prompt, attributes }: Job, askable: Askable): SampleCondition => ({
  caption: prompt,
  attributes,
  isNull:
    prompt.trim() === "" &&
    Object.entries(attributes).every(([name, value]) => value === askable.attributes[name]!.length),
});

/** Warnings about words of the prompts that a model of `length` words cannot read. */
export function* promptWarnings(
  jobs: readonly Job[],
  tokenizer: { encode(text: string, options: { length: number }): EncodedText },
  length: number,
): Generator<string> {
  for (const prompt of new Set(jobs.map((job) => job.prompt))) {
    const { unknown, truncated } = tokenizer.encode(prompt, { length });
    for (const { word, nearest } of unknown)
      yield `"${word}" in "${prompt}" is not a word of this model${nearest ? `; the nearest is "${nearest}"` : ""}`;
    if (truncated) yield `"${prompt}" is longer than this model reads; its end is left out`;
  }
}
