// A pipeline is a folder: pipeline.json (what it is, configurations, provenance) and one weights file per component.
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { DiffusionError, nearestName } from "../errors.js";
import { writeFileAtomic } from "../files/atomic-write.js";
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
  if (existsSync(join(folderOrName, fileName))) return resolve(folderOrName);
  const packaged = packagedModels();
  if (/^[\w.-]+$/.test(folderOrName) && existsSync(join(packaged, folderOrName, fileName))) {
    return join(packaged, folderOrName);
  }
  const names = existsSync(packaged) ? await readdir(packaged) : [];
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

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function checkPipelineFile(path: string, value: unknown): PipelineFile {
  const wrong = (expected: string, got: unknown): never => {
    throw new DiffusionError(
      "checkpoint",
      `${path}: expected ${expected}, got ${JSON.stringify(got)?.slice(0, 80)}`,
    );
  };
  if (!isObject(value)) return wrong("a JSON object", value);
  if (value["format"] !== "smalti") wrong('"format": "smalti"', value["format"]);
  if (value["formatVersion"] !== 1)
    wrong('"formatVersion": 1 (a newer smalti may have written this)', value["formatVersion"]);
  for (const key of ["kind", "name", "code"])
    if (typeof value[key] !== "string") wrong(`a string "${key}"`, value[key]);
  const { components, settings } = value;
  if (!isObject(components)) return wrong('an object "components"', components);
  if (!isObject(settings)) return wrong('an object "settings"', settings);
  for (const [name, component] of Object.entries(components)) {
    if (
      !isObject(component) ||
      typeof component["model"] !== "string" ||
      !isObject(component["config"])
    ) {
      return wrong(`"components.${name}" with model, config and weights`, component);
    }
    const weights = component["weights"];
    if (typeof weights !== "string" || !/^[\w.-]+\.safetensors$/.test(weights)) {
      wrong(
        `"components.${name}.weights" to be the name of a .safetensors file in the folder`,
        weights,
      );
    }
  }
  return value as unknown as PipelineFile;
}

/** Makes the folder, lets `writeParts` fill it, and writes pipeline.json last: a folder that has one is complete. */
export async function writePipelineFile(
  folder: string,
  file: Omit<PipelineFile, "format" | "formatVersion" | "code">,
  writeParts: () => Promise<void>,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeParts();
  const whole: PipelineFile = { format: "smalti", formatVersion: 1, code: version, ...file };
  await writeFileAtomic(
    join(folder, fileName),
    Buffer.from(`${JSON.stringify(whole, null, 2)}\n`),
    {
      where: "savePipeline",
    },
  );
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
