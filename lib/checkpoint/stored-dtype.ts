// Element types of stored tensors, by the names of safetensors, and the arrays that hold them.
import { DiffusionError } from "../errors.js";
import { bfloatsToFloats, halvesToFloats } from "./half.js";

export type SafetensorsDtype =
  | "BOOL"
  | "U8"
  | "I8"
  | "F8_E5M2"
  | "F8_E4M3"
  | "I16"
  | "U16"
  | "F16"
  | "BF16"
  | "I32"
  | "U32"
  | "F32"
  | "F64"
  | "I64"
  | "U64";

export type StoredArray =
  | Uint8Array
  | Int8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | Float32Array
  | Float64Array
  | BigInt64Array
  | BigUint64Array;

interface Layout {
  bytes: number;
  make: (buffer: ArrayBuffer) => StoredArray;
}

export const layouts: Readonly<Record<SafetensorsDtype, Layout>> = {
  BOOL: { bytes: 1, make: (b) => new Uint8Array(b) },
  U8: { bytes: 1, make: (b) => new Uint8Array(b) },
  I8: { bytes: 1, make: (b) => new Int8Array(b) },
  F8_E5M2: { bytes: 1, make: (b) => new Uint8Array(b) },
  F8_E4M3: { bytes: 1, make: (b) => new Uint8Array(b) },
  I16: { bytes: 2, make: (b) => new Int16Array(b) },
  U16: { bytes: 2, make: (b) => new Uint16Array(b) },
  F16: { bytes: 2, make: (b) => new Uint16Array(b) },
  BF16: { bytes: 2, make: (b) => new Uint16Array(b) },
  I32: { bytes: 4, make: (b) => new Int32Array(b) },
  U32: { bytes: 4, make: (b) => new Uint32Array(b) },
  F32: { bytes: 4, make: (b) => new Float32Array(b) },
  F64: { bytes: 8, make: (b) => new Float64Array(b) },
  I64: { bytes: 8, make: (b) => new BigInt64Array(b) },
  U64: { bytes: 8, make: (b) => new BigUint64Array(b) },
};

/** Whether values of this type can be had as float32. */
export const isFloat = (dtype: SafetensorsDtype): boolean =>
  dtype === "F32" || dtype === "F16" || dtype === "BF16" || dtype === "F64";

/** Stored floats as float32. */
export function toFloats(dtype: SafetensorsDtype, values: StoredArray): Float32Array {
  if (values instanceof Float32Array) return values;
  if (values instanceof Float64Array) return Float32Array.from(values);
  if (dtype === "F16") return halvesToFloats(values as Uint16Array);
  if (dtype === "BF16") return bfloatsToFloats(values as Uint16Array);
  throw new DiffusionError("internal", `toFloats: expected floats, got ${dtype}`);
}
