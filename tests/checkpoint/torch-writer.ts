// Writes files of torch.save by hand for tests: a pickler of protocol 2, zip archives with and without zip64, and the
// older sequence of pickles. Everything can be made wrong on purpose.
import { crc32 } from "node:zlib";

/** A value to pickle. Plain arrays are lists, numbers without a fraction whole numbers. */
export type Pickled =
  | null
  | boolean
  | number
  | string
  | Pickled[]
  | Map<Pickled, Pickled>
  | { tuple: Pickled[] }
  | { float: number }
  | { global: string }
  | { call: [name: string, ...args: Pickled[]] }
  | { object: [type: string, state: Pickled] }
  | { persistent: Pickled }
  | { raw: Uint8Array };

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};
const u16 = (value: number): Buffer => u32(value).subarray(0, 2);
const u64 = (value: number | bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const ascii = (text: string): Buffer => Buffer.from(text, "latin1");

const globalCode = (path: string): Buffer => {
  const dot = path.lastIndexOf(".");
  return ascii(`c${path.slice(0, dot)}\n${path.slice(dot + 1)}\n`);
};

function codes(value: Pickled): Buffer[] {
  if (value === null) return [ascii("N")];
  if (typeof value === "boolean") return [Buffer.from([value ? 0x88 : 0x89])];
  if (typeof value === "number") {
    if (Number.isInteger(value) && Math.abs(value) < 2 ** 31) return [ascii("J"), u32(value)];
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(BigInt(value));
    return [Buffer.from([0x8a, 8]), bytes];
  }
  if (typeof value === "string") {
    const text = Buffer.from(value);
    return [ascii("X"), u32(text.length), text];
  }
  if (Array.isArray(value)) return [ascii("]("), ...value.flatMap(codes), ascii("e")];
  if (value instanceof Map)
    return [ascii("}("), ...[...value].flatMap(([k, v]) => [...codes(k), ...codes(v)]), ascii("u")];
  if ("tuple" in value) return [ascii("("), ...value.tuple.flatMap(codes), ascii("t")];
  if ("float" in value) {
    const bytes = Buffer.alloc(8);
    bytes.writeDoubleBE(value.float);
    return [ascii("G"), bytes];
  }
  if ("global" in value) return [globalCode(value.global)];
  if ("call" in value) {
    const [name, ...args] = value.call;
    return [globalCode(name), ...codes({ tuple: args }), ascii("R")];
  }
  if ("object" in value) {
    const [type, state] = value.object;
    return [globalCode(type), ascii(")\x81"), ...codes(state), ascii("b")];
  }
  if ("persistent" in value) return [...codes(value.persistent), ascii("Q")];
  return [Buffer.from(value.raw)];
}

/** One pickle. */
export const pickle = (value: Pickled): Buffer =>
  Buffer.concat([Buffer.from([0x80, 2]), ...codes(value), ascii(".")]);

export interface TestStorage {
  key: string;
  /** Class, e.g. "Float". */
  type: string;
  count: number;
  bytes: Uint8Array;
}

/** Reference of a storage; `view` as legacy files have it. */
export const storageId = (
  { key, type, count }: Omit<TestStorage, "bytes">,
  view?: Pickled,
): Pickled => ({
  persistent: {
    tuple: [
      "storage",
      { global: `torch.${type}Storage` },
      key,
      "cpu",
      count,
      ...(view === undefined ? [] : [view]),
    ],
  },
});

export interface Layout {
  shape: number[];
  /** Default: row-major. */
  strides?: number[];
  offset?: number;
}

/** A tensor on a storage. */
export function tensor(storage: Pickled, { shape, strides, offset = 0 }: Layout): Pickled {
  const dense = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  return {
    call: [
      "torch._utils._rebuild_tensor_v2",
      storage,
      offset,
      { tuple: shape },
      { tuple: strides ?? dense },
      false,
      { call: ["collections.OrderedDict"] },
    ],
  };
}

const widths: Readonly<Record<string, number>> = { Float: 4, Double: 8, Half: 2, BFloat16: 2, Long: 8, Int: 4, Short: 2, Char: 1, Byte: 1, Bool: 1 }; // prettier-ignore

/** A storage of some bytes. */
export const storageOf = (key: string, type: string, bytes: Uint8Array): TestStorage => ({
  key,
  type,
  count: bytes.length / widths[type]!,
  bytes,
});

/** float32 values as a storage. */
export const floats = (key: string, values: readonly number[]): TestStorage =>
  storageOf(key, "Float", new Uint8Array(Float32Array.from(values).buffer));

export interface ZipItem {
  name: string;
  data: Uint8Array;
  crc?: number;
  method?: number;
}

/** A zip archive of stored entries; with `wide`, all sizes are in zip64 fields. */
export function zip(items: readonly ZipItem[], wide = false): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const { name, data, crc = crc32(data), method = 0 } of items) {
    const path = Buffer.from(name);
    // The local header is padded as torch does, so that the data is aligned to 64 bytes.
    const padding = (64 - ((at + 30 + path.length + 4) % 64)) % 64;
    const extra = Buffer.concat([ascii("FB"), u16(padding), Buffer.alloc(padding, "Z")]);
    const sizes = [u32(crc), u32(data.length), u32(data.length), u16(path.length)];
    const head = [u16(20), u16(0x800), u16(method), u32(0)];
    const local = Buffer.concat([
      u32(0x04034b50),
      ...head,
      ...sizes,
      u16(extra.length),
      path,
      extra,
    ]);
    const huge = u32(0xffffffff);
    const field = wide
      ? Buffer.concat([u16(1), u16(24), u64(data.length), u64(data.length), u64(at)])
      : Buffer.alloc(0);
    const [size, place] = wide ? [huge, huge] : [u32(data.length), u32(at)];
    directory.push(
      Buffer.concat([
        ...[u32(0x02014b50), u16(20), ...head, u32(crc), size, size, u16(path.length)],
        ...[u16(field.length), u16(0), u16(0), u16(0), u32(0), place, path, field],
      ]),
    );
    parts.push(local, Buffer.from(data));
    at += local.length + data.length;
  }
  const bytes = directory.reduce((sum, { length }) => sum + length, 0);
  const end64 = wide
    ? [
        ...[u32(0x06064b50), u64(44), u16(45), u16(45), u32(0), u32(0)],
        ...[u64(items.length), u64(items.length), u64(bytes), u64(at)],
        ...[u32(0x07064b50), u32(0), u64(at + bytes), u32(1)],
      ]
    : [];
  const count = wide ? u16(0xffff) : u16(items.length);
  const ends = wide ? [u32(0xffffffff), u32(0xffffffff)] : [u32(bytes), u32(at)];
  const end = [u32(0x06054b50), u16(0), u16(0), count, count, ...ends, u16(0)];
  return Buffer.concat([...parts, ...directory, ...end64, ...end]);
}

/** A zip file of torch.save. */
export const torchZip = (root: Pickled, storages: readonly TestStorage[], wide = false): Buffer =>
  zip(
    [
      { name: "archive/data.pkl", data: pickle(root) },
      ...storages.map(({ key, bytes }) => ({ name: `archive/data/${key}`, data: bytes })),
      { name: "archive/version", data: ascii("3\n") },
    ],
    wide,
  );

const magic = Buffer.from([0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e]); // prettier-ignore

/** A legacy file of torch.save. */
export const torchLegacy = (root: Pickled, storages: readonly TestStorage[]): Buffer =>
  Buffer.concat([
    magic,
    pickle(1001),
    pickle(new Map<Pickled, Pickled>([["protocol_version", 1001], ["little_endian", true]])), // prettier-ignore
    pickle(root),
    pickle(storages.map(({ key }) => key)),
    ...storages.flatMap(({ count, bytes }) => [u64(count), Buffer.from(bytes)]),
  ]);

/** A dictionary of float tensors, each on a storage of its own, for files of names and shapes. */
export function stateDict(
  shapes: Readonly<Record<string, readonly number[]>>,
  valueOf: (index: number, name: string) => number = (i) => i,
  firstKey = 0,
): { dict: Map<Pickled, Pickled>; storages: TestStorage[] } {
  const storages: TestStorage[] = [];
  const dict = new Map<Pickled, Pickled>();
  for (const [name, shape] of Object.entries(shapes)) {
    const count = shape.reduce((a, b) => a * b, 1);
    const values = Array.from({ length: count }, (_, i) => valueOf(i, name));
    const storage = floats(String(firstKey + storages.length), values);
    storages.push(storage);
    dict.set(name, tensor(storageId(storage), { shape: [...shape] }));
  }
  return { dict, storages };
}
