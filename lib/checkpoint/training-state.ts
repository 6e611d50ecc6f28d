// The state of a training run in one file: every buffer as a tensor, everything else as JSON in the metadata. One file,
// written atomically, is one consistent point in time.
import { DiffusionError } from "../errors.js";
import type { Buffer } from "../runtime/buffer.js";
import { version } from "../version.js";
import { openSafetensors, writeSafetensors } from "./safetensors.js";

const metadataKey = "smalti.training";

/** Writes all buffers and `extra` (plain JSON) to `path`. */
export async function saveTrainingState(
  path: string,
  buffers: ReadonlyMap<string, Buffer>,
  extra: Record<string, unknown>,
): Promise<void> {
  const tensors = [...buffers].map(([name, buffer]) => ({
    name,
    dtype: "f32" as const,
    shape: buffer.shape,
    data: buffer.read() as Float32Array,
  }));
  await writeSafetensors(path, tensors, {
    [metadataKey]: JSON.stringify({ code: version, ...extra }),
  });
}

/** Restores what saveTrainingState wrote into the same buffers and returns the extra part. */
export async function loadTrainingState(
  path: string,
  buffers: ReadonlyMap<string, Buffer>,
): Promise<Record<string, unknown>> {
  using file = await openSafetensors(path);
  const text = file.metadata[metadataKey];
  if (text === undefined) {
    throw new DiffusionError(
      "checkpoint",
      `resume: expected a training state in ${path}, got a file without one; was it written by smalti train?`,
    );
  }
  const missing = [...buffers.keys()].filter((name) => !file.tensors.has(name));
  const unknown = [...file.tensors.keys()].filter((name) => !buffers.has(name));
  if (missing.length > 0 || unknown.length > 0) {
    throw new DiffusionError(
      "checkpoint",
      `resume: expected the tensors of this configuration in ${path}, got ${missing.length} missing (${missing.slice(0, 3).join(", ")}) and ${unknown.length} unknown (${unknown.slice(0, 3).join(", ")}); use the configuration of the interrupted run`,
    );
  }
  for (const [name, buffer] of buffers) {
    const values = await file.readF32(name);
    if (values.length * 4 !== buffer.byteLength) {
      throw new DiffusionError(
        "checkpoint",
        `resume: expected ${name} with shape [${buffer.shape.join(", ")}] in ${path}, got ${values.length} values`,
      );
    }
    buffer.write(values);
  }
  return JSON.parse(text) as Record<string, unknown>;
}
