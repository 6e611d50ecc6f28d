// A folder of the user's own pictures: sub-folders are classes; captions come from a .txt file of
// the same name, or from captions.json, captions.jsonl or metadata.jsonl in the folder.
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, extname, join, relative, sep } from "node:path";
import { checkOptions, DiffusionError, throwIfAborted } from "../errors.js";
import { decodeImage, type DecodeOptions } from "../image/image-io.js";
import { chooseCaption, type ImageDataset } from "./dataset.js";

export interface ImageFolderOptions {
  /** Edge of the pictures that the model sees, or both edges. */
  size: number | { width: number; height: number };
  /** How other aspects are fitted. Default "crop". */
  fit?: DecodeOptions["fit"];
  /** Leave damaged files out instead of throwing; they are listed in `skipped`. Default false. */
  skipBad?: boolean;
  /** Decode all pictures when opening and keep them. Default: when they need at most 1 GiB. */
  preload?: boolean;
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

export interface ImageFolder extends ImageDataset {
  /** Paths of the pictures, relative to the folder, with "/". */
  readonly files: readonly string[];
  /** Files that were left out, and why. */
  readonly skipped: readonly { file: string; reason: string }[];
}

const endings = new Set([".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".avif"]);
const captionFiles = ["captions.json", "captions.jsonl", "metadata.jsonl"];
const preloadBytes = 1 << 30;
const decodeAtOnce = 8;

/**
 * Lists a folder and (by default) decodes it. Throws "data" when it is missing, empty or holds
 * damaged pictures.
 */
export async function openImageFolder(
  folder: string,
  options: ImageFolderOptions,
): Promise<ImageFolder> {
  checkOptions("openImageFolder", options, [
    "size",
    "fit",
    "skipBad",
    "preload",
    "onProgress",
    "signal",
  ]);
  const { size, fit = "crop", skipBad = false } = options;
  const { width, height } = typeof size === "number" ? { width: size, height: size } : size;
  const bytes = width * height * 3;
  const found = await listImages(folder);
  const { preload = found.length * bytes <= preloadBytes } = options;
  const decode = async (file: string): Promise<Uint8Array> =>
    (await decodeImage(join(folder, file), { size: { width, height }, fit })).data;

  const skipped: { file: string; reason: string }[] = [];
  const loaded =
    preload || skipBad ? await decodeAll(found, decode, skipped, options, preload) : undefined;
  if (skipped.length > 0 && (!skipBad || skipped.length === found.length))
    throw badFiles(folder, skipped, found.length);
  const bad = new Set(skipped.map(({ file }) => file));
  const files = found.filter((file) => !bad.has(file));

  const captions = await readCaptions(folder, found);
  const classes = classesOf(files);
  const captionsAt = (i: number): readonly string[] => captions.get(files[i]!) ?? [];
  return {
    name: folder,
    length: files.length,
    width,
    height,
    channels: 3,
    classes,
    files,
    skipped,
    pixels: (i) => loaded?.get(files[i]!) ?? decode(files[i]!),
    label: (i) => classes.indexOf(files[i]!.split("/")[0]!),
    captions: captionsAt,
    caption: (i, draw) => chooseCaption(captionsAt(i), draw),
    weight: () => 1,
  };
}

async function listImages(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(
    (cause: NodeJS.ErrnoException) => {
      const reason =
        { ENOENT: "no such folder", ENOTDIR: "a file" }[cause.code ?? ""] ?? cause.message;
      throw new DiffusionError(
        "data",
        `image folder: expected a folder at "${folder}", got ${reason}`,
        { cause },
      );
    },
  );
  const paths: string[] = [];
  for (const entry of entries) {
    if (entry.name.startsWith(".") || !endings.has(extname(entry.name).toLowerCase())) continue;
    const path = join(entry.parentPath, entry.name);
    const isFile =
      entry.isFile() ||
      (entry.isSymbolicLink() && (await stat(path).catch(() => undefined))?.isFile());
    if (isFile) paths.push(relative(folder, path).split(sep).join("/"));
  }
  if (paths.length === 0)
    throw new DiffusionError(
      "data",
      `image folder: expected pictures (${[...endings].join(" ")}) below "${folder}", got ${entries.length === 0 ? "an empty folder" : `${entries.length} other entries`}`,
    );
  return paths.sort();
}

async function decodeAll(
  files: readonly string[],
  decode: (file: string) => Promise<Uint8Array>,
  skipped: { file: string; reason: string }[],
  { signal, onProgress }: ImageFolderOptions,
  keep: boolean,
): Promise<Map<string, Uint8Array> | undefined> {
  const loaded = new Map<string, Uint8Array>();
  for (let start = 0; start < files.length; start += decodeAtOnce) {
    throwIfAborted(signal, "image folder");
    const group = files.slice(start, start + decodeAtOnce);
    const results = await Promise.allSettled(group.map(decode));
    results.forEach((result, i) => {
      if (result.status === "rejected")
        skipped.push({ file: group[i]!, reason: (result.reason as Error).message });
      else if (keep) loaded.set(group[i]!, result.value);
    });
    onProgress?.(start + group.length, files.length);
  }
  return keep ? loaded : undefined;
}

function badFiles(
  folder: string,
  bad: readonly { reason: string }[],
  total: number,
): DiffusionError {
  const shown = bad
    .slice(0, 5)
    .map(({ reason }) => `\n  ${reason}`)
    .join("");
  const more = bad.length > 5 ? `\n  and ${bad.length - 5} more` : "";
  return new DiffusionError(
    "data",
    `image folder: expected ${total} readable pictures in "${folder}", got ${bad.length} ` +
      `that are not; remove them or use skipBad${shown}${more}`,
  );
}

// Classes exist when every picture lies in a sub-folder.
function classesOf(files: readonly string[]): string[] {
  if (!files.every((file) => file.includes("/"))) return [];
  return [...new Set(files.map((file) => file.split("/")[0]!))].sort();
}

async function readCaptions(
  folder: string,
  files: readonly string[],
): Promise<Map<string, string[]>> {
  const captions = new Map<string, string[]>();
  const known = new Set(files);
  const add = (where: string, file: string, texts: unknown): void => {
    const list = [texts].flat();
    if (!known.has(file))
      throw new DiffusionError(
        "data",
        `${where}: expected the path of a picture in the folder, got "${file}"`,
      );
    if (list.length === 0 || !list.every((text) => typeof text === "string"))
      throw new DiffusionError(
        "data",
        `${where}: expected a text or a list of texts for "${file}", got ${JSON.stringify(texts)}`,
      );
    captions.set(file, [...(captions.get(file) ?? []), ...(list as string[])]);
  };
  for (const name of captionFiles) {
    const path = join(folder, name);
    const text = await readFile(path, "utf8").catch(() => undefined);
    if (text === undefined) continue;
    if (name.endsWith(".json"))
      for (const [file, texts] of Object.entries(parseObject(text, path))) add(path, file, texts);
    else
      for (const [where, row] of parseLines(text, path))
        add(where, String(row["file_name"] ?? row["file"] ?? ""), row["text"] ?? row["caption"]);
  }
  await readTextFiles(folder, files, captions);
  return captions;
}

// One caption a line; a .txt next to a picture adds to what the lists say.
async function readTextFiles(
  folder: string,
  files: readonly string[],
  captions: Map<string, string[]>,
): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const texts = entries.filter((entry) => entry.isFile() && entry.name.endsWith(".txt"));
  const byStem = new Map(
    texts.map((entry) => [
      join(entry.parentPath, basename(entry.name, ".txt")),
      join(entry.parentPath, entry.name),
    ]),
  );
  for (const file of files) {
    const path = byStem.get(join(folder, file.slice(0, -extname(file).length)));
    if (path === undefined) continue;
    const lines = (await readFile(path, "utf8")).split(/\r?\n/).map((line) => line.trim());
    captions.set(file, [...(captions.get(file) ?? []), ...lines.filter((line) => line !== "")]);
  }
}

function parseObject(text: string, where: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>;
    throw new Error("another JSON value");
  } catch (cause) {
    throw new DiffusionError(
      "data",
      `${where}: expected a JSON object, got ${(cause as Error).message}`,
      { cause },
    );
  }
}

function parseLines(text: string, path: string): [where: string, row: Record<string, unknown>][] {
  return text.split(/\r?\n/).flatMap((line, i): [string, Record<string, unknown>][] => {
    const where = `${path} line ${i + 1}`;
    return line.trim() === "" ? [] : [[where, parseObject(line, where)]];
  });
}
