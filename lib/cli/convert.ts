// `smalti convert`: a published checkpoint as a folder of ours.
import { basename } from "node:path";
import { Command, Option } from "commander";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { DiffusionError } from "../errors.js";
import { makeFolder } from "../files/atomic-write.js";
import { convertModels, type Identified } from "../pipelines/import-checkpoint.js";
import {
  identifyAs,
  openAll,
  withCheckpointOptions,
  type CheckpointOptions,
} from "./checkpoint-options.js";
import { interruptSignal, progress, result, say } from "./terminal.js";

interface ConvertOptions extends CheckpointOptions {
  dtype: "f32" | "f16" | "bf16";
  ignoreUnused?: true;
}

/** Every model of every opened file. Throws "checkpoint" when there is none, or two for the same tensors. */
function modelsOf(opened: readonly Checkpoint[], options: ConvertOptions): Identified[] {
  const models = opened.flatMap((checkpoint) => {
    const found = identifyAs(checkpoint, options, opened.length > 1);
    if (found.length === 0) say(`${checkpoint.path}: no known family of models; left out`);
    for (const note of checkpoint.notes) say(`${checkpoint.path}: ${note}`);
    return found;
  });
  const paths = opened.map(({ path }) => path).join(", ");
  if (models.length === 0)
    throw new DiffusionError(
      "checkpoint",
      `${paths}: expected a known family of models, got none; smalti inspect lists the tensors`,
    );
  for (const [i, model] of models.entries()) {
    const twin = models.find(
      ({ checkpoint, place }, j) =>
        j < i && checkpoint === model.checkpoint && place === model.place,
    );
    if (twin)
      throw new DiffusionError(
        "option",
        `${model.checkpoint.path}: expected one family for the same tensors, got ${twin.family.name} and ${model.family.name}; choose with --family`,
      );
  }
  return models;
}

export const convert = withCheckpointOptions(new Command("convert"))
  .summary("a published checkpoint as a folder of ours")
  .description("Write a published checkpoint as a folder of ours: pipeline.json and safetensors.")
  .argument("<in>", "checkpoint file or folder")
  .argument("<out>", "folder to write")
  .addOption(
    new Option("--dtype <type>", "element type of the weights")
      .choices(["f32", "f16", "bf16"])
      .default("f16"),
  )
  .option("--ignore-unused", "leave tensors out that the model does not have")
  .action(async (path: string, out: string, options: ConvertOptions) => {
    const signal = interruptSignal("stopping; nothing is written until a file is whole");
    const opened = await openAll(path, options);
    const bars: { stop(): void }[] = [];
    try {
      const models = modelsOf(opened, options);
      await makeFolder(out, "convert");
      let bar: ReturnType<typeof progress> | undefined;
      const components = await convertModels(out, basename(out), models, {
        dtype: options.dtype,
        ignoreUnused: options.ignoreUnused ?? false,
        signal,
        onProgress(done, total) {
          if (!bar) bars.push((bar = progress("convert", total)));
          bar.update(done + 1);
        },
      });
      const lines = models.flatMap(({ family, facts, published }, i) => [
        [
          `${Object.keys(components)[i]!}: ${family.title}`,
          ...(published.length > 0 ? [published.join(" or ")] : []),
        ].join(", "),
        ...facts.map(({ name, value, from }) => `  ${name} = ${JSON.stringify(value)}: ${from}`),
      ]);
      result({ folder: out, components }, [`${out}`, ...lines].join("\n"), options.json);
    } finally {
      for (const bar of bars) bar.stop();
      for (const checkpoint of opened) await checkpoint.close();
    }
  });
