// Safetensors files (github.com/huggingface/safetensors, README "Format"): u64 header length, JSON
// header, raw data, all little endian. Files come from strangers, so the header is checked
// completely before a byte of data is read, and tensors are read one by one at their offsets.
import { checkOptions, DiffusionError, formatShape } from "../errors.js";
import { sizeOf } from "../ir/shape.js";
import { writeFileAtomic } from "../files/atomic-write.js";
import { fault, openFile, readAt, type ByteSource } from "./byte-source.js";
import { Checkpoint, type PlacedTensor, type TensorInfo } from "./checkpoint.js";
import { floatsToBfloats, floatsToHalves } from "./half.js";
import { layouts, type SafetensorsDtype, type StoredArray } from "./stored-dtype.js";

export type { TensorInfo } from "./checkpoint.js";
export type { SafetensorsDtype, StoredArray } from "./stored-dtype.js";

export interface SafetensorsHeader {
  metadata: Record<string, string>;
  /** In the order of the data. */
  tensors: Map<string, TensorInfo>;
}

/** Names for writing, e.g. "f32", "bf16", "i64". */
export type StoredDtype = Lowercase<SafetensorsDtype>;

/**
 * A Float32Array is converted when dtype is "f16" or "bf16"; a Uint16Array is taken as their bits.
 */
export interface TensorToWrite {
  name: string;
  shape: readonly number[];
  /** The values, or a function that gets them when they are written; it needs a dtype. */
  data: StoredArray | (() => Promise<StoredArray>);
  /** Default: what the array is. */
  dtype?: StoredDtype;
}

const maxHeaderBytes = 100_000_000; // the limit of the reference implementation
const maxRank = 16;
/**
 * Opens a file and checks its header. Throws "checkpoint" for anything but a sound safetensors
 * file.
 */
export async function openSafetensors(path: string): Promise<Checkpoint> {
  const source = await openFile(path, "safetensors file");
  try {
    return await readSafetensorsHeader(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** The checkpoint of an opened file, which is closed with it. Throws like openSafetensors. */
export async function readSafetensorsHeader(source: ByteSource): Promise<Checkpoint> {
  const { where, size } = source;
  const length = headerLength(await readAt(source, 0, Math.min(8, size)), size, where);
  const { metadata, tensors } = parseHeader(await readAt(source, 8, length), size, where);
  const placed = [...tensors].map(([name, info]): [string, PlacedTensor] => [
    name,
    { info, source },
  ]);
  return new Checkpoint(where, {
    format: "safetensors",
    metadata,
    tensors: new Map(placed),
    close: () => source.close(),
  });
}

/**
 * Reads every tensor of a file as stored. For big files use openSafetensors and read what is
 * needed.
 */
export async function readSafetensors(path: string): Promise<{
  metadata: Record<string, string>;
  tensors: Map<string, TensorInfo & { data: StoredArray }>;
}> {
  const file = await openSafetensors(path);
  try {
    const tensors = new Map<string, TensorInfo & { data: StoredArray }>();
    for (const info of file.tensors.values())
      tensors.set(info.name, { ...info, data: await file.read(info.name) });
    return { metadata: { ...file.metadata }, tensors };
  } finally {
    await file.close();
  }
}

/** The header of a whole file in memory, checked as openSafetensors does. */
export function parseSafetensors(bytes: Uint8Array, where = "safetensors"): SafetensorsHeader {
  const length = headerLength(bytes, bytes.length, where);
  return parseHeader(Uint8Array.from(bytes.subarray(8, 8 + length)).buffer, bytes.length, where);
}

function headerLength(prefix: Uint8Array | ArrayBuffer, fileBytes: number, where: string): number {
  if (fileBytes < 10) throw fault(where, "a safetensors file", `only ${fileBytes} bytes`);
  const view =
    prefix instanceof ArrayBuffer
      ? new DataView(prefix)
      : new DataView(prefix.buffer, prefix.byteOffset);
  const length = view.getBigUint64(0, true);
  if (length > maxHeaderBytes)
    throw fault(
      where,
      `a header of at most ${maxHeaderBytes} bytes`,
      `${length}; this is not a safetensors file`,
    );
  if (length > fileBytes - 8)
    throw fault(
      where,
      `a header of ${length} bytes`,
      `a file of ${fileBytes} bytes; it is truncated or not a safetensors file`,
    );
  return Number(length);
}

function parseHeader(text: ArrayBuffer, fileBytes: number, where: string): SafetensorsHeader {
  const json = parseJson(text, where);
  const { __metadata__: metadata = {}, ...entries } = json;
  if (!isRecord(metadata) || !Object.values(metadata).every((value) => typeof value === "string"))
    throw fault(where, "__metadata__ of texts", describe(metadata));
  const dataStart = 8 + text.byteLength;
  const infos = Object.entries(entries).map(([name, entry]) =>
    parseEntry(name, entry, dataStart, where),
  );
  infos.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let end = dataStart;
  for (const { name, offset, bytes } of infos) {
    if (offset !== end)
      throw fault(
        where,
        `"${name}" to start at data byte ${end - dataStart}`,
        `${offset - dataStart}; tensors must not overlap or leave gaps`,
      );
    end += bytes;
  }
  if (end !== fileBytes)
    throw fault(
      where,
      `${end - dataStart} bytes of data`,
      `${fileBytes - dataStart}; the file is truncated or has a tail`,
    );
  return {
    metadata: metadata as Record<string, string>,
    tensors: new Map(infos.map((info) => [info.name, info])),
  };
}

function parseJson(text: ArrayBuffer, where: string): Record<string, unknown> {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(text));
  } catch (cause) {
    throw fault(where, "a header of UTF-8 JSON", (cause as Error).message.slice(0, 120), cause);
  }
  if (!isRecord(json)) throw fault(where, "a JSON object as header", describe(json));
  return json;
}

function parseEntry(name: string, entry: unknown, dataStart: number, where: string): TensorInfo {
  const at = `${where}: tensor "${name.slice(0, 200)}"`;
  if (!isRecord(entry)) throw fault(at, "dtype, shape and data_offsets", describe(entry));
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string" || !Object.hasOwn(layouts, dtype))
    throw fault(at, `a dtype among ${Object.keys(layouts).join(", ")}`, describe(dtype));
  if (!isCounts(shape) || shape.length > maxRank)
    throw fault(at, `a shape of at most ${maxRank} sizes`, describe(shape));
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!)
    throw fault(at, "data_offsets [begin, end]", describe(offsets));
  const [begin, end] = offsets as [number, number];
  const elements = sizeOf(shape);
  const bytes = elements * layouts[dtype as SafetensorsDtype].bytes;
  if (bytes !== end - begin)
    throw fault(at, `${bytes} bytes for ${dtype} [${shape.join(", ")}]`, `${end - begin} bytes`);
  return {
    name,
    dtype: dtype as SafetensorsDtype,
    shape,
    elements,
    bytes,
    offset: dataStart + begin,
  };
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isCounts = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);

const describe = (value: unknown): string => {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
};

/**
 * Writes tensors atomically: a full disk or an abort leaves the old file as it was. Wide dtypes
 * come first, so that every tensor is aligned; the header is padded to 8 bytes.
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<TensorToWrite>,
  metadata: Record<string, string> = {},
  options: { signal?: AbortSignal } = {},
): Promise<void> {
  checkOptions("writeSafetensors", options, ["signal"]);
  const plans = Array.from(tensors, planTensor);
  const byWidth = (plan: TensorPlan): number => -layouts[plan.dtype].bytes;
  plans.sort((a, b) => byWidth(a) - byWidth(b) || (a.name < b.name ? -1 : 1));
  const names = new Set(plans.map(({ name }) => name));
  if (names.size < plans.length)
    throw new DiffusionError(
      "option",
      `writeSafetensors: expected ${plans.length} names, got ${names.size} different ones`,
    );
  await writeFileAtomic(path, fileParts(plans, metadata), {
    where: "writeSafetensors",
    code: "checkpoint",
    signal: options.signal,
  });
}

interface TensorPlan {
  name: string;
  dtype: SafetensorsDtype;
  shape: readonly number[];
  elements: number;
  data: StoredArray | (() => Promise<StoredArray>);
}

function planTensor({ name, shape, data, dtype }: TensorToWrite): TensorPlan {
  const at = `writeSafetensors: "${name}"`;
  if (name === "__metadata__")
    throw new DiffusionError("option", `${at}: expected another name, got the reserved one`);
  const elements = sizeOf(shape);
  if (!isCounts(shape))
    throw new DiffusionError("shape", `${at}: expected a shape, got ${formatShape(shape)}`);
  const isLazy = typeof data === "function";
  const stored =
    (dtype?.toUpperCase() as SafetensorsDtype | undefined) ?? (isLazy ? undefined : natural(data));
  if (stored === undefined || !layouts[stored])
    throw new DiffusionError("dtype", `${at}: expected a dtype, got values of ${stored}`);
  const plan = { name, dtype: stored, shape, elements, data };
  if (!isLazy) checkValues(plan, data);
  return plan;
}

function checkValues({ name, dtype, shape, elements }: TensorPlan, data: StoredArray): void {
  const at = `writeSafetensors: "${name}"`;
  if (elements !== data.length)
    throw new DiffusionError(
      "shape",
      `${at}: expected ${elements} values for ${formatShape(shape)}, got ${data.length}`,
    );
  const isConverted = data instanceof Float32Array && (dtype === "F16" || dtype === "BF16");
  if (!isConverted && layouts[dtype].make(new ArrayBuffer(0)).constructor !== data.constructor)
    throw new DiffusionError(
      "dtype",
      `${at}: expected values of ${dtype}, got ${data.constructor.name}`,
    );
}

const naturalDtypes: [new (length: number) => StoredArray, SafetensorsDtype][] = [
  [Float64Array, "F64"],
  [BigInt64Array, "I64"],
  [BigUint64Array, "U64"],
  [Int32Array, "I32"],
  [Uint32Array, "U32"],
  [Int16Array, "I16"],
  [Uint16Array, "U16"],
  [Int8Array, "I8"],
  [Uint8Array, "U8"],
];

const natural = (data: StoredArray): SafetensorsDtype =>
  naturalDtypes.find(([type]) => data instanceof type)?.[1] ?? "F32";

async function* fileParts(
  plans: readonly TensorPlan[],
  metadata: Record<string, string>,
): AsyncGenerator<Uint8Array> {
  const header: [string, unknown][] =
    Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  let begin = 0;
  for (const { name, dtype, shape, elements } of plans) {
    const end = begin + elements * layouts[dtype].bytes;
    header.push([name, { dtype, shape, data_offsets: [begin, end] }]);
    begin = end;
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)));
  const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, " ");
  padded.writeBigUInt64LE(BigInt(padded.length - 8));
  json.copy(padded, 8);
  yield padded;
  for (const plan of plans) {
    const values = typeof plan.data === "function" ? await plan.data() : plan.data;
    checkValues(plan, values);
    yield* dataParts(plan.dtype, values);
  }
}

// A megabyte of values at a time: the writer awaits between parts, so conversion does not hold the
// event loop.
function* dataParts(dtype: SafetensorsDtype, data: StoredArray): Generator<Uint8Array> {
  const step = 1 << 20;
  const convert = dtype === "F16" ? floatsToHalves : floatsToBfloats;
  for (let start = 0; start < data.length; start += step) {
    const part = data.subarray(start, start + step) as StoredArray;
    const stored = part instanceof Float32Array && dtype !== "F32" ? convert(part) : part;
    yield new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
  }
}
