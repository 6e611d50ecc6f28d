// NumPy's array file (numpy/lib/format.py, versions 1 to 3): how golden tensors and features come
// from and go to Python.
import { readFile } from "node:fs/promises";
import { DiffusionError, formatShape } from "../errors.js";
import { sizeOf } from "../ir/shape.js";
import { writeFileAtomic } from "../files/atomic-write.js";
import type { StoredArray } from "./safetensors.js";

export interface NpyArray {
  shape: number[];
  data: StoredArray;
  /** "f16" comes as bits in a Uint16Array, "bool" as 0 and 1. */
  dtype: NpyDtype;
}

/** What encodeNpy takes. Default dtype: what the array is; say "f16" for a Uint16Array of bits. */
export interface ArrayToWrite {
  shape: readonly number[];
  data: StoredArray;
  dtype?: NpyDtype;
}

type Layout = [numpyName: string, make: (buffer: ArrayBuffer) => StoredArray];

const layouts = {
  f32: ["f4", (b) => new Float32Array(b)],
  f64: ["f8", (b) => new Float64Array(b)],
  i8: ["i1", (b) => new Int8Array(b)],
  i16: ["i2", (b) => new Int16Array(b)],
  i32: ["i4", (b) => new Int32Array(b)],
  i64: ["i8", (b) => new BigInt64Array(b)],
  u8: ["u1", (b) => new Uint8Array(b)],
  u16: ["u2", (b) => new Uint16Array(b)],
  u32: ["u4", (b) => new Uint32Array(b)],
  u64: ["u8", (b) => new BigUint64Array(b)],
  f16: ["f2", (b) => new Uint16Array(b)],
  bool: ["b1", (b) => new Uint8Array(b)],
} as const satisfies Record<string, Layout>;

export type NpyDtype = keyof typeof layouts;

const dtypes = Object.keys(layouts) as NpyDtype[];
const bytesOf = (dtype: NpyDtype): number => Number(layouts[dtype][0][1]);

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

/**
 * Parses a .npy file; column-major arrays come out row-major. Throws "checkpoint" for anything
 * unsound.
 */
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
  const dtype = dtypes.find((name) => layouts[name][0] === descr[2]);
  if (!dtype || (descr[1] === ">" && bytesOf(dtype) > 1))
    throw fault(`little-endian ${dtypes.join(", ")}`, `${descr[1]}${descr[2]}`);
  const shape = sizes[1]!
    .split(",")
    .map((size) => size.trim())
    .filter(Boolean)
    .map(Number);
  const count = sizeOf(shape);
  if (count * bytesOf(dtype) !== text.length - end || shape.length > 32)
    throw fault(
      `${count * bytesOf(dtype)} bytes of data for [${shape.join(", ")}]`,
      `${text.length - end}`,
    );
  const data = layouts[dtype][1](Uint8Array.from(bytes.subarray(end)).buffer);
  return { shape, dtype, data: order[1] === "True" ? toRowMajor(data, shape) : data };
}

/** Bytes of a .npy file (version 1, row-major). */
export function encodeNpy({ shape, data, dtype = naturalDtype(data) }: ArrayToWrite): Buffer {
  const count = sizeOf(shape);
  if (count !== data.length)
    throw new DiffusionError(
      "shape",
      `npy: expected ${count} values for ${formatShape(shape)}, got ${data.length}`,
    );
  if (layouts[dtype][1](new ArrayBuffer(0)).constructor !== data.constructor)
    throw new DiffusionError(
      "dtype",
      `npy: expected values of ${dtype}, got ${data.constructor.name}`,
    );
  const order = data.BYTES_PER_ELEMENT === 1 ? "|" : "<";
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const dict = `{'descr': '${order}${layouts[dtype][0]}', 'fortran_order': False, 'shape': ${tuple}, }`;
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
export async function writeNpy(path: string, array: ArrayToWrite): Promise<void> {
  await writeFileAtomic(path, encodeNpy(array), { where: "writeNpy", code: "checkpoint" });
}

const naturalDtype = (data: StoredArray): NpyDtype =>
  dtypes.find((name) => layouts[name][1](new ArrayBuffer(0)).constructor === data.constructor)!;

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
