// Published checkpoints as models of ours: which family they are, the configuration that their shapes and accompanying files
// show, the facts that have to be given, and their weights in our names and layouts.
import { join } from "node:path";
import type { Checkpoint, FoundConfig } from "../checkpoint/checkpoint.js";
import {
  checkCopies,
  checkFit,
  describeMisfits,
  fitWeights,
  MappedReader,
  type Fit,
} from "../checkpoint/remap.js";
import { writeSafetensors } from "../checkpoint/safetensors.js";
import { DiffusionError, nearestName } from "../errors.js";
import { shown } from "../models/check-config.js";
import { families, recognise, type Recognised } from "../models/families.js";
import type { Fact, Family, FactValues, ShapeView } from "../models/family.js";
import type { ParamSpec } from "../ir/param.js";
import { version } from "../version.js";
import { writePipelineFile, type ComponentFile } from "./pipeline.js";

/** A fact and where it is from: "given", a file, a published configuration, or the original code's default. */
export interface KnownFact {
  name: string;
  value: unknown;
  from: string;
}

/** A model in a checkpoint, as far as it is known. */
export interface Identified {
  family: Family;
  checkpoint: Checkpoint;
  /** Start of its names in the checkpoint; "" for all of it. */
  place: string;
  found: Recognised;
  facts: readonly KnownFact[];
  /** Facts that have to be given before it can be used, with what they are. */
  missing: Readonly<Record<string, string>>;
  /** Our configuration; values that hang on missing facts are left out while there are any. */
  config: Record<string, unknown>;
  /** Names of the published configurations that it may be. */
  published: readonly string[];
}

export interface IdentifyOptions {
  /** Only this family. */
  family?: string;
  /** Facts by name, or by "family.name" for one family only. */
  facts?: FactValues;
  /** The checkpoint is one of several, whose other families may own a fact or `as`. Default false. */
  isPart?: boolean;
  /** Name of a published configuration: the facts that are not given come from it. */
  as?: string;
}

const fault = (where: string, expected: string, got: string): DiffusionError =>
  new DiffusionError("option", `${where}: expected ${expected}, got ${got}`);

/**
 * The models in a checkpoint. Throws "option" for unknown or wrong facts, and "checkpoint" when a
 * configuration file contradicts the tensors.
 */
export function identify(checkpoint: Checkpoint, options: IdentifyOptions = {}): Identified[] {
  const { family: asked, facts = {}, as, isPart = false } = options;
  const chosen = families.filter(({ name }) => asked === undefined || name === asked);
  if (asked !== undefined && chosen.length === 0) {
    const names = families.map(({ name }) => name);
    const near = nearestName(asked, names);
    throw fault(
      checkpoint.path,
      `a family among ${names.join(", ")}`,
      `"${asked}"${near ? `; did you mean "${near}"?` : ""}`,
    );
  }
  const shapes = new Map([...checkpoint.tensors].map(([name, { shape }]) => [name, shape]));
  const found = recognise(checkpoint.path, shapes, chosen);
  const owners = isPart ? families : found.map(({ family }) => family);
  checkFactNames(checkpoint.path, owners, facts);
  if (as !== undefined) checkPublished(checkpoint.path, owners, as);
  return found.map((one) => identifyOne(checkpoint, one, facts, as));
}

function checkPublished(where: string, owners: readonly Family[], as: string): void {
  const known = owners.flatMap(({ published = {} }) => Object.keys(published));
  if (known.includes(as)) return;
  const near = nearestName(as, known);
  throw fault(
    where,
    `a published configuration among ${known.join(", ") || "none"}`,
    `"${as}"${near ? `; did you mean "${near}"?` : ""}`,
  );
}

function checkFactNames(where: string, owners: readonly Family[], given: FactValues): void {
  if (owners.length === 0) return;
  const known = owners.flatMap(({ name, facts, pipeline }) =>
    Object.keys({ ...facts, ...pipeline?.facts }).flatMap((fact) => [fact, `${name}.${fact}`]),
  );
  for (const name of Object.keys(given)) {
    if (known.includes(name)) continue;
    const near = nearestName(name, known);
    throw fault(
      where,
      `facts among ${[...new Set(known)].filter((fact) => !fact.includes(".")).join(", ") || "none"}`,
      `"${name}"${near ? `; did you mean "${near}"?` : ""}`,
    );
  }
}

/** Everything that configuration files say, the first one that says it first. */
function fileValues({ readConfig }: Family, configs: readonly FoundConfig[]): KnownFact[] {
  const values: KnownFact[] = [];
  for (const { where, value } of readConfig ? configs : []) {
    const said = readConfig!(value);
    for (const [name, item] of Object.entries(said ?? {}))
      if (!values.some((other) => other.name === name))
        values.push({ name, value: item, from: where });
  }
  return values;
}

/**
 * Facts of a published configuration, every one: what it leaves out is 0 where that means "not set", and else undefined,
 * our model's own default.
 */
function publishedFacts({ facts, published = {} }: Family, name: string): Record<string, unknown> {
  const config = published[name] as Record<string, unknown>;
  return Object.fromEntries(
    Object.entries(facts).map(([fact, { rule, fixed }]) => [
      fact,
      config[fact] ?? fixed ?? (rule(0) === undefined ? 0 : undefined),
    ]),
  );
}

/**
 * The first that says each of some facts: given by the user, else the earliest of `said`, else the original's default.
 * Throws "option" for wrong values.
 */
export function checkedFacts(
  where: string,
  owner: string,
  facts: Readonly<Record<string, Fact>>,
  said: readonly KnownFact[],
  given: FactValues,
): KnownFact[] {
  const known = Object.entries(facts).flatMap(([name, fact]): KnownFact[] => {
    const own = given[`${owner}.${name}`] ?? given[name];
    if (own !== undefined) return [{ name, value: own, from: "given" }];
    const found = said.find((value) => value.name === name);
    if (found) return [found];
    if (!("fixed" in fact)) return [];
    return [{ name, value: fact.fixed, from: "default of the original code" }];
  });
  for (const { name, value, from } of known) {
    const expected = value === undefined ? undefined : facts[name]!.rule(value);
    if (expected) throw fault(where, `${name} to be ${expected}`, `${shown(value)} (${from})`);
  }
  return known;
}

/** Facts of a model: given, else from a configuration file, of the published configuration, the original's default. */
function factsOf(
  where: string,
  family: Family,
  said: readonly KnownFact[],
  given: FactValues,
  as: string | undefined,
): KnownFact[] {
  const isOwn = as !== undefined && as in (family.published ?? {});
  const named = Object.entries(isOwn ? publishedFacts(family, as) : {}).map(
    ([name, value]): KnownFact => ({ name, value, from: `published as ${as}` }),
  );
  return checkedFacts(where, family.name, family.facts, [...said, ...named], given);
}

function identifyOne(
  checkpoint: Checkpoint,
  found: Recognised,
  given: FactValues,
  as: string | undefined,
): Identified {
  const { family, place } = found;
  const where = `${checkpoint.path}: ${family.name}`;
  checkTensorsOf(where, found, as);
  const said = fileValues(family, checkpoint.configs);
  const facts = factsOf(where, family, said, given, as);
  const missing = Object.fromEntries(
    Object.entries(family.facts)
      .filter(([name]) => !facts.some((fact) => fact.name === name))
      .map(([name, { what }]) => [name, what]),
  );
  const values = Object.fromEntries(facts.map(({ name, value }) => [name, value]));
  const isComplete = Object.keys(missing).length === 0;
  const config = isComplete
    ? (family.configure(found.shapes, values) as Record<string, unknown>)
    : partialConfig(found, values);
  if (isComplete) checkContradictions(where, family, config, said);
  return {
    family,
    checkpoint,
    place: place?.source.replace(/^\^/, "").replaceAll("\\.", ".") ?? "",
    found,
    facts,
    missing,
    config,
    published: publishedNames(found, facts),
  };
}

/** What shapes show when facts are missing: values that became unusable are left out. */
function partialConfig({ family, shapes }: Recognised, facts: FactValues): Record<string, unknown> {
  return (usable(configured(family, shapes, facts)) ?? {}) as Record<string, unknown>;
}

/** A configuration, or nothing when the facts do not make one. */
function configured(family: Family, shapes: ShapeView, facts: FactValues): object | undefined {
  try {
    return family.configure(shapes, facts);
  } catch (error) {
    if (error instanceof DiffusionError) return undefined;
    throw error;
  }
}

function usable(value: unknown): unknown {
  if (typeof value === "number") return Number.isFinite(value) ? value : undefined;
  if (Array.isArray(value)) {
    const items = value.map(usable);
    return items.includes(undefined) ? undefined : items;
  }
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, item]) => [key, usable(item)] as const);
  return Object.fromEntries(entries.filter(([, item]) => item !== undefined));
}

/** Whether `whole` has everything that `part` says. */
function includes(whole: unknown, part: unknown): boolean {
  if (Array.isArray(part))
    return (
      Array.isArray(whole) &&
      whole.length === part.length &&
      part.every((item, i) => includes(whole[i], item))
    );
  if (typeof part === "object" && part !== null)
    return (
      typeof whole === "object" &&
      whole !== null &&
      Object.entries(part).every(([key, item]) =>
        includes((whole as Record<string, unknown>)[key], item),
      )
    );
  return Object.is(whole, part);
}

/**
 * The published configurations whose tensors these are, unless known facts are others. Several may share all shapes; some say
 * things that have no effect on them.
 */
function publishedNames(found: Recognised, facts: readonly KnownFact[]): string[] {
  const { family } = found;
  const agrees = (part: Record<string, unknown>): boolean =>
    facts.every(({ name, value }) => part[name] === undefined || includes(value, part[name]));
  return Object.entries(family.published ?? {})
    .filter(([, part]) => agrees(part as Record<string, unknown>) && hasTensorsOf(found, part))
    .map(([name]) => name);
}

/** Whether a checkpoint has all tensors of a configuration. */
function hasTensorsOf({ family, shapes, origins }: Recognised, config: object): boolean {
  const { parameters, states = [] } = family.build(config);
  if (parameters.length > shapes.shapes.size) return false;
  const foreign = { shapes: shapes.shapes, origins };
  const fit = fitWeights([...parameters, ...states], family.keys(config, shapes), foreign);
  return describeMisfits(fit) === undefined;
}

/** Facts of another configuration, such as its heads, would go unnoticed: no shape depends on them. */
function checkTensorsOf(where: string, found: Recognised, as: string | undefined): void {
  const part = found.family.published?.[as ?? ""];
  if (as === undefined || !part || hasTensorsOf(found, part)) return;
  const names = publishedNames(found, []);
  throw fault(
    where,
    names.length > 0
      ? `a published configuration with these tensors: ${names.join(", ")}`
      : "--set with each fact of a model whose tensors no published configuration has",
    `--as ${as}`,
  );
}

/** A configuration file of another checkpoint would go unnoticed but for what the shapes show. */
function checkContradictions(
  where: string,
  { facts }: Family,
  config: Record<string, unknown>,
  said: readonly KnownFact[],
): void {
  for (const { name, value, from } of said) {
    if (name in facts || config[name] === undefined || includes(config[name], value)) continue;
    throw new DiffusionError(
      "checkpoint",
      `${where}: expected ${name} ${shown(config[name])} as the tensors show, got ${shown(value)} from ${from}; it belongs to another checkpoint`,
    );
  }
}

const asWord = (value: string): string => value.replaceAll(/[^\w.-]+/g, "-");

/** The error that lists facts that have to be given, with how to give them. */
export function missingFacts(
  where: string,
  expected: string,
  missing: Readonly<Record<string, string>>,
  otherwise = "",
): DiffusionError {
  const list = Object.entries(missing).map(([name, what]) => `\n  --set ${name}=…  ${what}`);
  return fault(
    where,
    expected,
    `none for${list.join("")}\n  or a configuration file of the original (--config)${otherwise}`,
  );
}

/** The model's tensors and how the checkpoint makes them. Throws like checkFit and for missing facts. */
export function fitIdentified(
  identified: Identified,
  { ignoreUnused = false }: { ignoreUnused?: boolean } = {},
): Fit {
  const { family, found, config, checkpoint, missing } = identified;
  const where = `${checkpoint.path}: ${family.name}`;
  if (Object.keys(missing).length > 0)
    throw missingFacts(where, "facts that the tensors do not show", missing);
  const { parameters, states = [] } = family.build(config);
  const fit = fitWeights([...parameters, ...states], family.keys(config, found.shapes), {
    shapes: found.shapes.shapes,
    origins: found.origins,
  });
  checkFit(where, fit, ignoreUnused);
  return fit;
}

export interface ConvertOptions {
  /** Element type of the written weights; default "f16". */
  dtype?: "f32" | "f16" | "bf16";
  /** Leave tensors out that the model does not have; default an error that names them. */
  ignoreUnused?: boolean;
  /** Told before each tensor is written. */
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** Component names: the role, with the family where a role occurs twice. */
function componentNames(models: readonly Identified[]): string[] {
  return models.map(({ family }, i) => {
    const isFirst = models.findIndex((other) => other.family.role === family.role) === i;
    return isFirst ? family.role : asWord(`${family.role}-${family.name}`);
  });
}

/** Kind of the written folder: one that a pipeline can load, or plain models. */
function kindOf(models: readonly Identified[]): string {
  const codecs = models.filter(({ family }) => family.role === "codec");
  const others = models.some(({ family: { role } }) => role === "model" || role === "text-encoder");
  const [codec] = codecs;
  if (!codec || codecs.length > 1 || others) return "models";
  if (codec.family.model === "autoencoder-kl") return "autoencoder";
  return codec.family.model === "vqgan" ? "tokenizer" : "models";
}

/** What pipeline.json says of where its components come from. */
export const convertedModels = (
  models: readonly Identified[],
  names: readonly string[],
): Record<string, unknown>[] =>
  models.map(({ family, place, facts, checkpoint }, i) => ({
    component: names[i]!,
    family: family.name,
    place,
    facts: Object.fromEntries(facts.map((fact) => [fact.name, fact.value])),
    notes: checkpoint.notes,
  }));

/**
 * What writes the weights of models to files of these names in a folder, one tensor in memory at a time. Throws before that when anything
 * does not fit.
 */
export function writeModels(
  models: readonly Identified[],
  files: readonly string[],
  options: ConvertOptions,
): (folder: string) => Promise<void> {
  const { dtype = "f16", onProgress, signal } = options;
  const fits = models.map((model) => fitIdentified(model, options));
  const total = fits.reduce((sum, { specs }) => sum + specs.length, 0);
  let done = 0;
  return async (folder) => {
    for (const [i, { checkpoint }] of models.entries()) await checkCopies(checkpoint, fits[i]!);
    for (const [i, { checkpoint }] of models.entries()) {
      const reader = new MappedReader(checkpoint, fits[i]!);
      const tensor = (spec: ParamSpec) => ({
        name: spec.name,
        shape: spec.shape,
        dtype,
        data: () => {
          onProgress?.(done++, total);
          return reader.read(spec);
        },
      });
      await writeSafetensors(
        join(folder, files[i]!),
        fits[i]!.specs.map(tensor),
        { "smalti.code": version },
        signal ? { signal } : {},
      );
    }
  };
}

/**
 * Writes models as our folder: pipeline.json and one file of weights each. Nothing is written unless everything fits.
 */
export async function convertModels(
  folder: string,
  name: string,
  models: readonly Identified[],
  options: ConvertOptions = {},
): Promise<Record<string, ComponentFile>> {
  const names = componentNames(models);
  const files = names.map((each) => `${each}.safetensors`);
  const write = writeModels(models, files, options);
  const components = Object.fromEntries(
    models.map(({ family, config }, i): [string, ComponentFile] => [
      names[i]!,
      { model: family.model, config, weights: files[i]! },
    ]),
  );
  const training = { converted: convertedModels(models, names) };
  const file = { kind: kindOf(models), name, components, settings: {}, training };
  await writePipelineFile(folder, file, write);
  return components;
}
