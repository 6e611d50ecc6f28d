// Options that several commands share, and their parsing with errors that name the option.
import type { Command } from "commander";
import { InvalidArgumentError, Option } from "commander";
import { configureBackend } from "../runtime/device.js";

/** Parser of a whole number within bounds. */
export const wholeNumber =
  (low: number, high = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < low || value > high) {
      throw new InvalidArgumentError(`expected a whole number from ${low} to ${high}, got ${text}`);
    }
    return value;
  };

/** Parser of a number within bounds. */
export const realNumber =
  (low: number, high: number) =>
  (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !(value >= low && value <= high)) {
      throw new InvalidArgumentError(`expected a number from ${low} to ${high}, got ${text}`);
    }
    return value;
  };

export interface CommonOptions {
  json?: true;
  seed: number;
  threads?: number;
}

/** The option --seed, without a default. */
export const seedOption = (text = "seed of all randomness"): Option =>
  new Option("--seed <n>", text).argParser(wholeNumber(0));

/** Adds --seed (default 0), --threads and --json. */
export const withCommonOptions = (command: Command): Command =>
  withProcessOptions(command.addOption(seedOption().default(0)));

/** Adds --threads and --json. */
export const withProcessOptions = (command: Command): Command =>
  command
    .addOption(
      new Option("--threads <n>", "threads of the native core (default: all cores)").argParser(
        wholeNumber(1, 1024),
      ),
    )
    .option("--json", "print only JSON on stdout");

/** Applies the options that concern the whole process. */
export function applyCommonOptions({ threads }: Pick<CommonOptions, "threads">): void {
  if (threads !== undefined) configureBackend({ threads });
}
