// Options that several commands share, and their parsing with errors that name the option.
import type { Command } from "commander";
import { InvalidArgumentError, Option } from "commander";
import { configureBackend } from "../runtime/device.js";
import { say } from "./terminal.js";

/** Parser of a whole number within bounds. */
export const wholeNumber =
  (low: number, high = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isInteger(value) || value < low || value > high) {
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

/** Parser of name=value options that may be repeated; a value is JSON or else a text. */
export function collectNamed(
  text: string,
  values: Record<string, unknown>,
): Record<string, unknown> {
  const [, name, value] = /^([\w.-]+)=(.*)$/s.exec(text) ?? [];
  if (name === undefined) throw new InvalidArgumentError(`expected name=value, got ${text}`);
  try {
    return { ...values, [name]: JSON.parse(value!) as unknown };
  } catch {
    return { ...values, [name]: value };
  }
}

export interface ProcessOptions {
  json?: true;
  threads?: number;
}

export interface CommonOptions extends ProcessOptions {
  seed: number;
}

/** Why an option that every command takes changes nothing in one of them: shown in its help, and when it is given. */
export interface Ineffective {
  seed?: string;
  threads?: string;
}

/** The option --seed, without a default. */
export const seedOption = (text = "seed of all randomness"): Option =>
  new Option("--seed <n>", text).argParser(wholeNumber(0));

const threadsOption = (text = "threads of the native core (default: all cores)"): Option =>
  new Option("--threads <n>", text).argParser(wholeNumber(1, 1024));

const noEffect = (reason: string): string => `no effect here: ${reason}`;

/** Adds --seed (default 0), --threads and --json. */
export function withCommonOptions(command: Command, ineffective: Ineffective = {}): Command {
  const { seed } = ineffective;
  const option = seed === undefined ? seedOption().default(0) : seedOption(noEffect(seed));
  return withProcessOptions(command.addOption(option), ineffective);
}

/** Adds --threads and --json. */
export function withProcessOptions(command: Command, ineffective: Ineffective = {}): Command {
  const { threads } = ineffective;
  return command
    .addOption(threads === undefined ? threadsOption() : threadsOption(noEffect(threads)))
    .option("--json", "print only JSON on stdout")
    .hook("preAction", (_, action) => warnOfIneffective(action.opts(), ineffective));
}

function warnOfIneffective(given: Record<string, unknown>, ineffective: Ineffective): void {
  for (const [name, reason] of Object.entries(ineffective))
    if (given[name] !== undefined) say(`note: --${name} has ${noEffect(reason as string)}`);
}

/** Applies the options that concern the whole process. */
export function applyCommonOptions({ threads }: ProcessOptions): void {
  if (threads !== undefined) configureBackend({ threads });
}
