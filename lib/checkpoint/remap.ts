// A foreign checkpoint in our names and layouts: which of its tensors make each of ours, what is missing, unused or of
// another shape, and the values one tensor at a time.
import { DiffusionError, formatShape } from "../errors.js";
import { sizeOf } from "../ir/shape.js";
import type { ParamSpec } from "../ir/param.js";
import {
  mapKey,
  placePart,
  shapeInLayout,
  toLayout,
  type KeyMap,
  type Layout,
  type Part,
} from "../nn/key-map.js";
import { nearestTensorName, type Checkpoint } from "./checkpoint.js";

/** A foreign tensor that is ours, or a part of it along our last axis. */
interface Source {
  /** As the checkpoint calls it. */
  origin: string;
  shape: readonly number[];
  layout: Layout;
  part?: Part;
}

/** How a checkpoint fits a model. */
export interface Fit {
  specs: readonly ParamSpec[];
  /** Sources of each of our tensors; several are its parts in order. */
  sources: ReadonlyMap<string, readonly Source[]>;
  missing: readonly ParamSpec[];
  /** Ours that would get another shape. */
  reshaped: readonly { spec: ParamSpec; shape: readonly number[]; from: string }[];
  /** Foreign names that nothing of ours is made of, with the name that a rule gives them. */
  unused: readonly { origin: string; name?: string; shape: readonly number[] }[];
  /** Left out on purpose. */
  dropped: readonly string[];
  /** Left out because another holds the same values. */
  copies: readonly { origin: string; of: string; hint: string }[];
}

/** Foreign tensors as the key map knows them. */
export interface ForeignTensors {
  shapes: ReadonlyMap<string, readonly number[]>;
  /** The checkpoint's name of each; default the same. */
  origins?: ReadonlyMap<string, string>;
}

/** The shape of ours that a source makes, all its parts counted. */
const shapeFrom = ({ shape, layout, part }: Source): number[] => shapeInLayout(shape, layout, part);

/** Matches names and shapes; reads no values. */
export function fitWeights(
  specs: readonly ParamSpec[],
  map: KeyMap,
  { shapes, origins }: ForeignTensors,
): Fit {
  const wanted = new Map(specs.map((spec) => [spec.name, spec]));
  const sources = new Map<string, Source[]>();
  const unused: Fit["unused"][number][] = [];
  const dropped: string[] = [];
  const copies: Fit["copies"][number][] = [];
  for (const [foreign, shape] of shapes) {
    const origin = origins?.get(foreign) ?? foreign;
    const match = mapKey(map, foreign, shape);
    const copy = map.copies?.find(({ from }) => from.test(foreign));
    if (copy) {
      const of = foreign.replace(copy.from, copy.of);
      copies.push({ origin, of: origins?.get(of) ?? of, hint: copy.hint });
    } else if (match === "drop") dropped.push(origin);
    else if (!match || !wanted.has(match.name))
      unused.push({ origin, shape, ...(match && { name: match.name }) });
    else {
      const { name, layout, part } = match;
      const parts = sources.get(name) ?? sources.set(name, []).get(name)!;
      const isTaken = parts.some((other) => other.part?.index === part?.index);
      if (isTaken) unused.push({ origin, name, shape });
      else parts.push({ origin, shape, layout, ...(part && { part }) });
    }
  }
  const missing = specs.filter(({ name }) => {
    const parts = sources.get(name) ?? [];
    return parts.length < (parts[0]?.part?.of ?? 1);
  });
  const reshaped = specs.flatMap((spec) => {
    const wrong = sources
      .get(spec.name)
      ?.find((source) => shapeFrom(source).join() !== spec.shape.join());
    return wrong ? [{ spec, shape: shapeFrom(wrong), from: wrong.origin }] : [];
  });
  for (const parts of sources.values())
    parts.sort((a, b) => (a.part?.index ?? 0) - (b.part?.index ?? 0));
  return { specs, sources, missing, reshaped, unused, dropped, copies };
}

const shownLines = 40;
const hintedLines = 5; // with the nearest name: each costs up to 2,000 comparisons

/** What does not fit, one line a tensor; undefined when everything does. */
export function describeMisfits(
  { missing, reshaped, unused }: Fit,
  ignoreUnused = false,
): string | undefined {
  const counted = ignoreUnused ? [] : unused;
  const count = missing.length + reshaped.length + counted.length;
  if (count === 0) return undefined;
  const names = unused.map(({ origin, name }) => name ?? origin);
  const lines = [
    ...missing.map(({ name, shape }, i) => () => {
      const near = i < hintedLines ? nearestTensorName(name, names) : undefined;
      return `missing ${name} ${formatShape(shape)}${near ? ` (nearest: ${near})` : ""}`;
    }),
    ...reshaped.map(({ spec, shape, from }) => () => {
      const [wanted, got] = [formatShape(spec.shape), formatShape(shape)];
      return `${spec.name}: expected ${wanted}, got ${got} from ${from}`;
    }),
    ...counted.map(
      ({ origin, shape }) =>
        () =>
          `unused ${origin} ${formatShape(shape)}`,
    ),
  ].slice(0, shownLines);
  const rest = count > shownLines ? `\n  and ${count - shownLines} more` : "";
  const sizes = `${missing.length} missing, ${reshaped.length} of another shape, ${counted.length} unused`;
  return `${count} differences (${sizes})${lines.map((line) => `\n  ${line()}`).join("")}${rest}`;
}

/** Throws "checkpoint" with everything that does not fit. */
export function checkFit(where: string, fit: Fit, ignoreUnused = false): void {
  const misfits = describeMisfits(fit, ignoreUnused);
  if (misfits !== undefined)
    throw new DiffusionError(
      "checkpoint",
      `${where}: expected the ${fit.specs.length} tensors of this configuration, got ${misfits}`,
    );
}

/** Throws "checkpoint" for a tensor that was left out as a copy of another and holds other values. */
export async function checkCopies(checkpoint: Checkpoint, { copies }: Fit): Promise<void> {
  for (const { origin, of, hint } of copies) {
    const copy = await checkpoint.readF32(origin);
    const first = await checkpoint.readF32(of);
    if (copy.length === first.length && copy.every((value, i) => value === first[i])) continue;
    throw new DiffusionError(
      "checkpoint",
      `${checkpoint.path}: expected ${origin} to hold the values of ${of}, got others; ${hint}`,
    );
  }
}

/** Reads tensors of a fitting checkpoint; keeps one buffer as large as the largest that changes its layout. */
export class MappedReader {
  #scratch = new Float32Array(0);

  constructor(
    readonly checkpoint: Checkpoint,
    readonly fit: Fit,
  ) {}

  /** Values of one of our tensors as float32, in our layout. */
  async read({ name, shape }: ParamSpec): Promise<Float32Array> {
    const parts = this.fit.sources.get(name)!;
    const [only] = parts;
    if (parts.length === 1 && !only!.part) return this.#whole(only!);
    const out = new Float32Array(sizeOf(shape));
    for (const source of parts)
      placePart(out, shape.at(-1)!, await this.#whole(source), source.part!);
    return out;
  }

  async #whole({ origin, shape, layout }: Source): Promise<Float32Array> {
    if (layout === "same" || layout === "squeeze") return this.checkpoint.readF32(origin);
    const elements = sizeOf(shape);
    if (this.#scratch.length < elements) this.#scratch = new Float32Array(elements);
    const foreign = this.#scratch.subarray(0, elements);
    return toLayout(await this.checkpoint.readF32(origin, foreign), shape, layout);
  }
}

/** All weights of a model from a foreign checkpoint. Throws "checkpoint" when it does not fit. */
export async function loadMappedWeights(
  checkpoint: Checkpoint,
  fit: Fit,
  ignoreUnused = false,
): Promise<Map<string, Float32Array>> {
  checkFit(checkpoint.path, fit, ignoreUnused);
  await checkCopies(checkpoint, fit);
  const reader = new MappedReader(checkpoint, fit);
  const weights = new Map<string, Float32Array>();
  for (const spec of fit.specs) weights.set(spec.name, await reader.read(spec));
  return weights;
}
