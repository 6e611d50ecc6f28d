// Names and shapes of a checkpoint as the originals store it, from one of our configurations: for tests of families whose
// names are ours.
import type { ParamSpec } from "../../lib/ir/param.js";
import type { Family } from "../../lib/models/family.js";
import { mapKey, shapeInLayout } from "../../lib/nn/key-map.js";
import type { KeyMap } from "../../lib/nn/key-map.js";

/** The foreign shape whose layout gives ours. */
function foreignShape({ name, shape }: ParamSpec, keys: KeyMap): number[] {
  const reversed = [...shape].reverse();
  const asConv = [shape[3]!, shape[2]!, shape[0]!, shape[1]!];
  const candidates = [[...shape], reversed, [...reversed, 1, 1], asConv];
  const found = candidates.find((candidate) => {
    if (candidate.some((extent) => extent === undefined)) return false;
    const match = mapKey(keys, name, candidate);
    if (typeof match !== "object" || match.name !== name) return false;
    return shapeInLayout(candidate, match.layout).join() === shape.join();
  });
  if (!found) throw new Error(`no foreign shape of ${name}`);
  return found;
}

export function foreignCheckpoint(
  family: Family,
  config: object,
  place = "",
): Map<string, number[]> {
  const keys = family.keys(config, undefined as never);
  const { parameters, states = [] } = family.build(config);
  return new Map(
    [...parameters, ...states].map((spec) => [place + spec.name, foreignShape(spec, keys)]),
  );
}
