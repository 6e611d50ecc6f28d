// Saving where there is no room, for real: on a small file system of its own (a mount that only the child process sees),
// and under the system's limit on file sizes. The old file stays whole, and nothing partial is left. Skipped where the
// system allows no such mount or has no such shell.
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writePng } from "../../lib/image/image-io.js";
import { tinyCodec } from "../pipelines/tiny.js";
import { root } from "./run-cli.js";

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "smalti-"));
  await mkdir(join(folder, "disk"));
});
afterAll(() => rm(folder, { recursive: true }));

const shell = (script: string) =>
  spawnSync("sh", ["-c", script], { cwd: folder, encoding: "utf8", timeout: 55_000 });
const onSmallDisk = (size: string, script: string) => {
  const mount = `mount -t tmpfs -o size=${size} tmpfs disk`;
  return spawnSync("unshare", ["-rm", "sh", "-c", `${mount} && { ${script}\n}`], {
    cwd: folder,
    encoding: "utf8",
    timeout: 55_000,
  });
};

const canMount =
  spawnSync("unshare", ["-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]).status === 0;
const hasLimits = spawnSync("sh", ["-c", "ulimit -f 64"]).status === 0;

const distFile = (path: string): string => pathToFileURL(join(root, "dist", path)).href;

/** Saves a small file, then one of a megabyte in its place; prints the error, what is left and whether it is the old. */
const replaceFile = `node --input-type=module -e '
  import { readFileSync, readdirSync } from "node:fs";
  import { writeSafetensors } from "${distFile("checkpoint/safetensors.js")}";
  const save = (n) => writeSafetensors("disk/w.safetensors", [{ name: "a", shape: [n], data: new Float32Array(n) }]);
  await save(100);
  const old = readFileSync("disk/w.safetensors");
  const { code, message } = await save(250000).catch((error) => error);
  const same = old.equals(readFileSync("disk/w.safetensors"));
  console.log(JSON.stringify({ code, message, same, files: readdirSync("disk") }));
'`;

const refused = (reason: RegExp): unknown => ({
  code: "checkpoint",
  message: expect.stringMatching(reason) as string,
  same: true,
  files: ["w.safetensors"],
});

describe.skipIf(!canMount)("a full disk", () => {
  it("keeps the old checkpoint, and says so", () => {
    const { stdout, stderr } = onSmallDisk("256k", replaceFile);
    expect(stderr).toBe("");
    expect(JSON.parse(stdout)).toEqual(
      refused(/w\.safetensors", got a full disk \(ENOSPC\); free/),
    );
  });

  it("stops a training that cannot save; it goes on when there is room", async () => {
    for (let i = 0; i < 2; i++) {
      const data = new Uint8Array(768).fill(100 * i);
      await writePng(join(folder, "pictures", `${i}.png`), { width: 16, height: 16, data });
    }
    const recipe = {
      kind: "tokenizer",
      name: "tiny",
      data: "pictures",
      batchSize: 2,
      steps: 2,
      lr: 1e-3,
      warmup: 2,
      model: tinyCodec,
    };
    await writeFile(join(folder, "recipe.json"), JSON.stringify(recipe));
    const main = join(root, "dist", "cli", "main.js");
    const train = `node ${main} train tokenizer --recipe recipe.json --out disk/run`;
    const state = "{ sha256sum disk/run/state.safetensors; ls -A disk/run; }";
    const { stdout } = onSmallDisk(
      "4m",
      `${train} --steps 2 > /dev/null 2>&1; echo "first $?"
       ${state} > before
       head -c 8m /dev/zero > disk/filler 2> /dev/null
       ${train} --resume --steps 4 > /dev/null 2> message; echo "full $?"; cat message
       ${state} > after; cmp before after && echo "untouched"
       rm disk/filler
       ${train} --resume --steps 4 > /dev/null 2>&1; echo "last $?"`,
    );
    expect(stdout).toMatch(/^first 0\nfull 3\n/);
    expect(stdout).toMatch(/got a full disk \(ENOSPC\); free some space or choose another folder/);
    expect(stdout).toMatch(/\nuntouched\nlast 0\n$/);
  });
});

describe.skipIf(!hasLimits)("a limit on file sizes", () => {
  it("keeps the old checkpoint, and says so", () => {
    const { stdout, stderr } = shell(`ulimit -f 64; ${replaceFile}; rm -f disk/*`);
    expect(stderr).toBe("");
    expect(JSON.parse(stdout)).toEqual(refused(/got a file size limit of the system \(EFBIG\)/));
  });
});
