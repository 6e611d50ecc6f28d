// Foreign state dicts in our names and layouts, and gradients of our parameters back in the foreign
// ones.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { fromLayout, mapKey, placePart, shapeInLayout, toLayout } from "../nn/key-map.js";
import type { KeyMap, KeyMatch, Part } from "../nn/key-map.js";
import type { GoldenCase, Values } from "./case.js";

/** Where a foreign tensor went; `name` is ours. */
interface Origin extends KeyMatch {
  /** The foreign shape. */
  shape: readonly number[];
}

export interface LoadedWeights {
  /** Values by our names. */
  parameters: Map<string, Values>;
  /** By foreign name. */
  origins: Map<string, Origin>;
}

/** Loads what `specs` need; every foreign tensor must be used or dropped on purpose. */
export function loadWeights(
  golden: GoldenCase,
  specs: readonly ParamSpec[],
  map: KeyMap,
): LoadedWeights {
  const wanted = new Map(specs.map((spec) => [spec.name, spec]));
  const parameters = new Map<string, Values>();
  const origins = new Map<string, Origin>();
  for (const [foreign, { shape, data }] of golden.weights) {
    const match = mapKey(map, foreign, shape);
    if (match === "drop") continue;
    const spec = match && wanted.get(match.name);
    if (!match || !spec) {
      throw new DiffusionError(
        "checkpoint",
        `parity: expected every weight to be known, got ${foreign}`,
      );
    }
    const ours = shapeInLayout(shape, match.layout, match.part);
    if (ours.join() !== spec.shape.join()) {
      throw new DiffusionError(
        "checkpoint",
        `parity: expected ${spec.name} (${spec.shape.join(", ")}), got (${ours.join(", ")}) from ${foreign}`,
      );
    }
    const values = toLayout(Float32Array.from(data), shape, match.layout);
    origins.set(foreign, { ...match, shape });
    parameters.set(spec.name, {
      shape: ours,
      data: match.part ? withPart(parameters.get(spec.name), ours, values, match.part) : values,
    });
  }
  const missing = specs.filter(({ name }) => !isComplete(name, parameters, origins));
  if (missing.length > 0) {
    throw new DiffusionError(
      "checkpoint",
      `parity: expected ${missing[0]!.name} in the weights, got none`,
    );
  }
  return { parameters, origins };
}

/** The whole with one more part in it. */
function withPart(
  before: Values | undefined,
  shape: readonly number[],
  values: Float32Array,
  part: Part,
): Float32Array {
  const whole =
    (before?.data as Float32Array | undefined) ?? new Float32Array(values.length * part.of);
  placePart(whole, shape.at(-1)!, values, part);
  return whole;
}

/** Whether a parameter is there, with all its parts. */
function isComplete(
  name: string,
  parameters: ReadonlyMap<string, Values>,
  origins: ReadonlyMap<string, Origin>,
): boolean {
  if (!parameters.has(name)) return false;
  const parts = [...origins.values()].filter((origin) => origin.name === name);
  return new Set(parts.map(({ part }) => part?.index)).size === (parts[0]!.part?.of ?? 1);
}

/** Where a foreign parameter went. */
export function originOf({ origins }: LoadedWeights, foreign: string): Origin {
  const origin = origins.get(foreign);
  if (origin) return origin;
  throw new DiffusionError("checkpoint", `parity: expected a parameter from ${foreign}, got none`);
}

/** Values that belong to a foreign parameter, in our layout, or its gradient, in the foreign layout. */
export function inForeignLayout(weights: LoadedWeights, foreign: string, values: Values): Values {
  const { shape, layout } = originOf(weights, foreign);
  return { shape, data: fromLayout(Float32Array.from(values.data), shape, layout) };
}
