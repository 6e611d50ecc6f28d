// The directory of a zip archive (PKWARE APPNOTE.TXT 6.3.10, with zip64). Only places of entries that are stored without
// compression, as torch.save writes them, come out: nothing is extracted, so no name can lead anywhere.
import { crc32 } from "node:zlib";
import { allocate, fault, readAt, type ByteSource } from "./byte-source.js";

export interface ZipEntry {
  name: string;
  /** Of the content. */
  bytes: number;
  /** In the file: the same, unless it is compressed. */
  packed: number;
  /** 0: stored. Compressed entries can be listed, not read. */
  method: number;
  crc: number;
  /** First byte of the local header. */
  header: number;
  /** First byte that belongs to something else. */
  limit: number;
}

const signatures = {
  local: 0x04034b50,
  central: 0x02014b50,
  end: 0x06054b50,
  end64: 0x06064b50,
  locator64: 0x07064b50,
} as const;

const endBytes = 22;
const maxComment = 0xffff;
const maxDirectoryBytes = 1 << 26;
const maxEntries = 200_000;
const maxEntryName = 1000;

interface Directory {
  count: number;
  offset: number;
  bytes: number;
}

/** A 64-bit number that has to be a place in the file. */
function place(view: DataView, at: number, { where, size }: ByteSource, what: string): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(size)) throw fault(where, `${what} within the ${size} bytes`, `${value}`);
  return Number(value);
}

/** Reads the end of the archive: where its directory is. */
async function readEnd(source: ByteSource): Promise<Directory> {
  const { where, size } = source;
  const tailBytes = Math.min(size, endBytes + maxComment);
  const tail = new DataView(await readAt(source, size - tailBytes, tailBytes));
  let at = tailBytes - endBytes;
  while (
    at >= 0 &&
    !(
      tail.getUint32(at, true) === signatures.end &&
      at + endBytes + tail.getUint16(at + 20, true) === tailBytes
    )
  )
    --at;
  if (at < 0)
    throw fault(where, "the directory at the end of a zip archive", "none; the file is truncated");
  const is64 =
    tail.getUint16(at + 10, true) === 0xffff ||
    tail.getUint32(at + 12, true) === 0xffffffff ||
    tail.getUint32(at + 16, true) === 0xffffffff;
  if (is64) return readEnd64(source, size - tailBytes + at);
  if (tail.getUint16(at + 4, true) !== 0)
    throw fault(where, "an archive in one file", "one of several");
  return {
    count: tail.getUint16(at + 10, true),
    bytes: tail.getUint32(at + 12, true),
    offset: tail.getUint32(at + 16, true),
  };
}

async function readEnd64(source: ByteSource, end: number): Promise<Directory> {
  const { where, size } = source;
  const missing = (what: string): Error =>
    fault(where, `the zip64 ${what}`, "none; the file is damaged");
  if (end < 20) throw missing("locator");
  const locator = new DataView(await readAt(source, end - 20, 20));
  if (locator.getUint32(0, true) !== signatures.locator64) throw missing("locator");
  const at = place(locator, 8, source, "the zip64 directory");
  if (at + 56 > size) throw missing("directory");
  const record = new DataView(await readAt(source, at, 56));
  if (record.getUint32(0, true) !== signatures.end64) throw missing("directory");
  return {
    count: place(record, 32, source, "a number of entries"),
    bytes: place(record, 40, source, "a directory"),
    offset: place(record, 48, source, "a directory"),
  };
}

/** The entries by name. Throws "checkpoint" for a damaged or hostile archive. */
export async function readZip(source: ByteSource): Promise<Map<string, ZipEntry>> {
  const { where, size } = source;
  const { count, offset, bytes } = await readEnd(source);
  if (offset + bytes > size)
    throw fault(where, `a directory within the ${size} bytes`, `one to ${offset + bytes}`);
  if (bytes > maxDirectoryBytes || count > maxEntries)
    throw fault(
      where,
      `at most ${maxEntries} entries in ${maxDirectoryBytes} bytes`,
      `${count} in ${bytes}`,
    );
  const view = new DataView(await readAt(source, offset, bytes));
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < count; ++i) {
    const [entry, length] = readEntry(view, at, source);
    if (entries.has(entry.name))
      throw fault(where, "different names", `"${entry.name}" twice in the zip archive`);
    entries.set(entry.name, entry);
    at += length;
  }
  placeEntries([...entries.values()], offset, where);
  return entries;
}

function readEntry(view: DataView, at: number, source: ByteSource): [ZipEntry, number] {
  const { where } = source;
  if (at + 46 > view.byteLength || view.getUint32(at, true) !== signatures.central)
    throw fault(where, `a zip directory entry at ${at}`, "something else; the file is damaged");
  const nameBytes = view.getUint16(at + 28, true);
  const extraBytes = view.getUint16(at + 30, true);
  const length = 46 + nameBytes + extraBytes + view.getUint16(at + 32, true);
  if (at + length > view.byteLength)
    throw fault(where, "a whole zip directory entry", "the end of the directory");
  const flags = view.getUint16(at + 8, true);
  const name = entryName(new Uint8Array(view.buffer, at + 46, nameBytes), where);
  if (flags & 0x41) throw fault(where, `"${name}" unencrypted`, "an encrypted entry");
  const sizes = entrySizes(view, at, at + 46 + nameBytes, extraBytes, source);
  const method = view.getUint16(at + 10, true);
  const crc = view.getUint32(at + 16, true);
  return [{ name, ...sizes, method, crc, limit: 0 }, length];
}

/** A name without anything that could lead out of a folder, should somebody unpack the archive. */
function entryName(bytes: Uint8Array, where: string): string {
  const name = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");
  const shown = JSON.stringify(name.slice(0, 100));
  if (name.length > maxEntryName)
    throw fault(where, `entry names of at most ${maxEntryName} letters`, `${shown}…`);
  const isUnsafe =
    name === "" ||
    /[\0\\]|^\/|^[A-Za-z]:/.test(name) ||
    name.split("/").some((part) => part === ".." || part === ".");
  if (isUnsafe)
    throw fault(where, "entry names that stay inside the archive", `${shown} (zip slip)`);
  return name;
}

interface EntrySizes {
  bytes: number;
  packed: number;
  header: number;
}

/** Sizes and place of an entry; 0xffffffff refers to the zip64 extra field (APPNOTE 4.5.3). */
function entrySizes(
  view: DataView,
  at: number,
  extra: number,
  extraBytes: number,
  source: ByteSource,
): EntrySizes {
  const small = {
    bytes: view.getUint32(at + 24, true),
    packed: view.getUint32(at + 20, true),
    header: view.getUint32(at + 42, true),
  };
  let next = -1;
  let end = -1;
  for (let field = extra; field + 4 <= extra + extraBytes;) {
    const length = view.getUint16(field + 2, true);
    if (view.getUint16(field, true) === 1) [next, end] = [field + 4, field + 4 + length];
    field += 4 + length;
  }
  const wide = (value: number): number => {
    if (value !== 0xffffffff) return value;
    if (next < 0 || next + 8 > Math.min(end, extra + extraBytes))
      throw fault(source.where, "64-bit sizes of a zip entry", "none; the file is damaged");
    next += 8;
    return place(view, next - 8, source, "an entry");
  };
  return { bytes: wide(small.bytes), packed: wide(small.packed), header: wide(small.header) };
}

/** Sets where each entry has to end. Throws when two entries overlap or one reaches the directory. */
function placeEntries(entries: readonly ZipEntry[], directory: number, where: string): void {
  const sorted = [...entries].sort((a, b) => a.header - b.header);
  sorted.forEach((entry, i) => {
    const next = sorted[i + 1];
    entry.limit = next?.header ?? directory;
    if (entry.header + 30 + entry.packed <= entry.limit) return;
    throw fault(
      where,
      `"${entry.name}" with ${entry.packed} bytes to end before ${entry.limit}`,
      `an overlap with ${next ? `"${next.name}"` : "the directory"}; the file is damaged or hostile`,
    );
  });
}

/** First byte of an entry's data. Throws "checkpoint" when its local header says otherwise. */
export async function dataOffset(source: ByteSource, entry: ZipEntry): Promise<number> {
  const { where } = source;
  if (entry.method !== 0 || entry.packed !== entry.bytes)
    throw fault(
      where,
      `"${entry.name}" stored without compression, as torch.save does`,
      `compression method ${entry.method}; unpack the archive and pack it again with zip -0`,
    );
  const header = new DataView(await readAt(source, entry.header, 30));
  if (header.getUint32(0, true) !== signatures.local)
    throw fault(where, `"${entry.name}" at ${entry.header}`, "something else; the file is damaged");
  const names = header.getUint16(26, true);
  const offset = entry.header + 30 + names + header.getUint16(28, true);
  if (offset + entry.bytes > entry.limit)
    throw fault(
      where,
      `"${entry.name}" to end before ${entry.limit}`,
      `${offset + entry.bytes}; entries overlap, the file is damaged or hostile`,
    );
  const name = new Uint8Array(await readAt(source, entry.header + 30, names));
  if (entryName(name, where) !== entry.name)
    throw fault(where, `"${entry.name}" at ${entry.header}`, "another name; the file is damaged");
  return offset;
}

/** The bytes of a small entry, with its checksum compared (0: written without). */
export async function readZipEntry(
  source: ByteSource,
  entry: ZipEntry,
  maxBytes: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const { where } = source;
  if (entry.bytes > maxBytes)
    throw fault(where, `"${entry.name}" with at most ${maxBytes} bytes`, `${entry.bytes}`);
  const bytes = new Uint8Array(allocate(where, entry.bytes));
  await source.readInto(bytes, await dataOffset(source, entry));
  if (entry.crc !== 0 && crc32(bytes) !== entry.crc)
    throw fault(where, `"${entry.name}" with its checksum`, "another one; the file is damaged");
  return bytes;
}
