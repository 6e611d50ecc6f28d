// A pipeline is a folder: pipeline.json (what it is, configurations, provenance) and one weights file per component.
import { existsSync } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { DiffusionError, nearestName } from "../errors.js";
import { writeFileAtomic, writeTogether } from "../files/atomic-write.js";
import {
  checkFields,
  object,
  oneOf,
  optional,
  recordOf,
  shown,
  text,
  type Rules,
} from "../models/check-config.js";
import { version } from "../version.js";

export interface ComponentFile {
  model: string;
  config: Record<string, unknown>;
  /** File of the weights, relative to the folder. */
  weights: string;
}

export interface PipelineFile {
  format: "smalti";
  formatVersion: 1;
  kind: string;
  name: string;
  /** Version of the code that wrote it. */
  code: string;
  components: Record<string, ComponentFile>;
  /** Everything else that the kind of pipeline needs: process, vocabulary file, conditions, defaults. */
  settings: Record<string, unknown>;
  /** Where the weights come from: commands, seeds, data, figures. */
  training?: Record<string, unknown>;
}

const fileName = "pipeline.json";
const maxFileBytes = 16 * 2 ** 20; // a real one has a few kilobytes

/** The folder `models/` of this package. */
export function packagedModels(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) {
    const parent = dirname(folder);
    if (parent === folder)
      throw new DiffusionError(
        "internal",
        "pipeline: expected package.json above the library, got none",
      );
    folder = parent;
  }
  return join(folder, "models");
}

/** Resolves a folder path, or the name of a pipeline in the package. Throws "checkpoint" with the nearest name. */
export async function pipelineFolder(folderOrName: string): Promise<string> {
  if (typeof folderOrName !== "string" || folderOrName === "")
    throw new DiffusionError(
      "option",
      `loadPipeline: expected the name or folder of a pipeline, got ${shown(folderOrName)}`,
    );
  if (existsSync(join(folderOrName, fileName))) return resolve(folderOrName);
  const packaged = packagedModels();
  if (/^[\w.-]+$/.test(folderOrName) && existsSync(join(packaged, folderOrName, fileName))) {
    return join(packaged, folderOrName);
  }
  const names = (existsSync(packaged) ? await readdir(packaged) : []).filter((name) =>
    existsSync(join(packaged, name, fileName)),
  );
  const near = nearestName(folderOrName, names);
  throw new DiffusionError(
    "checkpoint",
    `loadPipeline: expected a folder with ${fileName} or one of ${names.join(", ") || "(no packaged models)"}, got "${folderOrName}"${near ? `; did you mean "${near}"?` : ""}`,
  );
}

/** Reads and checks pipeline.json of a folder. */
export async function readPipelineFile(folder: string): Promise<PipelineFile> {
  const path = join(folder, fileName);
  let value: unknown;
  try {
    const { size } = await stat(path);
    if (size > maxFileBytes) throw new Error(`${size} bytes, more than ${maxFileBytes}`);
    value = JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    throw new DiffusionError(
      "checkpoint",
      `${path}: expected a JSON file, got ${(cause as Error).message}`,
      { cause },
    );
  }
  return checkPipelineFile(path, value);
}

const fileRules: Rules = {
  format: oneOf("smalti"),
  formatVersion: (value) =>
    value === 1 ? undefined : "1 (a newer smalti may have written this file)",
  kind: text(64),
  name: text(256),
  code: text(64),
  components: recordOf(object, 64),
  settings: object,
  training: optional(object),
};

const componentRules: Rules = {
  model: text(64),
  config: object,
  weights: (value) =>
    typeof value === "string" && /^[\w.-]{1,200}\.safetensors$/.test(value)
      ? undefined
      : "the name of a .safetensors file in the folder",
};

function checkPipelineFile(path: string, value: unknown): PipelineFile {
  checkingFile(path, () => {
    checkFields(fileName, value, fileRules);
    for (const [name, component] of Object.entries((value as PipelineFile).components))
      checkFields(`components.${name.slice(0, 64)}`, component, componentRules);
  });
  return value as PipelineFile;
}

/** Runs `check`; a wrong configuration then counts as a fault of the file at `path`, code "checkpoint". */
export function checkingFile<T>(path: string, check: () => T): T {
  try {
    return check();
  } catch (cause) {
    if (!(cause instanceof DiffusionError) || cause.code !== "option") throw cause;
    throw new DiffusionError("checkpoint", `${path}: ${cause.message}`, { cause });
  }
}

/** Makes the folder of what `writeParts` puts into another one and of pipeline.json: all or nothing of it. */
export async function writePipelineFile(
  folder: string,
  file: Omit<PipelineFile, "format" | "formatVersion" | "code">,
  writeParts: (folder: string) => Promise<void>,
): Promise<void> {
  const where = "savePipeline";
  const whole: PipelineFile = { format: "smalti", formatVersion: 1, code: version, ...file };
  await writeTogether(folder, fileName, where, async (parts) => {
    await writeParts(parts);
    await writeFileAtomic(join(parts, fileName), `${JSON.stringify(whole, null, 2)}\n`, { where });
  });
}

/** The held-out pictures that a packaged pipeline carries for demonstrations. */
export async function heldOutImages(folder: string): Promise<string[]> {
  const pictures = join(folder, "held-out");
  if (!existsSync(pictures)) {
    throw new DiffusionError(
      "data",
      `${folder}: expected a folder held-out with pictures, got none; name another pipeline`,
    );
  }
  const names = (await readdir(pictures)).filter((name) => name.endsWith(".png")).sort();
  return names.map((name) => join(pictures, name));
}
