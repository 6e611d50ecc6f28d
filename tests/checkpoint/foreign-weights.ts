// Synthetic weights in the names and layouts of the originals, made from our own specs where the names are the same.
import type { ParamSpec } from "../../lib/ir/param.js";
import { mapKey, shapeInLayout, type KeyMap, type Layout } from "../../lib/nn/key-map.js";

export interface ForeignTensor {
  name: string;
  shape: number[];
  layout: Layout;
  spec: ParamSpec;
}

/** Shapes that could become ours. */
function candidates(shape: readonly number[]): number[][] {
  const [a = 1, b = 1, c = 1, d = 1] = shape;
  switch (shape.length) {
    case 2:
      return [[b, a, 1, 1], [b, a, 1], [b, a], [a, b]]; // prettier-ignore
    case 4:
      return [[d, c, a, b], [a, b, c, d]]; // prettier-ignore
    case 1:
      return [[a], [1, a, 1, 1]]; // prettier-ignore
    default:
      return [[...shape]];
  }
}

/** The foreign tensor of the same name that becomes a parameter; undefined when the names differ. */
export function foreignOf(
  spec: ParamSpec,
  map: KeyMap,
  name = spec.name,
): ForeignTensor | undefined {
  for (const shape of candidates(spec.shape)) {
    const match = mapKey(map, name, shape);
    if (typeof match !== "object" || match.name !== spec.name || match.part) continue;
    if (match.layout === "linear" && shape.length !== 2) continue;
    if (match.layout === "pointwise" && shape.length < 3) continue;
    if (shapeInLayout(shape, match.layout).join() !== spec.shape.join()) continue;
    return { name, shape, layout: match.layout, spec };
  }
  return undefined;
}
