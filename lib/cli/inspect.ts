// `smalti inspect`: what a checkpoint holds, from its header alone.
import { statSync } from "node:fs";
import { Command } from "commander";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { DiffusionError } from "../errors.js";
import { readPipelineFile } from "../pipelines/pipeline.js";
import { formatBytes, result } from "./terminal.js";

interface Inspection {
  file: string;
  tensors: { name: string; dtype: string; shape: readonly number[] }[];
  parameters: number;
  bytes: number;
  metadata: Record<string, string>;
}

async function inspectFile(file: string): Promise<Inspection> {
  using opened = await openSafetensors(file);
  const tensors = [...opened.tensors.values()].map(({ name, dtype, shape }) => ({
    name,
    dtype,
    shape,
  }));
  const elements = tensors.map(({ shape }) => shape.reduce((a, b) => a * b, 1));
  return {
    file,
    tensors,
    parameters: elements.reduce((a, b) => a + b, 0),
    bytes: statSync(file).size,
    metadata: opened.metadata,
  };
}

function describe({ file, tensors, parameters, bytes, metadata }: Inspection): string {
  const width = Math.max(4, ...tensors.map(({ name }) => name.length));
  const rows = tensors.map(
    ({ name, dtype, shape }) => `  ${name.padEnd(width)}  ${dtype.padEnd(5)} [${shape.join(", ")}]`,
  );
  const notes = Object.entries(metadata).map(
    ([key, value]) => `  ${key}: ${value.length > 160 ? `${value.slice(0, 160)}…` : value}`,
  );
  return [
    `${file}: ${tensors.length} tensors, ${parameters.toLocaleString("en")} parameters, ${formatBytes(bytes)}`,
    ...notes,
    ...rows,
  ].join("\n");
}

export const inspect = new Command("inspect")
  .description(
    "Show what a checkpoint or a pipeline folder holds: keys, shapes, dtypes, parameters.",
  )
  .argument("<file>", ".safetensors file or pipeline folder")
  .option("--json", "print only JSON on stdout")
  .action(async (file: string, options: { json?: true }) => {
    const stat = statSync(file, { throwIfNoEntry: false });
    if (!stat)
      throw new DiffusionError(
        "checkpoint",
        `inspect: expected a file or folder, got ${file}, which does not exist`,
      );
    if (!stat.isDirectory()) {
      const inspection = await inspectFile(file);
      return result(inspection, describe(inspection), options.json);
    }
    const pipeline = await readPipelineFile(file);
    const parts = await Promise.all(
      Object.values(pipeline.components).map((component) =>
        inspectFile(`${file}/${component.weights}`),
      ),
    );
    const head = `${file}: pipeline "${pipeline.name}" (${pipeline.kind}), components ${Object.keys(pipeline.components).join(", ")}`;
    result({ pipeline, parts }, [head, ...parts.map(describe)].join("\n\n"), options.json);
  });
