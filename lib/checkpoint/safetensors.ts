// Safetensors files (github.com/huggingface/safetensors, README "Format"): u64 header length, JSON
// header, raw data, all little endian. Files come from strangers, so the header is checked
// completely before a byte of data is read, and tensors are read one by one at their offsets.
import { open, type FileHandle } from "node:fs/promises";
import { checkOptions, DiffusionError, formatShape, nearestName } from "../errors.js";
import { writeFileAtomic } from "../files/atomic-write.js";
import { bfloatsToFloats, floatsToBfloats, floatsToHalves, halvesToFloats } from "./half.js";

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

export interface TensorInfo {
  name: string;
  dtype: SafetensorsDtype;
  shape: readonly number[];
  elements: number;
  bytes: number;
  /** First byte in the file. */
  offset: number;
}

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
  data: StoredArray;
  /** Default: what the array is. */
  dtype?: StoredDtype;
}

interface Layout {
  bytes: number;
  make: (buffer: ArrayBuffer) => StoredArray;
}

const layouts: Record<SafetensorsDtype, Layout> = {
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

const maxHeaderBytes = 100_000_000; // the limit of the reference implementation
const maxRank = 16;
const readChunkBytes = 1 << 28;
const maxNearestCandidates = 2000;
const maxNearestLength = 200; // the time of a comparison grows with the product of the lengths

const fault = (where: string, expected: string, got: string, cause?: unknown): DiffusionError =>
  new DiffusionError("checkpoint", `${where}: expected ${expected}, got ${got}`, { cause });

/**
 * The most similar of the first 2,000 candidates of about the same length, for messages: a file may
 * hold any number of names of any length.
 */
export function nearestTensorName(name: string, candidates: Iterable<string>): string | undefined {
  if (name.length > maxNearestLength) return undefined;
  const slack = Math.max(2, name.length / 3); // nearestName takes nothing further away
  const similar: string[] = [];
  for (const candidate of candidates) {
    if (Math.abs(candidate.length - name.length) <= slack) similar.push(candidate);
    if (similar.length === maxNearestCandidates) break;
  }
  return nearestName(name, similar);
}

/** An open file: its header is in memory, its data is not. */
export class SafetensorsFile implements Disposable {
  readonly metadata: Record<string, string>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #file: FileHandle;
  #isClosed = false;

  /** Use openSafetensors. */
  constructor(
    readonly path: string,
    file: FileHandle,
    header: SafetensorsHeader,
  ) {
    this.#file = file;
    this.metadata = header.metadata;
    this.tensors = header.tensors;
  }

  get names(): string[] {
    return [...this.tensors.keys()];
  }

  has(name: string): boolean {
    return this.tensors.has(name);
  }

  /**
   * Where a tensor lies and what it is. Throws "checkpoint" with the nearest name when there is
   * none.
   */
  info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (info) return info;
    const nearest = nearestTensorName(name, this.tensors.keys());
    throw fault(
      this.path,
      `a tensor "${name}"`,
      `none of that name among ${this.tensors.size}${nearest ? `; did you mean "${nearest}"?` : ""}`,
    );
  }

  /** The stored values of one tensor; F16 and BF16 come as their bits in a Uint16Array. */
  async read(name: string): Promise<StoredArray> {
    const { dtype, offset, bytes } = this.info(name);
    if (this.#isClosed) throw fault(this.path, "an open file", "a closed one");
    return layouts[dtype].make(await readAt(this.#file, this.path, offset, bytes));
  }

  /**
   * One tensor as float32; F16, BF16 and F64 are converted. Throws "checkpoint" for whole numbers.
   */
  async readF32(name: string): Promise<Float32Array> {
    const { dtype } = this.info(name);
    if (!["F32", "F16", "BF16", "F64"].includes(dtype))
      throw fault(this.path, `floats in "${name}"`, dtype);
    const values = await this.read(name);
    if (values instanceof Float32Array) return values;
    if (values instanceof Float64Array) return Float32Array.from(values);
    return dtype === "F16"
      ? halvesToFloats(values as Uint16Array)
      : bfloatsToFloats(values as Uint16Array);
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#file.close();
  }

  /** Closes in the background; nothing is written, so there is nothing to wait for. */
  [Symbol.dispose](): void {
    void this.close().catch(() => undefined);
  }
}

/**
 * Opens a file and checks its header. Throws "checkpoint" for anything but a sound safetensors
 * file.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const file = await open(path, "r").catch((cause: NodeJS.ErrnoException) => {
    const reason = cause.code === "ENOENT" ? "no such file" : cause.message;
    throw fault(path, "a readable safetensors file", reason, cause);
  });
  try {
    const { size } = await file.stat();
    const prefix = await readAt(file, path, 0, Math.min(8, size));
    const length = headerLength(prefix, size, path);
    const text = await readAt(file, path, 8, length);
    return new SafetensorsFile(path, file, parseHeader(text, size, path));
  } catch (error) {
    await file.close();
    if (error instanceof DiffusionError) throw error;
    throw fault(path, "a readable safetensors file", (error as Error).message, error);
  }
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
    return { metadata: file.metadata, tensors };
  } finally {
    await file.close();
  }
}

/** The header of a whole file in memory, checked as openSafetensors does. */
export function parseSafetensors(bytes: Uint8Array, where = "safetensors"): SafetensorsHeader {
  const length = headerLength(bytes, bytes.length, where);
  return parseHeader(Uint8Array.from(bytes.subarray(8, 8 + length)).buffer, bytes.length, where);
}

async function readAt(
  file: FileHandle,
  where: string,
  offset: number,
  bytes: number,
): Promise<ArrayBuffer> {
  let buffer: ArrayBuffer;
  try {
    buffer = new ArrayBuffer(bytes);
  } catch (cause) {
    throw new DiffusionError(
      "memory",
      `${where}: expected ${bytes} bytes of memory, got none that large`,
      { cause },
    );
  }
  for (let done = 0; done < bytes;) {
    const part = new Uint8Array(buffer, done, Math.min(bytes - done, readChunkBytes));
    const { bytesRead } = await file.read(part, 0, part.length, offset + done);
    if (bytesRead === 0)
      throw fault(
        where,
        `${bytes} bytes at ${offset}`,
        `the end of the file after ${done}; was it changed meanwhile?`,
      );
    done += bytesRead;
  }
  return buffer;
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
  const elements = shape.reduce((product, size) => product * size, 1);
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
  data: StoredArray;
}

function planTensor({ name, shape, data, dtype }: TensorToWrite): TensorPlan {
  const at = `writeSafetensors: "${name}"`;
  if (name === "__metadata__")
    throw new DiffusionError("option", `${at}: expected another name, got the reserved one`);
  const elements = shape.reduce((product, size) => product * size, 1);
  if (!isCounts(shape) || elements !== data.length)
    throw new DiffusionError(
      "shape",
      `${at}: expected ${elements} values for ${formatShape(shape)}, got ${data.length}`,
    );
  const stored = (dtype?.toUpperCase() as SafetensorsDtype | undefined) ?? natural(data);
  const layout = layouts[stored];
  const isConverted = data instanceof Float32Array && (stored === "F16" || stored === "BF16");
  if (
    !layout ||
    (!isConverted && !(layout.make(new ArrayBuffer(0)).constructor === data.constructor))
  )
    throw new DiffusionError(
      "dtype",
      `${at}: expected values of ${stored}, got ${data.constructor.name}`,
    );
  return { name, dtype: stored, shape, data };
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

function* fileParts(
  plans: readonly TensorPlan[],
  metadata: Record<string, string>,
): Generator<Uint8Array> {
  const header: [string, unknown][] =
    Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  let begin = 0;
  for (const { name, dtype, shape, data } of plans) {
    const end = begin + data.length * layouts[dtype].bytes;
    header.push([name, { dtype, shape, data_offsets: [begin, end] }]);
    begin = end;
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)));
  const padded = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, " ");
  padded.writeBigUInt64LE(BigInt(padded.length - 8));
  json.copy(padded, 8);
  yield padded;
  for (const plan of plans) yield* dataParts(plan);
}

// A megabyte of values at a time: the writer awaits between parts, so conversion does not hold the
// event loop.
function* dataParts({ dtype, data }: TensorPlan): Generator<Uint8Array> {
  const step = 1 << 20;
  const convert = dtype === "F16" ? floatsToHalves : floatsToBfloats;
  for (let start = 0; start < data.length; start += step) {
    const part = data.subarray(start, start + step) as StoredArray;
    const stored = part instanceof Float32Array && dtype !== "F32" ? convert(part) : part;
    yield new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
  }
}
