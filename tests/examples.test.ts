// Every example runs as written.
import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const run = promisify(execFile);
const examples = resolve(import.meta.dirname, "../examples");
const files = (await readdir(examples)).filter((name) => name.endsWith(".mjs"));

it("finds examples", () => expect(files.length).toBeGreaterThan(0));

it.each(files)("%s runs", async (file) => {
  const cwd = await mkdtemp(join(tmpdir(), "smalti-example-"));
  const { stdout, stderr } = await run(process.execPath, [join(examples, file)], { cwd });
  expect(stdout + stderr).not.toBe("");
  await rm(cwd, { recursive: true });
});
