// One way to open weights of any published form: safetensors, sharded or not, files of torch.save in both layouts, and
// folders of huggingface/diffusers and transformers.
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { checkOptions, DiffusionError } from "../errors.js";
import { isFolder } from "../files/atomic-write.js";
import { fault, openFile, readAt, type ByteSource } from "./byte-source.js";
import { Checkpoint, type FoundConfig, type PlacedTensor } from "./checkpoint.js";
import { configsBeside, readConfigFile } from "./config-files.js";
import { readSafetensorsHeader } from "./safetensors.js";
import { readTorchCheckpoint, type Selection } from "./torch-checkpoint.js";
import { isLegacyTorch } from "./torch-file.js";

export interface OpenOptions extends Selection {
  /** Part of a pipeline folder, e.g. "unet". */
  part?: string;
  /** Variant of the weights in a folder, e.g. "fp16"; default the one without a name. */
  variant?: string;
  /** Configuration file of the original; default what lies beside the weights. */
  config?: string;
}

const optionNames = ["section", "ema", "part", "variant", "config"];

/**
 * Opens a checkpoint file or folder: names, shapes and types are read and checked, values are not.
 * Throws "checkpoint" with the reason for anything damaged, hostile or of another format.
 */
export async function openCheckpoint(path: string, options: OpenOptions = {}): Promise<Checkpoint> {
  checkOptions("openCheckpoint", options, optionNames);
  const { part, variant, config, ...selection } = options;
  const isInFolder = await isFolder(path);
  if (!isInFolder && part !== undefined)
    throw new DiffusionError("option", `${path}: expected a folder for part "${part}", got a file`);
  const file = isInFolder ? await weightsFile(path, part, variant) : path;
  const opened = file.endsWith(".index.json")
    ? await openSharded(file, selection)
    : await openOne(file, selection);
  try {
    const beside = config
      ? { configs: [await readConfigFile(config)], notes: [] }
      : await configsBeside(file);
    return opened.with({
      configs: [...beside.configs, ...opened.configs],
      notes: [...(isInFolder ? [`weights of ${file}`] : []), ...opened.notes, ...beside.notes],
    });
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** What other files are, by their first bytes. */
const others: readonly (readonly [RegExp, string])[] = [
  [/^version https:\/\/git-lfs/, "a pointer of Git LFS; fetch the file itself (git lfs pull)"],
  [/^GGUF/, "a GGUF file; convert it back to safetensors first"],
  [/^\x89HDF/, "an HDF5 file (Keras or TensorFlow); convert it to safetensors first"],
  [/^\s*<(?:!doctype|html)/i, "a web page; download the file itself"],
  [/^\x93NUMPY/, "a single NumPy array"],
];

async function openOne(path: string, selection: Selection): Promise<Checkpoint> {
  const source = await openFile(path, "checkpoint");
  try {
    return await readOne(source, selection);
  } catch (error) {
    await source.close();
    throw error;
  }
}

const noSelection = (path: string, { section, ema }: Selection): void => {
  if (section === undefined && ema !== true) return;
  throw new DiffusionError(
    "option",
    `${path}: expected no ${section === undefined ? "ema" : "section"} for safetensors, which hold one set of weights; open the file that has the wanted one`,
  );
};

/** Reads an opened file by what its first bytes say. */
export async function readOne(source: ByteSource, selection: Selection = {}): Promise<Checkpoint> {
  const { where, size } = source;
  const head = new Uint8Array(await readAt(source, 0, Math.min(512, size)));
  const text = Buffer.from(head).toString("latin1");
  if (text.startsWith("PK\x03\x04") || text.startsWith("PK\x05\x06"))
    return new Checkpoint(where, await readTorchCheckpoint(source, true, selection));
  if (isLegacyTorch(head))
    return new Checkpoint(where, await readTorchCheckpoint(source, false, selection));
  const other = others.find(([pattern]) => pattern.test(text));
  if (other) throw fault(where, "safetensors or a file of torch.save", other[1]);
  const packed =
    head[0] === 0x1f && head[1] === 0x8b
      ? "a gzip archive; unpack it first"
      : text.slice(257, 262) === "ustar"
        ? "a tar archive; unpack it first"
        : head[0] === 0x80 && head[1]! >= 2 && head[1]! <= 5
          ? "a plain pickle, not a file of torch.save"
          : undefined;
  if (packed) throw fault(where, "safetensors or a file of torch.save", packed);
  const opened = await readSafetensorsHeader(source);
  noSelection(where, selection);
  return opened;
}

const maxIndexBytes = 1 << 26;
const maxShards = 1000;

/** The files of a sharded checkpoint by tensor. */
async function readIndex(path: string): Promise<Map<string, string>> {
  const { size } = await stat(path).catch((cause: Error) => {
    throw fault(path, "a readable index", cause.message, cause);
  });
  if (size > maxIndexBytes) throw fault(path, `at most ${maxIndexBytes} bytes`, String(size));
  let index: unknown;
  try {
    index = JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    throw fault(path, "a JSON index", (cause as Error).message.slice(0, 120), cause);
  }
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map))
    throw fault(path, "weight_map", "none");
  const files = new Map<string, string>();
  for (const [name, file] of Object.entries(map as Record<string, unknown>)) {
    const isPlain = typeof file === "string" && /^[\w.-]{1,200}$/.test(file) && !/^\.+$/.test(file);
    if (!isPlain)
      throw fault(
        path,
        `the name of a file beside it for "${name.slice(0, 100)}"`,
        `${(JSON.stringify(file) ?? "nothing").slice(0, 100)}, which could lead out of the folder`,
      );
    files.set(name, file);
  }
  return files;
}

async function openSharded(path: string, selection: Selection): Promise<Checkpoint> {
  const files = await readIndex(path);
  const names = [...new Set(files.values())].sort();
  if (names.length > maxShards) throw fault(path, `at most ${maxShards} files`, `${names.length}`);
  const shards = new Map<string, Checkpoint>();
  const close = async (): Promise<void> => {
    for (const shard of shards.values()) await shard.close();
  };
  try {
    for (const name of names) shards.set(name, await openOne(join(dirname(path), name), selection));
    const placed = new Map<string, PlacedTensor>();
    for (const [name, file] of files) placed.set(name, shards.get(file)!.placed(name));
    const stray = [...shards].flatMap(([file, shard]) =>
      shard.names.filter((name) => files.get(name) !== file),
    );
    const notes = [`${names.length} files by ${basename(path)}`];
    if (stray.length > 0)
      notes.push(`${stray.length} tensors that the index does not name, e.g. ${stray[0]}`);
    return new Checkpoint(path, { format: "sharded", tensors: placed, notes, close });
  } catch (error) {
    await close();
    throw error;
  }
}

const partName = /^[\w.-]{1,100}$/;

async function foldersIn(folder: string): Promise<string[]> {
  const folders: string[] = [];
  for (const name of (await readdir(folder)).sort())
    if (partName.test(name) && !/^\.+$/.test(name) && (await isFolder(join(folder, name))))
      folders.push(name);
  return folders;
}

/** Folders with weights below a folder, by name. */
export async function checkpointParts(folder: string): Promise<string[]> {
  const parts: string[] = [];
  for (const name of await foldersIn(folder))
    if ((await weightNames(join(folder, name))).length > 0) parts.push(name);
  return parts;
}

/**
 * Whether the models of a folder are its parts: there are some, and it has a model_index.json or no weights of its own.
 * Some published folders have an index and one model beside it.
 */
export async function isPipelineFolder(path: string): Promise<boolean> {
  if (!(await isFolder(path)) || (await checkpointParts(path)).length === 0) return false;
  const hasIndex = (await readdir(path)).includes("model_index.json");
  return hasIndex || (await weightNames(path)).length === 0;
}

const settingNames = ["scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json"];

/** Settings beside weights or in parts without any, such as a scheduler's. A file that cannot be read is an error. */
export async function partSettings(folder: string): Promise<FoundConfig[]> {
  const settings: FoundConfig[] = [];
  for (const name of [".", ...(await foldersIn(folder))]) {
    const files = await readdir(join(folder, name));
    for (const file of settingNames.filter((wanted) => files.includes(wanted)))
      settings.push(await readConfigFile(join(folder, name, file)));
  }
  return settings;
}

const weightEnding = /\.(?:safetensors|bin|pt|pth|ckpt)$/;
const notWeights = /^(?:training_args|optimizer|scheduler|random_states.*|rng_state.*)\.\w+$/;

async function weightNames(folder: string): Promise<string[]> {
  const names = (await readdir(folder)).sort();
  return names.filter(
    (name) =>
      (weightEnding.test(name) && !notWeights.test(name)) ||
      /\.(?:safetensors|bin)\.index(?:\.\w+)?\.json$/.test(name),
  );
}

interface Candidate {
  file: string;
  /** Name without shard, variant and ending. */
  base: string;
  variant: string | undefined;
  isIndex: boolean;
  isSafe: boolean;
}

const bases = [
  "diffusion_pytorch_model",
  "pytorch_model",
  "model",
  "learned_classifier_free_sampling_embeddings",
];

/** Reads a name such as diffusion_pytorch_model.fp16.safetensors; shards belong to their index. */
function candidateOf(file: string): Candidate[] {
  if (/-\d{5}-of-\d{5}\./.test(file)) return [];
  const isIndex = file.endsWith(".json");
  const whole = file.replace(/\.index(\.\w+)?\.json$/, "$1");
  const isSafe = file.includes(".safetensors");
  const stem = whole.replace(/\.(?:safetensors|bin|pt|pth|ckpt)(\.\w+)?$/, "$1");
  const base = bases.find((name) => stem === name || stem.startsWith(`${name}.`));
  const variant = base && stem.length > base.length ? stem.slice(base.length + 1) : undefined;
  return [{ file, base: base ?? stem, variant, isIndex, isSafe }];
}

/** The file of the weights in a folder. Throws "checkpoint" when it is not clear which one. */
async function weightsFile(
  folder: string,
  part: string | undefined,
  variant: string | undefined,
): Promise<string> {
  if (part !== undefined) {
    if (!partName.test(part) || /^\.+$/.test(part))
      throw new DiffusionError("option", `${folder}: expected the name of a part, got "${part}"`);
    if (!(await isFolder(join(folder, part)))) throw await noPart(folder, part);
    return weightsFile(join(folder, part), undefined, variant);
  }
  const candidates = (await weightNames(folder)).flatMap(candidateOf);
  if (candidates.length === 0) throw await noPart(folder, undefined);
  // A folder of one variant has no other to be mistaken for.
  const variants = new Set(candidates.map((candidate) => candidate.variant));
  const wanted = variant ?? (variants.size === 1 ? [...variants][0] : undefined);
  const fitting = candidates.filter((candidate) => candidate.variant === wanted);
  // safetensors before pickles, a known name before others, an index before a single file.
  const rank = ({ base, isSafe, isIndex }: Candidate): number =>
    (isSafe ? 0 : 4) + (bases.includes(base) ? 0 : 2) + (isIndex ? 0 : 1);
  const sorted = fitting.sort((a, b) => rank(a) - rank(b));
  const [best, second] = sorted;
  if (best && !(second && rank(second) === rank(best))) return join(folder, best.file);
  const names = candidates.map(({ file }) => file).join(", ");
  throw fault(
    folder,
    `one file of weights${variant === undefined ? "" : ` of variant ${variant}`}`,
    `${names}; ${best ? "name one of them" : "choose a variant"}`,
  );
}

async function noPart(folder: string, part: string | undefined): Promise<DiffusionError> {
  const parts = await checkpointParts(folder);
  const list = parts.length > 0 ? `parts ${parts.join(", ")}; name one` : "none";
  return fault(folder, part === undefined ? "weights" : `a part "${part}"`, list);
}
