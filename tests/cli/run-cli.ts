// Runs the built command as a user would, in a process of its own.
import { spawn, type ChildProcess } from "node:child_process";
import { join, resolve } from "node:path";

export const root = resolve(import.meta.dirname, "../..");
const main = join(root, "dist", "cli", "main.js");

export interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** With `preload`, a script runs before the command in the same process. */
export function startCli(
  args: readonly string[],
  cwd: string,
  preload?: string,
): { child: ChildProcess; finished: Promise<Finished> } {
  const first = preload ? ["--import", `data:text/javascript,${encodeURIComponent(preload)}`] : [];
  const child = spawn(process.execPath, [...first, main, ...args], {
    cwd,
    env: { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined }, // else colours by CI and the terminal
    stdio: ["ignore", "pipe", "pipe"],
  });
  const out = { stdout: "", stderr: "" };
  child.stdout.on("data", (text: Buffer) => (out.stdout += text.toString()));
  child.stderr.on("data", (text: Buffer) => (out.stderr += text.toString()));
  const finished = new Promise<Finished>((done) =>
    child.on("close", (code) => done({ code, ...out })),
  );
  return { child, finished };
}

export const runCli = (args: readonly string[], cwd: string): Promise<Finished> =>
  startCli(args, cwd).finished;
