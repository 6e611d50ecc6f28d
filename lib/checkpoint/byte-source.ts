// Bytes read at offsets: of an open file, or of memory.
import { open, type FileHandle } from "node:fs/promises";
import { DiffusionError } from "../errors.js";

/** A fault of a file, code "checkpoint". */
export const fault = (
  where: string,
  expected: string,
  got: string,
  cause?: unknown,
): DiffusionError =>
  new DiffusionError("checkpoint", `${where}: expected ${expected}, got ${got}`, { cause });

export interface ByteSource {
  /** Names the file in messages. */
  readonly where: string;
  readonly size: number;
  /** Fills `target` with the bytes from `offset`. Throws "checkpoint" when there are fewer. */
  readInto(target: Uint8Array, offset: number): Promise<void>;
  close(): Promise<void>;
}

const readChunkBytes = 1 << 28;

class FileSource implements ByteSource {
  #file: FileHandle | undefined;

  constructor(
    readonly where: string,
    readonly size: number,
    file: FileHandle,
  ) {
    this.#file = file;
  }

  async readInto(target: Uint8Array, offset: number): Promise<void> {
    if (!this.#file) throw fault(this.where, "an open file", "a closed one");
    for (let done = 0; done < target.length;) {
      const wanted = Math.min(target.length - done, readChunkBytes);
      const { bytesRead } = await this.#file
        .read(target, done, wanted, offset + done)
        .catch((cause: Error) => {
          throw fault(this.where, `${target.length} bytes at ${offset}`, cause.message, cause);
        });
      if (bytesRead === 0)
        throw fault(
          this.where,
          `${target.length} bytes at ${offset}`,
          `the end of the file after ${done}; was it changed meanwhile?`,
        );
      done += bytesRead;
    }
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }
}

/** Opens a file for reading at offsets. Throws "checkpoint" when there is no readable file. */
export async function openFile(path: string, what = "file"): Promise<ByteSource> {
  const file = await open(path, "r").catch((cause: NodeJS.ErrnoException) => {
    const reason = cause.code === "ENOENT" ? "no such file" : cause.message;
    throw fault(path, `a readable ${what}`, reason, cause);
  });
  const stat = await file.stat();
  if (stat.isFile()) return new FileSource(path, stat.size, file);
  await file.close();
  throw fault(path, `a readable ${what}`, stat.isDirectory() ? "a folder" : "no regular file");
}

/** Bytes in memory as a source. */
export const memorySource = (where: string, bytes: Uint8Array): ByteSource => ({
  where,
  size: bytes.length,
  async readInto(target, offset) {
    if (offset < 0 || offset + target.length > bytes.length)
      throw fault(where, `${target.length} bytes at ${offset}`, `only ${bytes.length} bytes`);
    target.set(bytes.subarray(offset, offset + target.length));
  },
  async close() {},
});

/** A new buffer of bytes from `offset`. Throws "memory" when there is no such memory. */
export async function readAt(
  source: ByteSource,
  offset: number,
  bytes: number,
): Promise<ArrayBuffer> {
  const buffer = allocate(source.where, bytes);
  await source.readInto(new Uint8Array(buffer), offset);
  return buffer;
}

/** A buffer, or an error of code "memory". */
export function allocate(where: string, bytes: number): ArrayBuffer {
  try {
    return new ArrayBuffer(bytes);
  } catch (cause) {
    throw new DiffusionError(
      "memory",
      `${where}: expected ${bytes} bytes of memory, got none that large`,
      { cause },
    );
  }
}
