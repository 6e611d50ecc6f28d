// Weights of a network as buffers of the core: left in their file until they are packed (design note 18), or in memory.
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { openWeights } from "../checkpoint/weights.js";
import type { ParamSpec } from "../ir/param.js";
import { Buffer } from "../runtime/buffer.js";

/** Weights by name, in memory of the core or in a file. */
export type Weights = ReadonlyMap<string, Buffer>;

/** Stored types that the core reads itself. */
const fileDtypes = { F32: "f32", F16: "f16", BF16: "bf16" } as const;

async function bufferOf(file: Checkpoint, { name, shape }: ParamSpec): Promise<Buffer> {
  const { dtype: stored, offset } = file.info(name);
  if (!Object.hasOwn(fileDtypes, stored))
    return Buffer.fromArray(await file.readF32(name), "f32", shape, name);
  const dtype = fileDtypes[stored as keyof typeof fileDtypes];
  return Buffer.fromFile({ path: file.path, offset, dtype }, shape, name);
}

/**
 * The weights of a safetensors file, which stays open: it may be replaced or removed, but not overwritten, while they are in
 * use. Throws "checkpoint" when it is not what `specs` say, "memory" for types that are converted here.
 */
export async function openWeightBuffers(
  path: string,
  specs: readonly ParamSpec[],
): Promise<Weights> {
  using file = await openWeights(path, specs);
  const buffers = new Map<string, Buffer>();
  try {
    for (const spec of specs) buffers.set(spec.name, await bufferOf(file, spec));
  } catch (error) {
    disposeWeights(buffers);
    throw error;
  }
  return buffers;
}

/** Weights of a network: values in memory, which are copied, or buffers, which then belong to the network. */
export type GivenWeights = ReadonlyMap<string, Float32Array | Buffer>;

/** Buffers of given weights. Throws "shape" or "memory". */
export const weightBuffers = (given: GivenWeights, specs: readonly ParamSpec[]): Weights =>
  new Map(
    specs.map(({ name, shape }) => {
      const values = given.get(name)!;
      return [
        name,
        values instanceof Buffer ? values : Buffer.fromArray(values, "f32", shape, name),
      ];
    }),
  );

/** Copies of all values. */
export const readBuffers = (weights: Weights): Map<string, Float32Array> =>
  new Map([...weights].map(([name, buffer]) => [name, buffer.read() as Float32Array]));

export const disposeWeights = (weights: Weights): void =>
  weights.forEach((buffer) => buffer.dispose());
