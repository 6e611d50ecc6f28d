// Text chunks of PNG files (PNG specification, third edition, 11.3.3): generation settings travel
// inside the picture. sharp reads some of them and writes none, so the few bytes are handled here.
import { crc32, inflateSync } from "node:zlib";
import { DiffusionError } from "../errors.js";

const signature = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);
const maxTextBytes = 1 << 20;

interface Chunk {
  type: string;
  data: Uint8Array;
  start: number;
  end: number;
}

/** True when the bytes start as a PNG file does. */
export const isPng = (png: Uint8Array): boolean =>
  png.length >= 8 && signature.equals(png.subarray(0, 8));

function* chunksOf(png: Uint8Array, where = "png"): Generator<Chunk> {
  if (!isPng(png))
    throw new DiffusionError(
      "data",
      `${where}: expected a PNG signature, got ${describeStart(png)}`,
    );
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  for (let start = 8; start < png.length;) {
    if (start + 12 > png.length) throw truncated(where, start, png.length);
    const end = start + 12 + view.getUint32(start);
    if (end > png.length) throw truncated(where, start, png.length);
    const type = Buffer.from(png.subarray(start + 4, start + 8)).toString("latin1");
    yield { type, data: png.subarray(start + 8, end - 4), start, end };
    if (type === "IEND") return;
    start = end;
  }
}

const truncated = (where: string, offset: number, bytes: number): DiffusionError =>
  new DiffusionError(
    "data",
    `${where}: expected a whole chunk at byte ${offset}, got the end of the file at ${bytes}; ` +
      "the file is truncated",
  );

const describeStart = (bytes: Uint8Array): string =>
  bytes.length === 0 ? "no bytes" : `bytes ${Buffer.from(bytes.subarray(0, 8)).toString("hex")}`;

/**
 * Returns the PNG with one more iTXt chunk (UTF-8, uncompressed) after its header; an older one of
 * the key is dropped.
 */
export function withPngText(png: Uint8Array, key: string, text: string): Buffer {
  if (!/^[\x20-\x7e]{1,79}$/.test(key))
    throw new DiffusionError(
      "option",
      `png: expected a key of 1 to 79 ASCII characters, got "${key}"`,
    );
  const parts: Uint8Array[] = [signature];
  for (const chunk of chunksOf(png)) {
    if (readText(chunk)?.key !== key) parts.push(png.subarray(chunk.start, chunk.end));
    if (chunk.type === "IHDR") parts.push(textChunk(key, text));
  }
  return Buffer.concat(parts);
}

/** All tEXt, zTXt and iTXt texts of a PNG file by key; the last one of a key wins. `where` names it in errors. */
export function readPngTexts(png: Uint8Array, where?: string): Map<string, string> {
  const texts = new Map<string, string>();
  for (const chunk of chunksOf(png, where)) {
    const entry = readText(chunk);
    if (entry) texts.set(entry.key, entry.text);
  }
  return texts;
}

// iTXt: keyword 0 compressed(0) method(0) language 0 translated keyword 0 text.
function textChunk(key: string, text: string): Buffer {
  const body = Buffer.concat([
    Buffer.from("iTXt"),
    Buffer.from(key),
    Buffer.alloc(5),
    Buffer.from(text),
  ]);
  const chunk = Buffer.alloc(body.length + 8);
  chunk.writeUInt32BE(body.length - 4, 0);
  body.copy(chunk, 4);
  chunk.writeUInt32BE(crc32(body), body.length + 4);
  return chunk;
}

function readText({ type, data }: Chunk): { key: string; text: string } | undefined {
  if (type !== "tEXt" && type !== "zTXt" && type !== "iTXt") return undefined;
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const zero = bytes.indexOf(0);
  if (zero < 1) return undefined;
  const key = bytes.toString("latin1", 0, zero);
  if (type === "tEXt") return { key, text: bytes.toString("latin1", zero + 1) };
  if (type === "zTXt")
    return { key, text: inflate(bytes.subarray(zero + 2), key).toString("latin1") };
  const language = bytes.indexOf(0, zero + 3);
  const translated = language < 0 ? -1 : bytes.indexOf(0, language + 1);
  if (translated < 0) return undefined;
  const rest = bytes.subarray(translated + 1);
  return { key, text: (bytes[zero + 1] === 1 ? inflate(rest, key) : rest).toString("utf8") };
}

function inflate(bytes: Buffer, key: string): Buffer {
  try {
    return inflateSync(bytes, { maxOutputLength: maxTextBytes });
  } catch (cause) {
    throw new DiffusionError(
      "data",
      `png: expected a compressed text of at most ${maxTextBytes} bytes under "${key}", ` +
        `got ${(cause as Error).message}`,
      { cause },
    );
  }
}
