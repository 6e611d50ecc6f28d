// A system that gives no more threads (ulimit -u): an error with a code and advice, and work goes on once it gives some.
// The limit does not bind root, so there the child is a user of its own, and the limit counts no other process; without
// prlimit (util-linux) the test is skipped.
import { fork, spawnSync, type ChildProcess } from "node:child_process";
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { encode } from "../../lib/ir/encode.js";
import { addonPath } from "../../lib/runtime/native.js";
import { smallGraph } from "./workload.js";

interface Outcome {
  threads: string;
  describe: string;
  compile: string;
}

/** Answers each message with what three calls that need threads gave. */
const script = `
  const addon = require("./smalti.node");
  const outcome = async (call) => {
    try {
      await call();
      return "ok";
    } catch ({ code, message }) {
      return code + " " + message;
    }
  };
  const bytes = new Uint8Array(require("node:fs").readFileSync("graph"));
  process.on("message", async () => process.send({
    threads: await outcome(() => addon.configure({ threads: 6 })),
    describe: await outcome(() => addon.describe()),
    compile: await outcome(() => addon.compile(bytes, "")),
  }));
  process.send("ready");`;

const isRoot = process.getuid?.() === 0;
const user = isRoot ? { uid: 20_000 + (process.pid % 40_000), gid: 65534 } : {};
const folder = mkdtempSync(join(tmpdir(), "smalti-"));
afterAll(() => rmSync(folder, { recursive: true }));

function startChild(): ChildProcess {
  chmodSync(folder, 0o755);
  copyFileSync(addonPath(), join(folder, "smalti.node"));
  writeFileSync(join(folder, "graph"), encode(smallGraph()));
  writeFileSync(join(folder, "child.cjs"), script);
  return fork(join(folder, "child.cjs"), { cwd: folder, execArgv: [], ...user });
}

const answer = (child: ChildProcess): Promise<unknown> =>
  new Promise((done, failed) => {
    child.once("message", done);
    child.once("exit", (code, signal) => failed(new Error(`child ended: ${code ?? signal}`)));
  });

const limitThreads = (child: ChildProcess, limit: string | number): void => {
  const args = ["--pid", String(child.pid), `--nproc=${limit}:`];
  expect(spawnSync("prlimit", args, { cwd: folder, ...user }).stderr.toString()).toBe("");
};

const find = (child: ChildProcess, file: string, what: RegExp): string =>
  what.exec(readFileSync(`/proc/${child.pid}/${file}`, "utf8"))![1]!;
/** What the system allows at most: a number or "unlimited". */
const hardLimit = (child: ChildProcess): string =>
  find(child, "limits", /Max processes +\S+ +(\S+)/);
const threadsOf = (child: ChildProcess): number =>
  Number(find(child, "status", /Threads:\s+(\d+)/));

const hasPrlimit = spawnSync("prlimit", ["--version"]).status === 0;

describe.skipIf(!hasPrlimit)("a system without threads to give", () => {
  it("makes coded errors, and no crash", async () => {
    const child = startChild();
    try {
      expect(await answer(child)).toBe("ready");
      const ask = async (limit: string | number): Promise<Outcome> => {
        limitThreads(child, limit);
        const answered = answer(child);
        child.send("go");
        return (await answered) as Outcome;
      };
      const none = await ask(1);
      expect(none.threads).toMatch(
        /^memory threads: expected to start 5, got 0 and then ".+"; use fewer \(--threads, SMALTI_THREADS\) or raise the limit \(ulimit -u\)$/,
      );
      expect(none.describe).toMatch(/^(ok|memory threads: )/); // one core needs no thread
      expect(none.compile).toMatch(/^memory engine: expected to start its thread, got ".+"/);
      if (isRoot) {
        const some = await ask(threadsOf(child) + 2);
        expect(some.threads).toMatch(/^memory threads: expected to start 5, got \d and then/);
      }
      expect(await ask(hardLimit(child))).toEqual({ threads: "ok", describe: "ok", compile: "ok" });
    } finally {
      child.kill();
    }
  });
});
