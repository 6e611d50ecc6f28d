// `smalti inspect`: what a checkpoint holds and which published model it is, from names and shapes alone.
import { statSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import type { Checkpoint, FoundConfig } from "../checkpoint/checkpoint.js";
import { partSettings } from "../checkpoint/open-checkpoint.js";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { DiffusionError } from "../errors.js";
import { shown } from "../models/check-config.js";
import type { Identified } from "../pipelines/import-checkpoint.js";
import { readPipelineFile } from "../pipelines/pipeline.js";
import {
  describeModel,
  identifyAs,
  openAll,
  parametersOf,
  withCheckpointOptions,
  type CheckpointOptions,
} from "./checkpoint-options.js";
import { formatBytes, result } from "./terminal.js";

interface InspectOptions extends CheckpointOptions {
  brief?: true;
}

interface Inspection {
  file: string;
  format: string;
  tensors: { name: string; dtype: string; shape: readonly number[] }[];
  /** Also when `tensors` is left out. */
  count: number;
  parameters: number;
  bytes: number;
  metadata: Readonly<Record<string, string>>;
  notes: readonly string[];
}

function inspection(checkpoint: Checkpoint, brief = false): Inspection {
  const { path: file, format, metadata, notes, tensors } = checkpoint;
  const infos = [...tensors.values()];
  return {
    file,
    format,
    tensors: brief ? [] : infos.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    count: infos.length,
    parameters: infos.reduce((sum, { elements }) => sum + elements, 0),
    bytes: infos.reduce((sum, { bytes }) => sum + bytes, 0),
    metadata,
    notes,
  };
}

function describe({
  file,
  tensors,
  count,
  parameters,
  bytes,
  metadata,
  ...rest
}: Inspection): string {
  const width = Math.max(4, ...tensors.map(({ name }) => name.length));
  const rows = tensors.map(
    ({ name, dtype, shape }) => `  ${name.padEnd(width)}  ${dtype.padEnd(5)} [${shape.join(", ")}]`,
  );
  const notes = Object.entries(metadata).map(
    ([key, value]) => `  ${key}: ${value.length > 160 ? `${value.slice(0, 160)}…` : value}`,
  );
  return [
    `${file}: ${rest.format}, ${count} tensors, ${parameters.toLocaleString("en")} parameters, ${formatBytes(bytes)}`,
    ...rest.notes.map((note) => `  ${note}`),
    ...notes,
    ...rows,
  ].join("\n");
}

/** The models of a file; our own files say themselves what they are. */
function modelsOf(
  checkpoint: Checkpoint,
  options: CheckpointOptions,
  isPart: boolean,
): Identified[] {
  if ("smalti.code" in checkpoint.metadata) return [];
  return identifyAs(checkpoint, options, isPart);
}

const plainModel = (model: Identified): object => ({
  family: model.family.name,
  title: model.family.title,
  place: model.place,
  published: model.published,
  config: model.config,
  facts: model.facts,
  missing: model.missing,
  parameters: parametersOf(model),
});

/** A scheduler with its numbers; of other settings, which are long, the class. */
function describeSettings({ where, value }: FoundConfig): string {
  const {
    _class_name: name,
    tokenizer_class: tokenizer,
    feature_extractor_type: extractor,
  } = value;
  const entries = Object.entries(value).filter(([key]) => !key.startsWith("_"));
  const numbers =
    name === undefined ? [] : entries.map(([key, item]) => `  ${key}: ${shown(item)}`);
  return [`${where}: ${String(name ?? tokenizer ?? extractor ?? "settings")}`, ...numbers].join(
    "\n",
  );
}

/** One of our own pipeline folders. */
async function inspectPipeline(folder: string, { json, brief }: InspectOptions): Promise<void> {
  const pipeline = await readPipelineFile(folder);
  const parts: Inspection[] = [];
  for (const { weights } of Object.values(pipeline.components)) {
    using checkpoint = await openSafetensors(join(folder, weights));
    parts.push(inspection(checkpoint, brief));
  }
  const head = `${folder}: pipeline "${pipeline.name}" (${pipeline.kind}), components ${Object.keys(pipeline.components).join(", ")}`;
  result({ pipeline, parts }, [head, ...parts.map(describe)].join("\n\n"), json);
}

export const inspect = withCheckpointOptions(new Command("inspect"))
  .summary("what a checkpoint or folder holds")
  .description(
    "Show what a checkpoint or folder holds: model, configuration, keys, shapes, dtypes, parameters.",
  )
  .argument("<path>", ".safetensors, .pt, .pth, .ckpt or .bin file, or a folder")
  .option("--brief", "leave the list of tensors out")
  .action(async (path: string, options: InspectOptions) => {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (!stat)
      throw new DiffusionError(
        "checkpoint",
        `inspect: expected a file or folder, got ${path}, which does not exist`,
      );
    if (stat.isDirectory() && statSync(join(path, "pipeline.json"), { throwIfNoEntry: false }))
      return inspectPipeline(path, options);
    const opened = await openAll(path, options);
    try {
      const reports = opened.map((checkpoint) => ({
        ...inspection(checkpoint, options.brief),
        models: modelsOf(checkpoint, options, opened.length > 1),
      }));
      const texts = reports.flatMap(({ models, ...file }, i) => [
        ...models.map((model) => describeModel(model, opened[i]!.path)),
        ...(models.length === 0 && !("smalti.code" in file.metadata)
          ? [`${file.file}: no known family of models`]
          : []),
        describe(file),
      ]);
      const plain = reports.map((report) => ({ ...report, models: report.models.map(plainModel) }));
      const isWhole = options.part === undefined && stat.isDirectory();
      const settings = isWhole ? await partSettings(path) : [];
      const others = settings.map(({ where, value }) => ({ file: where, format: "settings", settings: value })); // prettier-ignore
      const all = [...plain, ...others];
      texts.push(...settings.map(describeSettings));
      result(all.length === 1 ? all[0] : all, texts.join("\n\n"), options.json);
    } finally {
      for (const checkpoint of opened) await checkpoint.close();
    }
  });
