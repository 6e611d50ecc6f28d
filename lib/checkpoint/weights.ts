// Named weights from and to one safetensors file, checked against what a model expects.
import { DiffusionError, formatShape, nearestName } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { sameShape } from "../ir/shape.js";
import { version } from "../version.js";
import { openSafetensors, writeSafetensors, type SafetensorsFile } from "./safetensors.js";

const shown = 10;

/** Everything in which a file differs from the expected names and shapes, one line each. */
function differences(file: SafetensorsFile, specs: readonly ParamSpec[]): string[] {
  const expected = new Set(specs.map(({ name }) => name));
  const unused = [...file.tensors.keys()].filter((name) => !expected.has(name));
  const lines: string[] = [];
  for (const { name, shape } of specs) {
    const found = file.tensors.get(name);
    if (!found) {
      const near = nearestName(name, unused);
      lines.push(`missing ${name} ${formatShape(shape)}${near ? ` (nearest: ${near})` : ""}`);
    } else if (!sameShape(found.shape, shape)) {
      lines.push(`${name}: expected ${formatShape(shape)}, got ${formatShape(found.shape)}`);
    }
  }
  return [...lines, ...unused.map((name) => `unused ${name}`)];
}

/** Reads all weights of a model as f32. Throws "checkpoint" with every mismatch. */
export async function loadWeights(
  path: string,
  specs: readonly ParamSpec[],
): Promise<Map<string, Float32Array>> {
  using file = await openSafetensors(path);
  const wrong = differences(file, specs);
  if (wrong.length > 0) {
    const more = wrong.length > shown ? `\n  and ${wrong.length - shown} more` : "";
    throw new DiffusionError(
      "checkpoint",
      `${path}: expected the ${specs.length} tensors of this configuration, got ${wrong.length} differences; see smalti inspect\n  ${wrong.slice(0, shown).join("\n  ")}${more}`,
    );
  }
  const weights = new Map<string, Float32Array>();
  for (const { name } of specs) weights.set(name, await file.readF32(name));
  return weights;
}

/** Writes the weights of a model, as f16 unless told otherwise. */
export async function saveWeights(
  path: string,
  specs: readonly ParamSpec[],
  weights: ReadonlyMap<string, Float32Array>,
  dtype: "f32" | "f16" | "bf16" = "f16",
): Promise<void> {
  const tensors = specs.map(({ name, shape }) => ({
    name,
    dtype,
    shape,
    data: weights.get(name)!,
  }));
  await writeSafetensors(path, tensors, { "smalti.code": version });
}
