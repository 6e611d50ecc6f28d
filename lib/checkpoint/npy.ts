// NumPy's array file (numpy/lib/format.py, versions 1 to 3): how golden tensors and features come from and go to Python.
import { readFile } from "node:fs/promises";
import { DiffusionError } from "../errors.js";
import { writeFileAtomic } from "./atomic-write.js";
import type { StoredArray } from "./safetensors.js";

export interface NpyArray {
  shape: number[];
  data: StoredArray;
  /** NumPy's name without byte order, e.g. "f4"; "f2" comes as bits in a Uint16Array, "b1" as 0 and 1. */
  kind: string;
}

const kinds: Record<string, { bytes: number; make: (buffer: ArrayBuffer) => StoredArray }> = {
  f2: { bytes: 2, make: (b) => new Uint16Array(b) },
  f4: { bytes: 4, make: (b) => new Float32Array(b) },
  f8: { bytes: 8, make: (b) => new Float64Array(b) },
  i1: { bytes: 1, make: (b) => new Int8Array(b) },
  i2: { bytes: 2, make: (b) => new Int16Array(b) },
  i4: { bytes: 4, make: (b) => new Int32Array(b) },
  i8: { bytes: 8, make: (b) => new BigInt64Array(b) },
  u1: { bytes: 1, make: (b) => new Uint8Array(b) },
  u2: { bytes: 2, make: (b) => new Uint16Array(b) },
  u4: { bytes: 4, make: (b) => new Uint32Array(b) },
  u8: { bytes: 8, make: (b) => new BigUint64Array(b) },
  b1: { bytes: 1, make: (b) => new Uint8Array(b) },
};

const magic = "\x93NUMPY";

/** Reads a .npy file. */
export async function readNpy(path: string): Promise<NpyArray> {
  const bytes = await readFile(path).catch((cause: Error) => {
    throw new DiffusionError(
      "checkpoint",
      `${path}: expected a readable .npy file, got ${cause.message}`,
      { cause },
    );
  });
  return parseNpy(bytes, path);
}

/** Parses a .npy file; column-major arrays come out row-major. Throws "checkpoint" for anything unsound. */
export function parseNpy(bytes: Uint8Array, where = "npy"): NpyArray {
  const fault = (expected: string, got: string): DiffusionError =>
    new DiffusionError("checkpoint", `${where}: expected ${expected}, got ${got}`);
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (text.length < 12 || text.toString("latin1", 0, 6) !== magic)
    throw fault("a NumPy array file", "another format");
  const version = text[6]!;
  if (version < 1 || version > 3) throw fault("format version 1 to 3", String(version));
  const start = version === 1 ? 10 : 12;
  const end = start + (version === 1 ? text.readUInt16LE(8) : text.readUInt32LE(8));
  if (end > text.length)
    throw fault(`a header of ${end - start} bytes`, `a file of ${text.length}`);
  const header = text.toString("utf8", start, end);
  const descr = /'descr':\s*'([<>|=])(\w{2})'/.exec(header);
  const order = /'fortran_order':\s*(True|False)/.exec(header);
  const sizes = /'shape':\s*\(([\d,\s]*)\)/.exec(header);
  if (!descr || !order || !sizes)
    throw fault("descr, fortran_order and shape", JSON.stringify(header.slice(0, 120)));
  const kind = Object.hasOwn(kinds, descr[2]!) ? kinds[descr[2]!] : undefined;
  if (!kind || (descr[1] === ">" && kind.bytes > 1))
    throw fault(`little-endian ${Object.keys(kinds).join(", ")}`, `${descr[1]}${descr[2]}`);
  const shape = sizes[1]!
    .split(",")
    .map((size) => size.trim())
    .filter(Boolean)
    .map(Number);
  const count = shape.reduce((product, size) => product * size, 1);
  if (count * kind.bytes !== text.length - end || shape.length > 32)
    throw fault(
      `${count * kind.bytes} bytes of data for [${shape.join(", ")}]`,
      `${text.length - end}`,
    );
  const data = kind.make(Uint8Array.from(bytes.subarray(end)).buffer);
  return { shape, kind: descr[2]!, data: order[1] === "True" ? toRowMajor(data, shape) : data };
}

/** Bytes of a .npy file (version 1, row-major). Uint16Array is "u2" unless kind "f2" says that it holds halves. */
export function encodeNpy({
  shape,
  data,
  kind = kindOf(data),
}: {
  shape: readonly number[];
  data: StoredArray;
  kind?: string;
}): Buffer {
  const count = shape.reduce((product, size) => product * size, 1);
  if (count !== data.length)
    throw new DiffusionError(
      "shape",
      `npy: expected ${count} values for [${shape.join(", ")}], got ${data.length}`,
    );
  if (kinds[kind]?.bytes !== data.BYTES_PER_ELEMENT)
    throw new DiffusionError(
      "dtype",
      `npy: expected a kind of ${data.BYTES_PER_ELEMENT} bytes, got "${kind}"`,
    );
  const order = data.BYTES_PER_ELEMENT === 1 ? "|" : "<";
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const dict = `{'descr': '${order}${kind}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const length = Math.ceil((10 + dict.length + 1) / 64) * 64;
  const head = Buffer.alloc(length, " ");
  head.write(magic, 0, "latin1");
  head.set([1, 0], 6);
  head.writeUInt16LE(length - 10, 8);
  head.write(dict, 10, "latin1");
  head[length - 1] = 10;
  return Buffer.concat([head, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)]);
}

/** Writes a .npy file atomically. */
export async function writeNpy(
  path: string,
  array: { shape: readonly number[]; data: StoredArray; kind?: string },
): Promise<void> {
  await writeFileAtomic(path, encodeNpy(array), { where: "writeNpy", code: "checkpoint" });
}

function kindOf(data: StoredArray): string {
  const letter = /Float/.test(data.constructor.name)
    ? "f"
    : /Uint/.test(data.constructor.name)
      ? "u"
      : "i";
  return `${letter}${data.BYTES_PER_ELEMENT}`;
}

function toRowMajor(data: StoredArray, shape: readonly number[]): StoredArray {
  const out = data.slice();
  const place = new Array<number>(shape.length).fill(0);
  for (let row = 0; row < data.length; ++row) {
    let column = 0;
    for (let axis = shape.length - 1; axis >= 0; --axis)
      column = column * shape[axis]! + place[axis]!;
    out[row] = data[column]!;
    for (let axis = shape.length - 1; axis >= 0 && ++place[axis]! === shape[axis]!; --axis)
      place[axis] = 0;
  }
  return out;
}
