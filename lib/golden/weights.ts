// Foreign state dicts in our names and layouts, and gradients of our parameters back in the foreign
// ones.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { fromLayout, mapKey, shapeInLayout, toLayout } from "../nn/key-map.js";
import type { KeyMap, Layout } from "../nn/key-map.js";
import type { GoldenCase, Values } from "./case.js";

interface Origin {
  foreign: string;
  shape: readonly number[];
  layout: Layout;
}

export interface LoadedWeights {
  /** Values by our names. */
  parameters: Map<string, Values>;
  /** Where each of our parameters came from. */
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
    const ours = shapeInLayout(shape, match.layout);
    if (ours.join() !== spec.shape.join()) {
      throw new DiffusionError(
        "checkpoint",
        `parity: expected ${spec.name} (${spec.shape.join(", ")}), got (${ours.join(", ")}) from ${foreign}`,
      );
    }
    parameters.set(spec.name, {
      shape: ours,
      data: toLayout(Float32Array.from(data), shape, match.layout),
    });
    origins.set(spec.name, { foreign, shape, layout: match.layout });
  }
  const missing = specs.filter(({ name }) => !parameters.has(name));
  if (missing.length > 0) {
    throw new DiffusionError(
      "checkpoint",
      `parity: expected ${missing[0]!.name} in the weights, got none`,
    );
  }
  return { parameters, origins };
}

/** Our name of a foreign parameter. */
export function ourName({ origins }: LoadedWeights, foreign: string): string {
  for (const [name, origin] of origins) if (origin.foreign === foreign) return name;
  throw new DiffusionError("checkpoint", `parity: expected a parameter from ${foreign}, got none`);
}

/** Values of one of our parameters, or of its gradient, in the foreign layout. */
export function inForeignLayout({ origins }: LoadedWeights, name: string, values: Values): Values {
  const { shape, layout } = origins.get(name)!;
  return { shape, data: fromLayout(Float32Array.from(values.data), shape, layout) };
}
