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

export function startCli(
  args: readonly string[],
  cwd: string,
): { child: ChildProcess; finished: Promise<Finished> } {
  const child = spawn(process.execPath, [main, ...args], {
    cwd,
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
