// The JavaScript of the README and of docs/own-training.md runs as written, in an empty folder that has the package
// installed.
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "..");
const snippetsOf = async (page: string): Promise<string[]> =>
  [...(await readFile(join(root, page), "utf8")).matchAll(/```js\n([\s\S]*?)```/g)].map(
    (m) => m[1]!,
  );
const snippets = await snippetsOf("README.md");
const ownTraining = await snippetsOf("docs/own-training.md");

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "smalti-readme-"));
  await mkdir(join(folder, "node_modules"));
  await symlink(root, join(folder, "node_modules", "smalti"));
});
afterAll(() => rm(folder, { recursive: true }));

describe("README", () => {
  it("has snippets", () => expect(snippets.length).toBeGreaterThanOrEqual(2));

  it.each(snippets.map((code, i) => [i, code] as const))("snippet %i runs", async (i, code) => {
    const file = join(folder, `snippet-${i}.mjs`);
    await writeFile(file, code);
    await run(process.execPath, [file], { cwd: folder });
    const written = [...code.matchAll(/save\("([^"]+)"\)/g)].map((m) => m[1]!);
    expect(written.length).toBeGreaterThan(0);
    for (const name of written) expect(existsSync(join(folder, name))).toBe(true);
  });
});

describe("docs/own-training.md", () => {
  it("has snippets", () => expect(ownTraining).toHaveLength(3));

  it.each(ownTraining.map((code, i) => [i, code] as const))("snippet %i runs", async (i, code) => {
    const file = join(folder, `own-training-${i}.mjs`);
    await writeFile(file, code);
    const { stdout } = await run(process.execPath, [file], { cwd: folder });
    const [first, last] = /from (\S+) to (\S+)/.exec(stdout)!.slice(1).map(Number);
    expect(last).toBeLessThan(first! / 2);
  });
});
