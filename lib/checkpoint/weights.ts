// Named weights from and to one safetensors file, checked against what a model expects.
import { DiffusionError, formatShape } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { sameShape } from "../ir/shape.js";
import { version } from "../version.js";
import { nearestTensorName, type Checkpoint } from "./checkpoint.js";
import { openSafetensors, writeSafetensors } from "./safetensors.js";

const shownLines = 40;
const hintedLines = 5; // with the nearest name: each costs up to 2,000 comparisons

/** How a file differs from the expected names and shapes; undefined when it does not. */
function differences(file: Checkpoint, specs: readonly ParamSpec[]): string | undefined {
  const expected = new Set(specs.map(({ name }) => name));
  const unused = [...file.tensors.keys()].filter((name) => !expected.has(name));
  const missing = specs.filter(({ name }) => !file.tensors.has(name));
  const reshaped = specs.filter(({ name, shape }) => {
    const found = file.tensors.get(name);
    return found && !sameShape(found.shape, shape);
  });
  const count = missing.length + reshaped.length + unused.length;
  if (count === 0) return undefined;
  const describe = [
    ...missing.map((spec, i) => () => missingLine(spec, i < hintedLines ? unused : [])),
    ...reshaped.map(({ name, shape }) => () => {
      const found = formatShape(file.tensors.get(name)!.shape);
      return `${name}: expected ${formatShape(shape)}, got ${found}`;
    }),
    ...unused.map((name) => () => `unused ${name.slice(0, 200)}`),
  ];
  const lines = describe.slice(0, shownLines).map((line) => `\n  ${line()}`);
  if (count > shownLines) lines.push(`\n  and ${count - shownLines} more`);
  return `${count} differences (${missing.length} missing, ${reshaped.length} of another shape, ${unused.length} unused); see smalti inspect${lines.join("")}`;
}

function missingLine({ name, shape }: ParamSpec, unused: readonly string[]): string {
  const near = nearestTensorName(name, unused);
  return `missing ${name} ${formatShape(shape)}${near ? ` (nearest: ${near})` : ""}`;
}

/** Opens a file that has exactly these weights. Throws "checkpoint" with what is missing, of another shape or unused. */
export async function openWeights(path: string, specs: readonly ParamSpec[]): Promise<Checkpoint> {
  const file = await openSafetensors(path);
  const wrong = differences(file, specs);
  if (wrong === undefined) return file;
  await file.close();
  throw new DiffusionError(
    "checkpoint",
    `${path}: expected the ${specs.length} tensors of this configuration, got ${wrong}`,
  );
}

/** Reads all weights of a model as f32. Throws like openWeights. */
export async function loadWeights(
  path: string,
  specs: readonly ParamSpec[],
): Promise<Map<string, Float32Array>> {
  using file = await openWeights(path, specs);
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
