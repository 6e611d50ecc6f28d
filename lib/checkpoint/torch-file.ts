// Files of torch.save: zip archives (since 1.6) and the older sequence of pickles. The object comes out as plain data with
// descriptions of its tensors; the storages stay in the file (torch/serialization.py, "_save" and "_legacy_save").
import { sizeOf } from "../ir/shape.js";
import { fault, memorySource, readAt, type ByteSource } from "./byte-source.js";
import type { TensorInfo, PlacedTensor } from "./checkpoint.js";
import { PickleEnd, unpickle, type Unpickled } from "./pickle.js";
import {
  describeValue,
  type PickleValue,
  type StorageRef,
  type TensorRef,
} from "./pickle-values.js";
import { dataOffset, readZip, readZipEntry, type ZipEntry } from "./zip.js";

/** The object of a file and where its storages are. */
export interface TorchFile {
  format: "torch zip" | "torch legacy";
  root: PickleValue;
  /** First byte of a storage. Throws "checkpoint" when it is not in the file as it should be. */
  placeOf(storage: StorageRef): Promise<{ source: ByteSource; offset: number }>;
}

const maxPickleBytes = 1 << 27;

const legacyMagic = 0x1950a86a20f9469cfc6cn;
const legacyProtocol = 1001;

/** Reads a pickle at an offset, of whatever length it turns out to have. */
async function pickleAt(source: ByteSource, offset: number): Promise<Unpickled> {
  const { where, size } = source;
  const most = Math.min(size - offset, maxPickleBytes);
  for (let bytes = Math.min(most, 1 << 20); ; bytes = Math.min(most, bytes * 8)) {
    const window = new Uint8Array(await readAt(source, offset, bytes));
    try {
      return unpickle(window, where);
    } catch (error) {
      if (!(error instanceof PickleEnd)) throw error;
      if (bytes < most) continue;
      throw most < maxPickleBytes
        ? fault(where, "a whole pickle", `the end of the file at ${size}; it is truncated`)
        : fault(where, `a pickle of at most ${maxPickleBytes} bytes`, "a longer one");
    }
  }
}

/** Whether the first bytes are those of a legacy file: protocol 2 and the magic number. */
export const isLegacyTorch = (head: Uint8Array): boolean =>
  Buffer.from(head.buffer, head.byteOffset, Math.min(16, head.length))
    .toString("latin1")
    .includes("\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19");

/** Reads a file of torch.save. Throws "checkpoint" for anything unsound. */
export const readTorchFile = (source: ByteSource, isZip: boolean): Promise<TorchFile> =>
  isZip ? readTorchZip(source) : readTorchLegacy(source);

/** The folder inside the archive that holds data.pkl, with its slash. */
function stemOf(entries: ReadonlyMap<string, ZipEntry>, where: string): string {
  const found = [...entries.keys()].filter((name) => /^(?:[^/]+\/)?data\.pkl$/.test(name));
  if (found.length === 1) return found[0]!.slice(0, -"data.pkl".length);
  const names = [...entries.keys()].slice(0, 3).map((name) => JSON.stringify(name.slice(0, 60)));
  throw fault(
    where,
    "one data.pkl in the zip archive of a PyTorch checkpoint",
    found.length > 1
      ? `${found.length}`
      : `none among ${entries.size} entries (${names.join(", ") || "empty"})`,
  );
}

async function readTorchZip(source: ByteSource): Promise<TorchFile> {
  const { where } = source;
  const entries = await readZip(source);
  const stem = stemOf(entries, where);
  const order = entries.get(`${stem}byteorder`);
  const byteOrder = order && Buffer.from(await readZipEntry(source, order, 16)).toString("latin1");
  if (byteOrder !== undefined && byteOrder !== "little")
    throw fault(where, "little-endian values", JSON.stringify(byteOrder));
  const pickle = await readZipEntry(source, entries.get(`${stem}data.pkl`)!, maxPickleBytes);
  const { value } = completePickle(pickle, where);
  return {
    format: "torch zip",
    root: value,
    async placeOf(storage) {
      if (storage.inline) return inlinePlace(where, storage.inline);
      const name = `${stem}data/${storage.key}`;
      const entry = entries.get(name);
      if (!entry) throw fault(where, `an entry "${name.slice(0, 200)}"`, "none; it is damaged");
      checkStorageBytes(where, storage, entry.bytes);
      return { source, offset: await dataOffset(source, entry) };
    },
  };
}

function completePickle(bytes: Uint8Array, where: string): Unpickled {
  try {
    return unpickle(bytes, where);
  } catch (error) {
    if (!(error instanceof PickleEnd)) throw error;
    throw fault(where, "a whole pickle", `the end of data.pkl after ${bytes.length} bytes`);
  }
}

const inlinePlace = (where: string, bytes: Uint8Array): { source: ByteSource; offset: number } => ({
  source: memorySource(where, bytes),
  offset: 0,
});

function checkStorageBytes(where: string, { key, type, count }: StorageRef, bytes: number): void {
  if (count * type.bytes !== bytes)
    throw fault(
      where,
      `${count * type.bytes} bytes for storage ${key} of ${count} ${type.name}`,
      `${bytes}`,
    );
}

/** magic, protocol, system, object, keys: five pickles, then each storage with its length. */
async function readTorchLegacy(source: ByteSource): Promise<TorchFile> {
  const { where } = source;
  let offset = 0;
  const next = async (): Promise<Unpickled> => {
    const pickle = await pickleAt(source, offset);
    offset += pickle.bytes;
    return pickle;
  };
  const magic = (await next()).value;
  if (magic !== legacyMagic) throw fault(where, "PyTorch's magic number", describeValue(magic));
  const protocol = (await next()).value;
  if (protocol !== legacyProtocol)
    throw fault(where, `legacy protocol ${legacyProtocol}`, describeValue(protocol));
  const system = (await next()).value;
  if (!(system instanceof Map) || system.get("little_endian") !== true)
    throw fault(where, "little-endian values", describeValue(system));
  const { value: root, storages } = await next();
  const keys = (await next()).value;
  if (!Array.isArray(keys)) throw fault(where, "a list of storages", describeValue(keys));
  const offsets = await legacyOffsets(source, offset, keys, storages);
  return {
    format: "torch legacy",
    root,
    async placeOf(storage) {
      if (storage.inline) return inlinePlace(where, storage.inline);
      const at = offsets.get(storage.key);
      if (at === undefined)
        throw fault(where, `storage ${storage.key} in the file`, "none; it is damaged");
      return { source, offset: at };
    },
  };
}

/** First byte of each storage after the pickles. */
async function legacyOffsets(
  source: ByteSource,
  start: number,
  keys: readonly PickleValue[],
  storages: ReadonlyMap<string, StorageRef>,
): Promise<Map<string, number>> {
  const { where, size } = source;
  const offsets = new Map<string, number>();
  let at = start;
  for (const item of keys) {
    const key = String(typeof item === "number" || typeof item === "string" ? item : "");
    const storage = storages.get(key);
    if (!storage || offsets.has(key)) throw fault(where, "each storage once", describeValue(item));
    if (at + 8 > size) throw fault(where, `storage ${key}`, "the end of the file; it is truncated");
    const count = new DataView(await readAt(source, at, 8)).getBigInt64(0, true);
    if (count !== BigInt(storage.count))
      throw fault(where, `${storage.count} elements in storage ${key}`, String(count));
    offsets.set(key, at + 8);
    at += 8 + storage.count * storage.type.bytes;
    if (at > size)
      throw fault(where, `storage ${key} to byte ${at}`, `a file of ${size}; it is truncated`);
  }
  return offsets;
}

/** Row-major strides of a shape. */
function denseStrides(shape: readonly number[]): number[] {
  const strides = shape.map(() => 1);
  for (let axis = shape.length - 2; axis >= 0; --axis)
    strides[axis] = strides[axis + 1]! * Math.max(1, shape[axis + 1]!);
  return strides;
}

/** A tensor of the file under a name; undefined when its element type cannot be read. */
export async function placeTensor(
  file: TorchFile,
  name: string,
  { storage, type, offset, shape, strides }: TensorRef,
): Promise<PlacedTensor | undefined> {
  const { dtype } = type;
  if (dtype === "other") return undefined;
  const elements = sizeOf(shape);
  const dense = denseStrides(shape);
  const isDense =
    elements <= 1 || shape.every((extent, axis) => extent === 1 || strides[axis] === dense[axis]);
  const place = await file.placeOf(storage);
  const info: TensorInfo = {
    name,
    dtype,
    shape,
    elements,
    bytes: elements * type.bytes,
    offset: place.offset + (storage.view?.offset ?? 0) * storage.type.bytes + offset * type.bytes,
  };
  return { info, source: place.source, ...(!isDense && { strides }) };
}
