// What every command shares: results on stdout, progress on stderr, exit codes, Ctrl-C.
import { createRequire } from "node:module";
import type * as CliProgress from "cli-progress";
import colour from "picocolors";
import { DiffusionError, type ErrorCode } from "../errors.js";

/** Exit codes, printed by `smalti --help`. */
export const exitCodes = {
  ok: 0,
  failure: 1,
  usage: 2,
  data: 3,
  device: 4,
  interrupted: 130,
} as const;

const exitCodeOf: Record<ErrorCode, number> = {
  option: exitCodes.usage,
  shape: exitCodes.data,
  dtype: exitCodes.data,
  data: exitCodes.data,
  checkpoint: exitCodes.data,
  device: exitCodes.device,
  memory: exitCodes.device,
  numeric: exitCodes.failure,
  internal: exitCodes.failure,
  aborted: exitCodes.interrupted,
};

export interface Progress {
  update(done: number, total: number, text?: string): void;
  stop(): void;
}

/** What to stop when a command fails: a bar hides the cursor. */
const running = new Set<Progress>();

/** A bar on a terminal, at most one plain line every two seconds elsewhere. Always on stderr; it begins with its first update. */
export function progress(label: string): Progress {
  return process.stderr.isTTY ? barProgress(label) : lineProgress(label);
}

/** Its package is loaded only for a terminal. */
function barProgress(label: string): Progress {
  const require = createRequire(import.meta.url);
  const { SingleBar } = require("cli-progress") as typeof CliProgress;
  const bar = new SingleBar({
    format: `${label.padEnd(24)} ${colour.cyan("{bar}")} {value}/{total} {text}`,
    barCompleteChar: "█",
    barIncompleteChar: "·",
    hideCursor: true,
    stream: process.stderr,
  });
  const one: Progress = {
    update(done, total, text = "") {
      if (!running.has(one)) bar.start(total, done, { text });
      running.add(one);
      bar.setTotal(total);
      bar.update(done, { text });
    },
    stop() {
      if (running.delete(one)) bar.stop();
    },
  };
  return one;
}

function lineProgress(label: string): Progress {
  let last = 0;
  return {
    update(done, total, text = "") {
      const now = Date.now();
      if (done < total && now - last < 2000) return;
      last = now;
      process.stderr.write(`${label}: ${done}/${total}${text ? ` ${text}` : ""}\n`);
    },
    stop() {},
  };
}

/** A line for people: stderr when the result on stdout is JSON or a file list. */
export const say = (text: string): void => void process.stderr.write(`${text}\n`);

/** The result of a command: one JSON document with --json, else the given text, on stdout. */
export function result(value: unknown, text: string, json: boolean | undefined): void {
  process.stdout.write(json ? `${JSON.stringify(value, null, 2)}\n` : `${text}\n`);
}

/** A signal that aborts on the first Ctrl-C or SIGTERM; the second one ends the process at once. */
export function interruptSignal(message: string): AbortSignal {
  const controller = new AbortController();
  const onSignal = (): void => {
    if (controller.signal.aborted) process.exit(exitCodes.interrupted);
    say(message);
    controller.abort();
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return controller.signal;
}

/** Prints an error as one line (a stack only for our own faults) and sets the exit code. */
export function fail(error: unknown): void {
  running.forEach((bar) => bar.stop());
  if (error instanceof DiffusionError) {
    say(`${colour.red("error")} ${colour.dim(`[${error.code}]`)} ${error.message}`);
    if (error.code === "internal" && error.stack) say(error.stack);
    process.exitCode = exitCodeOf[error.code];
    return;
  }
  say(error instanceof Error ? (error.stack ?? error.message) : String(error));
  process.exitCode = exitCodes.failure;
}

/** Text of a byte count, e.g. 1.5 MB. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  const power =
    bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log(bytes) / Math.log(1000)));
  return `${(bytes / 1000 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}
