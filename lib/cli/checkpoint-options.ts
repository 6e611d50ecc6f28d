// What inspect and convert share: options that choose weights and give facts, opening every part of a folder, and the
// description of the models found.
import { type Command, Option } from "commander";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import {
  checkpointParts,
  isPipelineFolder,
  openCheckpoint,
  type OpenOptions,
} from "../checkpoint/open-checkpoint.js";
import { shown } from "../models/check-config.js";
import { parameterCount } from "../nn/module.js";
import { identify, type Identified } from "../pipelines/import-checkpoint.js";
import { given } from "../trainers/given.js";
import { collectNamed, withCommonOptions, type ProcessOptions } from "./options.js";

export interface CheckpointOptions extends ProcessOptions {
  set: Record<string, unknown>;
  family?: string;
  as?: string;
  config?: string;
  section?: string;
  part?: string;
  variant?: string;
  ema?: boolean;
}

const ineffective = { seed: "nothing is drawn", threads: "the core has nothing to do" };

export const withCheckpointOptions = (command: Command): Command =>
  withCommonOptions(command, ineffective)
    .addOption(
      new Option("--set <name=value>", "a fact that shapes do not show")
        .argParser(collectNamed)
        .default({}, "none"),
    )
    .option("--as <name>", "published configuration whose facts hold, e.g. f16-1024")
    .option("--config <file>", "configuration file of the original (.json, .yaml)")
    .option("--family <name>", "only this family of models")
    .option("--section <key>", "dictionary of the weights inside a file, e.g. model")
    .option("--part <name>", "one part of a pipeline folder, e.g. unet")
    .option("--variant <name>", "variant of the weights in a folder, e.g. fp16")
    .option("--ema", "only averaged weights (default: if there)")
    .option("--no-ema", "raw weights");

/** The models of a checkpoint, one of several or alone, with the facts of the command line. */
export function identifyAs(
  checkpoint: Checkpoint,
  options: CheckpointOptions,
  isPart: boolean,
): Identified[] {
  return identify(checkpoint, { facts: options.set, isPart, ...given(options, "family", "as") });
}

/** The checkpoint at a path, or one for each part of a pipeline folder. */
export async function openAll(path: string, options: CheckpointOptions): Promise<Checkpoint[]> {
  const chosen: OpenOptions = given(options, "variant", "config", "section", "ema", "part");
  if (chosen.part !== undefined || !(await isPipelineFolder(path)))
    return [await openCheckpoint(path, chosen)];
  const opened: Checkpoint[] = [];
  try {
    for (const name of await checkpointParts(path))
      opened.push(await openCheckpoint(path, { ...chosen, part: name }));
    return opened;
  } catch (error) {
    for (const checkpoint of opened) await checkpoint.close();
    throw error;
  }
}

/** Parameters of the configuration; undefined while facts are missing. */
export function parametersOf({ family, missing, config }: Identified): number | undefined {
  return Object.keys(missing).length === 0
    ? parameterCount(family.build(config).parameters)
    : undefined;
}

/** Facts that a pipeline of the model needs as well, unless a file of the original says them. */
function pipelineNeeds({ family: { pipeline }, missing, config }: Identified): string[] {
  if (!pipeline || Object.keys(missing).length > 0) return [];
  const decided = pipeline.decided?.(config) ?? {};
  return Object.entries(pipeline.facts)
    .filter(([name, fact]) => !("fixed" in fact) && !(name in decided))
    .map(([name, { what }]) => `  for a pipeline, if no file says it: ${name}, ${what}`);
}

/** A found model for people. */
export function describeModel(model: Identified, path: string): string {
  const { family, place, published, facts, missing, config } = model;
  const count = parametersOf(model);
  const needed = Object.entries(missing);
  const command = ["smalti convert", path, "OUT", ...needed.map(([name]) => `--set ${name}=…`)];
  const short = needed.length > 0 && published.length > 0 ? `, or --as ${published[0]}` : "";
  return [
    `${family.name}: ${family.title}${place ? `, below ${place}` : ""}`,
    ...(published.length === 0 ? [] : [`  published as ${published.join(" or ")}`]),
    ...(count === undefined ? [] : [`  ${count.toLocaleString("en")} parameters`]),
    ...Object.entries(config).map(([name, value]) => `  ${name}: ${shown(value)}`),
    ...facts.map(({ name, value, from }) => `  ${name} = ${shown(value)}: ${from}`),
    ...needed.map(([name, what]) => `  not in the tensors: ${name}, ${what}`),
    ...pipelineNeeds(model),
    `  ${command.join(" ")}${short}`,
  ].join("\n");
}
