// Configurations of the original beside a checkpoint or inside it: config.json, a project's yaml, hyper-parameters.
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { DiffusionError } from "../errors.js";
import { fault } from "./byte-source.js";
import type { FoundConfig } from "./checkpoint.js";
import { PickleObject, type PickleValue } from "./pickle-values.js";
import { parseYaml } from "./yaml.js";

const maxConfigBytes = 1 << 20;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Reads a .json, .yaml or .yml file. Throws "checkpoint" for anything else. */
export async function readConfigFile(path: string): Promise<FoundConfig> {
  const text = await readSmall(path);
  let value: unknown;
  try {
    value = /\.ya?ml$/i.test(path) ? parseYaml(text, path) : JSON.parse(text);
  } catch (cause) {
    if (cause instanceof DiffusionError) throw cause;
    throw fault(path, "JSON", (cause as Error).message.slice(0, 120), cause);
  }
  if (!isRecord(value)) throw fault(path, "a configuration with keys", "something else");
  return { where: path, value };
}

async function readSmall(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > maxConfigBytes)
      throw fault(path, `a configuration of at most ${maxConfigBytes} bytes`, String(size));
    return await readFile(path, "utf8");
  } catch (cause) {
    if (cause instanceof DiffusionError) throw cause;
    throw fault(path, "a readable configuration", (cause as Error).message, cause);
  }
}

const namesIn = async (folder: string): Promise<string[]> =>
  (await readdir(folder).catch(() => [])).sort();

/**
 * The configurations that lie beside a checkpoint: config.json, the file's name with .yaml or .json,
 * config.yaml, and the project file of a training run (../configs/*-project.yaml). A file that
 * cannot be read is told in `notes` only.
 */
export async function configsBeside(
  path: string,
): Promise<{ configs: FoundConfig[]; notes: string[] }> {
  const folder = dirname(path);
  const stem = basename(path, extname(path));
  const wanted = new Set(
    ["config.json", "config.yaml", "config.yml"].concat(
      [".yaml", ".yml", ".json"].map((extension) => stem + extension),
    ),
  );
  const beside = (await namesIn(folder)).filter((name) => wanted.has(name));
  const runs = join(dirname(folder), "configs");
  const projects = (await namesIn(runs)).filter((name) => /-project\.ya?ml$/.test(name));
  const files = [
    ...beside.map((name) => join(folder, name)),
    ...projects.slice(-1).map((name) => join(runs, name)),
  ];
  const configs: FoundConfig[] = [];
  const notes: string[] = [];
  for (const file of files) {
    try {
      configs.push(await readConfigFile(file));
    } catch (error) {
      notes.push(`left out: ${(error as Error).message}`);
    }
  }
  return { configs, notes };
}

const insideKeys = ["hyper_parameters", "hparams", "config", "args", "model_args", "cfg"];
const maxNodes = 100_000;
const maxDepth = 16;

/** Plain data of an unpickled value; objects by their state. What is no data is left out. */
export function plainValue(value: PickleValue): unknown {
  let left = maxNodes;
  const visit = (at: PickleValue, depth: number): unknown => {
    if (--left < 0 || depth > maxDepth) return undefined;
    if (at === null || typeof at === "boolean" || typeof at === "number") return at;
    if (typeof at === "string") return at.slice(0, 10_000);
    if (typeof at === "bigint") return Number(at);
    if (Array.isArray(at)) return at.slice(0, left).map((item) => visit(item, depth + 1));
    if (at instanceof PickleObject)
      return at.state instanceof Map
        ? visit(at.state, depth + 1)
        : visit(new Map(at.entries.slice(0, left)), depth + 1);
    if (!(at instanceof Map)) return undefined;
    const entries: [string, unknown][] = [];
    for (const [key, item] of at) {
      if (left < 0) break;
      if (typeof key === "string") entries.push([key, visit(item, depth + 1)]);
    }
    return Object.fromEntries(entries.filter(([, item]) => item !== undefined));
  };
  return visit(value, 0);
}

/** Hyper-parameters that a checkpoint carries. */
export function configsInside(root: PickleValue, where: string): FoundConfig[] {
  if (!(root instanceof Map)) return [];
  return insideKeys.flatMap((key) => {
    const inside = root.get(key);
    if (!(inside instanceof Map) && !(inside instanceof PickleObject)) return [];
    const value = plainValue(inside);
    return isRecord(value) && Object.keys(value).length > 0
      ? [{ where: `${where}: ${key}`, value }]
      : [];
  });
}
