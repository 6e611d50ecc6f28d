// Environments that end in the middle of a run: worker threads terminated, processes that exit.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { Worker } from "node:worker_threads";
import { afterAll, describe, expect, it } from "vitest";
import { encode } from "../../lib/ir/encode.js";
import { addonPath } from "../../lib/runtime/native.js";
import { bindZeros, longGraph, sleep } from "./workload.js";

/** Starts a run of many seconds; then does `then`. */
const script = (then: string): string => `
  const { workerData, parentPort } = require("node:worker_threads");
  const { path, bytes } = workerData ?? { path: process.argv[1], bytes: require("node:fs").readFileSync(process.argv[2]) };
  const addon = require(path);
  (async () => {
    const program = await addon.compile(new Uint8Array(bytes), "");
    const session = await program.bind([new addon.NativeBuffer(4 * 512 * 512)]);
    const run = session.run([new Float32Array(512 * 512)], [new Float32Array(1)], null);
    ${then}
  })();`;

const folder = mkdtempSync(join(tmpdir(), "smalti-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs the script on a graph in a process of its own. */
function runChild(graph: Uint8Array, then: string) {
  const file = join(folder, `${graph.length}.graph`);
  writeFileSync(file, graph);
  return spawnSync(process.execPath, ["-e", script(then), addonPath(), file]);
}

const bytes = encode(longGraph(512, 4000));

describe("environments that end", () => {
  it("terminates a worker in the middle of a run", async () => {
    for (let i = 0; i < 3; i++) {
      const worker = new Worker(script(`parentPort.postMessage("started"); await run;`), {
        eval: true,
        workerData: { path: addonPath(), bytes },
      });
      await new Promise((started) => worker.once("message", started));
      await sleep(30);
      const start = performance.now();
      await worker.terminate();
      expect(performance.now() - start).toBeLessThan(5000);
    }
    const bound = await bindZeros(longGraph(64, 2));
    expect((await bound.session.run({ x: new Float32Array(64 * 64) }))["y"]![0]).toBe(0);
    bound.dispose();
  });

  it.each([
    ["process.exit", `setTimeout(() => process.exit(7), 50);`, 7],
    ["an uncaught error", `setTimeout(() => { throw new Error("stop"); }, 50);`, 1],
  ])("exits in the middle of a run by %s", (_, then, status) => {
    const start = performance.now();
    const child = runChild(bytes, then);
    expect(child.signal).toBe(null);
    expect(child.status).toBe(status);
    expect(performance.now() - start).toBeLessThan(10_000);
  });

  it("keeps the process alive until a run is done, and no longer", () => {
    const short = encode(longGraph(512, 3));
    const child = runChild(short, `run.then(() => console.log("done"));`);
    expect(child.stdout.toString()).toBe("done\n");
    expect(child.status).toBe(0);
  });

  it("serves two workers at once", async () => {
    const small = encode(longGraph(512, 2));
    const results = Array.from({ length: 2 }, () => {
      const worker = new Worker(script(`await run; parentPort.postMessage("done");`), {
        eval: true,
        workerData: { path: addonPath(), bytes: small },
      });
      return new Promise((done) => worker.once("message", done));
    });
    expect(await Promise.all(results)).toEqual(["done", "done"]);
  });
});
