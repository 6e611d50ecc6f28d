// Writing files so that a reader sees the old file or the whole new one, never half of it:
// temporary name in the same folder, write, fsync, rename, fsync of the folder. A failed write
// leaves nothing behind and says why.
import { randomBytes } from "node:crypto";
import { rmdirSync, rmSync } from "node:fs";
import {
  access,
  constants,
  mkdir,
  open,
  readdir,
  rename,
  rmdir,
  stat,
  type FileHandle,
} from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { DiffusionError, throwIfAborted } from "../errors.js";

export type FileParts = Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

export interface AtomicWriteOptions {
  /** Name of the caller in error messages. Default "write". */
  where?: string;
  /** Error code of a failed write. Default "data". */
  code?: "data" | "checkpoint";
  /** Aborts between parts; nothing is left behind. */
  signal?: AbortSignal | undefined;
}

const advice: Record<string, [problem: string, whatToDo: string]> = {
  ENOSPC: ["a full disk", "free some space or choose another folder"],
  EDQUOT: ["an exhausted disk quota", "free some space or choose another folder"],
  EACCES: ["no permission to write there", "choose a folder you may write to"],
  EPERM: ["no permission to write there", "choose a folder you may write to"],
  EROFS: ["a read-only file system", "choose another folder"],
  EISDIR: ["a folder of that name", "choose another file name"],
  ENOENT: ["a place that takes no new files", "choose another folder"],
  ENOTDIR: ["a parent that is a file", "choose another folder"],
  EEXIST: ["a parent that is a file", "choose another folder"],
  EFBIG: [
    "a file size limit of the system",
    "raise the limit (ulimit -f) or choose another file system",
  ],
  ENAMETOOLONG: ["a name that is too long", "choose a shorter name"],
  EMFILE: ["too many open files", "raise the limit (ulimit -n)"],
};

/** Writes `data` to `path` atomically, creating parent folders. Throws DiffusionError with the reason and what to do. */
export async function writeFileAtomic(
  path: string,
  data: string | Uint8Array | FileParts,
  options: AtomicWriteOptions = {},
): Promise<void> {
  const { where = "write", code = "data", signal } = options;
  const parts =
    typeof data === "string" ? [Buffer.from(data)] : data instanceof Uint8Array ? [data] : data;
  try {
    await ensureFolder(dirname(path));
    await besides(path, async (temporary) => {
      const file = await open(temporary, "wx");
      try {
        await writeParts(file, parts, where, signal);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, path);
    });
  } catch (error) {
    throw asWriteError(error, where, code, path);
  }
  await syncFolder(dirname(path));
}

/** Writes files that belong together: `write` puts them elsewhere, and they get into the folder, `last` last, when all are whole. */
export async function writeTogether(
  folder: string,
  last: string,
  where: string,
  write: (parts: string) => Promise<void>,
): Promise<void> {
  await inFolder(folder, where, () =>
    besides(join(folder, last), async (parts) => {
      await write(parts);
      const names = (await readdir(parts)).filter((name) => name !== last);
      for (const name of [...names, last])
        await rename(join(parts, name), join(folder, name)).catch((error: unknown) => {
          throw asWriteError(error, where, "data", join(folder, name));
        });
      await rmdir(parts);
    }),
  );
  await syncFolder(folder);
}

/** Lets `work` use a name beside `path`, under which nothing stays when it fails. */
function besides(path: string, work: (temporary: string) => Promise<void>): Promise<void> {
  const random = randomBytes(4).toString("hex");
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.${random}.tmp`);
  return orUndo(
    () => rmSync(temporary, { recursive: true, force: true }),
    () => work(temporary),
  );
}

/** What an end of the process in the middle of work undoes, the latest first. */
const undos = new Set<() => void>();
const undoAll = (): void => [...undos].reverse().forEach((undo) => undo());

/** Undoes `work` when it fails, or when the process ends before it does. */
async function orUndo<T>(undo: () => void, work: () => Promise<T>): Promise<T> {
  if (undos.size === 0) process.once("exit", undoAll);
  undos.add(undo);
  try {
    return await work();
  } catch (error) {
    undo();
    throw error;
  } finally {
    undos.delete(undo);
    if (undos.size === 0) process.off("exit", undoAll);
  }
}

/** Makes a folder for what `work` puts there, with its parents; when that fails or the process ends, nothing empty stays. */
export async function inFolder<T>(
  folder: string,
  where: string,
  work: () => Promise<T>,
): Promise<T> {
  const made: string[] = [];
  const leave = (): void => {
    try {
      for (const path of made.toReversed()) rmdirSync(path);
    } catch {
      // not empty
    }
  };
  return orUndo(leave, async () => {
    try {
      await ensureFolder(resolve(folder), made);
      await access(folder, constants.W_OK);
    } catch (error) {
      throw asWriteError(error, where, "data", folder);
    }
    return work();
  });
}

/** Makes a folder and its parents and checks that files may be written there. */
export const makeFolder = (folder: string, where: string): Promise<void> =>
  inFolder(folder, where, () => Promise.resolve());

// Node's own recursive mkdir never returns for folders below /proc (ENOENT although the parent
// exists). Adds what it makes to `made`.
async function ensureFolder(folder: string, made: string[] = []): Promise<void> {
  if (await isFolder(folder)) return;
  if (dirname(folder) !== folder) await ensureFolder(dirname(folder), made);
  try {
    await mkdir(folder);
    made.push(folder);
  } catch (error) {
    if (!(await isFolder(folder))) throw error; // else another process was faster
  }
}

/** Whether there is a folder at `path`. */
export const isFolder = async (path: string): Promise<boolean> =>
  (await stat(path).catch(() => undefined))?.isDirectory() ?? false;

async function writeParts(
  file: FileHandle,
  parts: FileParts,
  where: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  for await (const part of parts) {
    throwIfAborted(signal, where);
    let done = 0;
    while (done < part.byteLength) {
      const { bytesWritten } = await file.write(part, done, part.byteLength - done);
      done += bytesWritten;
    }
  }
}

/** A failed write as one line with the reason and what to do. */
export function asWriteError(
  error: unknown,
  where: string,
  code: "data" | "checkpoint",
  path: string,
): DiffusionError {
  if (error instanceof DiffusionError) return error;
  const errno = (error as NodeJS.ErrnoException).code ?? "unknown error";
  const [problem, whatToDo] = advice[errno] ?? [(error as Error).message, "check the path"];
  return new DiffusionError(
    code,
    `${where}: expected to write "${path}", got ${problem} (${errno}); ${whatToDo}`,
    { cause: error },
  );
}

// A rename is durable once its folder is; some systems (Windows) cannot open folders, and then it
// is theirs to keep.
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r").catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}
