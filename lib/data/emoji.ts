// Builds the captioned emoji set: the same things in three drawing styles, from four packages that
// npm installs into the cache on request. Licences of the artwork are in docs/data.md and in the
// index that is written.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readdir, readFile, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { checkOptions, DiffusionError } from "../errors.js";
import { makeFolder, writeFileAtomic } from "../files/atomic-write.js";
import { decodeImage } from "../image/image-io.js";
import {
  emojiStyles,
  imagesFile,
  indexFile,
  readEmojiIndex,
  type EmojiEntry,
  type EmojiIndex,
  type EmojiPicture,
  type EmojiSource,
} from "./emoji-pack.js";
import {
  captionsOf,
  charactersOf,
  familyOf,
  isHeldOut,
  keywordsOf,
  type Annotation,
  type EmojiRow,
} from "./emoji-words.js";

const sources: EmojiSource[] = [
  {
    package: "emoji-datasource-google",
    version: "16.0.0",
    content: "Noto emoji, style google",
    licence: "Apache-2.0",
  },
  {
    package: "emoji-datasource-twitter",
    version: "16.0.0",
    content: "Twemoji, style twitter",
    licence: "CC-BY-4.0",
  },
  {
    package: "@lobehub/fluent-emoji-3d",
    version: "1.1.0",
    content: "Fluent emoji 3D, style fluent",
    licence: "MIT",
  },
  {
    package: "cldr-annotations-full",
    version: "48.2.0",
    content: "names and keywords",
    licence: "Unicode-3.0",
  },
];

export interface BuildEmojiOptions {
  /** Folder for the set. Default $SMALTI_CACHE, else "smalti" in the user's cache folder. */
  cacheDir?: string;
  /** Edge of the pictures in pixels, 16 to 64 (two of the styles are drawn at 64). Default 64. */
  size?: number;
  onProgress?: (event: EmojiProgress) => void;
  signal?: AbortSignal;
  /** Keep the installed packages (about 230 MB) next to the set. Default false. */
  keepPackages?: boolean;
  /** Build again although the set exists. Default false. */
  rebuild?: boolean;
}

export interface EmojiProgress {
  stage: "install" | "decode" | "done";
  /** Packages while installing (0 before, all after), pictures while decoding. */
  done: number;
  total: number;
}

/** What was built; open it with openEmojiDataset(path). */
export interface BuiltEmoji {
  path: string;
  images: number;
  emoji: number;
  /** Emoji in no training picture. */
  heldOut: number;
  styles: string[];
}

interface Job extends EmojiPicture {
  path: string;
}

// What the decoder met: pictures that were written, and a digest of each.
interface Seen {
  pictures: EmojiPicture[];
  digests: string[];
}

/** $SMALTI_CACHE, else "smalti" in the user's cache folder. */
export function defaultCacheDir(): string {
  const { SMALTI_CACHE, XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  if (SMALTI_CACHE) return resolve(SMALTI_CACHE);
  if (process.platform === "win32" && LOCALAPPDATA) return join(LOCALAPPDATA, "smalti", "cache");
  if (process.platform === "darwin") return join(homedir(), "Library", "Caches", "smalti");
  return join(XDG_CACHE_HOME ?? join(homedir(), ".cache"), "smalti");
}

/** Where buildEmojiDataset puts the set of a size. */
export const emojiFolder = (cacheDir = defaultCacheDir(), size = 64): string =>
  join(cacheDir, `emoji-${size}`);

const optionNames = ["cacheDir", "size", "onProgress", "signal", "keepPackages", "rebuild"];

/**
 * Builds the set once and returns where it lies; the next call finds it. Needs npm and a registry
 * the first time. Throws DiffusionError "data" when npm fails, "aborted" on the signal.
 */
export async function buildEmojiDataset(options: BuildEmojiOptions = {}): Promise<BuiltEmoji> {
  checkOptions("buildEmojiDataset", options, optionNames);
  const { cacheDir = defaultCacheDir(), size = 64, onProgress, signal } = options;
  if (!Number.isInteger(size) || size < 16 || size > 64)
    throw new DiffusionError(
      "option",
      `buildEmojiDataset: expected a size from 16 to 64 pixels, got ${size}`,
    );
  const folder = emojiFolder(cacheDir, size);
  const existing = options.rebuild
    ? undefined
    : await readEmojiIndex(folder).catch(() => undefined);
  if (existing) return summary(folder, existing);

  const packages = join(cacheDir, "npm");
  onProgress?.({ stage: "install", done: 0, total: sources.length });
  await installPackages(packages, signal);
  onProgress?.({ stage: "install", done: sources.length, total: sources.length });
  const { emoji, jobs, ...names } = await readSources(join(packages, "node_modules"));
  const seen: Seen = { pictures: [], digests: [] };
  const parts = decodeAll(jobs, size, seen, (done) =>
    onProgress?.({ stage: "decode", done, total: jobs.length }),
  );
  await writeFileAtomic(join(folder, imagesFile), parts, { where: "emoji set", signal });
  releaseTwins(emoji, seen);
  const index: EmojiIndex = {
    format: "smalti-emoji",
    version: 1,
    size,
    sources,
    styles: [...emojiStyles],
    ...names,
    emoji,
    pictures: seen.pictures,
  };
  await writeFileAtomic(join(folder, indexFile), JSON.stringify(index), { where: "emoji set" });
  if (!options.keepPackages) await rm(packages, { recursive: true, force: true });
  onProgress?.({ stage: "done", done: jobs.length, total: jobs.length });
  return summary(folder, index);
}

const summary = (path: string, { pictures, emoji, styles }: EmojiIndex): BuiltEmoji => ({
  path,
  images: pictures.length,
  emoji: emoji.length,
  heldOut: emoji.filter((entry) => entry.heldOut).length,
  styles,
});

const specOf = (source: EmojiSource): string => `${source.package}@${source.version}`;

async function installPackages(prefix: string, signal: AbortSignal | undefined): Promise<void> {
  if (await areInstalled(join(prefix, "node_modules"))) return;
  await makeFolder(prefix, "buildEmojiDataset");
  const flags = [
    "--no-save",
    "--ignore-scripts",
    "--omit=peer",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
  ];
  const args = ["install", "--prefix", prefix, ...flags, ...sources.map(specOf)];
  const { code, output } = await runNpm(args, prefix, signal);
  if (code === 0) return;
  const reason = output.trim().split("\n").slice(0, 4).join(" | ");
  throw new DiffusionError(
    "data",
    `emoji set: expected npm to install ${sources.map(specOf).join(", ")}, got exit code ` +
      `${code} (${reason}); check the registry, or run by hand: npm ${args.join(" ")}`,
  );
}

async function areInstalled(modules: string): Promise<boolean> {
  const versions = await Promise.all(
    sources.map(async ({ package: name, version }) => {
      const text = await readFile(join(modules, name, "package.json"), "utf8").catch(() => "{}");
      return (JSON.parse(text) as { version?: string }).version === version;
    }),
  );
  return versions.every(Boolean);
}

function runNpm(
  args: string[],
  cwd: string,
  signal: AbortSignal | undefined,
): Promise<{ code: number; output: string }> {
  return new Promise((done, fail) => {
    const isWindows = process.platform === "win32"; // npm is a .cmd there, which only a shell starts
    const quoted = isWindows ? args.map((arg) => `"${arg}"`) : args;
    const npm = spawn(isWindows ? "npm.cmd" : "npm", quoted, {
      cwd,
      shell: isWindows,
      stdio: ["ignore", "pipe", "pipe"],
      ...(signal && { signal }),
    });
    let output = "";
    const collect = (text: Buffer): void => void (output = (output + text.toString()).slice(-4000));
    npm.stdout.on("data", collect);
    npm.stderr.on("data", collect);
    npm.on("close", (code) => done({ code: code ?? -1, output }));
    npm.on("error", (cause) =>
      fail(
        cause.name === "AbortError"
          ? new DiffusionError("aborted", "emoji set: aborted while npm was installing", { cause })
          : new DiffusionError(
              "data",
              `emoji set: expected to run npm, got ${cause.message}; install npm, or put ` +
                `the packages under ${cwd} by hand`,
              { cause },
            ),
      ),
    );
  });
}

async function readJson<T>(path: string): Promise<T> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as T;
  } catch (cause) {
    throw new DiffusionError(
      "data",
      `emoji set: expected JSON in "${path}", got ${(cause as Error).message}; delete the ` +
        "folder and build again",
      { cause },
    );
  }
}

interface Sources {
  emoji: EmojiEntry[];
  categories: string[];
  subcategories: string[];
  jobs: Job[];
}

async function readSources(modules: string): Promise<Sources> {
  const rows = await readJson<EmojiRow[]>(join(modules, "emoji-datasource-google", "emoji.json"));
  const cldr = await readJson<{ annotations: { annotations: Record<string, Annotation> } }>(
    join(modules, "cldr-annotations-full", "annotations", "en", "annotations.json"),
  );
  const shown = rows
    .filter((row) => row.category !== "Component")
    .sort((a, b) => (a.unified < b.unified ? -1 : 1));
  const categories = [...new Set(shown.map((row) => row.category))].sort();
  const subcategories = [...new Set(shown.map((row) => row.subcategory))].sort();
  const emoji = shown.map((row): EmojiEntry => {
    const character = charactersOf(row.unified);
    const annotation = cldr.annotations.annotations[character.replace(/\ufe0f/g, "")];
    const captions = captionsOf(row, annotation);
    const family = familyOf(row.unified);
    const keywords = keywordsOf(annotation, captions);
    const category = categories.indexOf(row.category);
    const subcategory = subcategories.indexOf(row.subcategory);
    return {
      unified: row.unified,
      character,
      family,
      category,
      subcategory,
      heldOut: isHeldOut(family),
      captions,
      keywords,
    };
  });
  return { emoji, categories, subcategories, jobs: await listPictures(modules, shown) };
}

// Every picture that exists, style by style. Skin-tone variants of one emoji weigh together as much
// as the emoji itself.
async function listPictures(modules: string, rows: readonly EmojiRow[]): Promise<Job[]> {
  const folders = [
    join(modules, "emoji-datasource-google", "img", "google", "64"),
    join(modules, "emoji-datasource-twitter", "img", "twitter", "64"),
    join(modules, "@lobehub", "fluent-emoji-3d", "assets"),
  ];
  const jobs: Job[] = [];
  for (const [style, folder] of folders.entries()) {
    const files = new Map((await readdir(folder)).map((file) => [keyOf(file), join(folder, file)]));
    rows.forEach((row, emoji) => {
      const add = (image: string, tone: string, weight: number): void => {
        const path = files.get(keyOf(image));
        if (path) jobs.push({ emoji, style, tone, weight, path });
      };
      add(row.image, "", 1);
      const variants = Object.entries(row.skin_variations ?? {});
      for (const [tone, { image }] of variants) add(image, tone, 1 / variants.length);
    });
  }
  return jobs;
}

// Packages disagree about the invisible variation selector in file names.
const keyOf = (file: string): string => file.replace(/\.\w+$/, "").replace(/-fe0f/g, "");

// Eight at a time keeps sharp's threads busy; the order of the output is the order of the jobs. A
// skin-tone variant that was drawn exactly as the emoji itself is left out, for its caption would
// be untrue.
async function* decodeAll(
  jobs: readonly Job[],
  size: number,
  seen: Seen,
  onDone: (done: number) => void,
): AsyncGenerator<Uint8Array> {
  const atOnce = 8;
  let plain = "";
  for (let start = 0; start < jobs.length; start += atOnce) {
    const group = jobs.slice(start, start + atOnce);
    const images = await Promise.all(
      group.map(({ path }) => decodeImage(path, { size, fit: "contain" })),
    );
    for (const [i, { data }] of images.entries()) {
      const { emoji, style, tone, weight } = group[i]!;
      const digest = createHash("sha256").update(data).digest("base64");
      if (tone === "") plain = digest;
      else if (digest === plain) continue;
      seen.pictures.push({ emoji, style, tone, weight });
      seen.digests.push(digest);
      yield data;
    }
    onDone(start + group.length);
  }
}

// Some families share a picture (the flag of Spain is also that of Ceuta): those go to training
// together, until nothing that is held out can be seen there.
function releaseTwins(emoji: EmojiEntry[], { pictures, digests }: Seen): void {
  const isHeld = (picture: EmojiPicture): boolean => emoji[picture.emoji]!.heldOut;
  for (let released = true; released;) {
    const trained = new Set(digests.filter((_, i) => !isHeld(pictures[i]!)));
    const twins = pictures.filter((picture, i) => isHeld(picture) && trained.has(digests[i]!));
    const families = new Set(twins.map((picture) => emoji[picture.emoji]!.family));
    for (const entry of emoji) if (families.has(entry.family)) entry.heldOut = false;
    released = families.size > 0;
  }
}
