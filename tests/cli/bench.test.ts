// `smalti bench`: each workload in processes of its own, which end with the command and say why they fail.
import { spawnSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { root, runCli, startCli } from "./run-cli.js";

const worker = join(root, "dist", "cli", "bench-worker.js");
const visit = (change: object) =>
  spawnSync(
    process.execPath,
    [
      worker,
      JSON.stringify({
        name: "gnsilu_128_32",
        batch: 1,
        threads: 1,
        seed: 0,
        seconds: 0,
        ...change,
      }),
    ],
    { encoding: "utf8" },
  );

describe("smalti bench", () => {
  it("tells times, CPU time and the memory of a process that did nothing else", async () => {
    const args = ["bench", "--filter", "gnsilu_128", "--seconds", "0.1", "--json"];
    const { code, stdout } = await runCli([...args, "--threads", "1"], tmpdir());
    expect(code).toBe(0);
    const { measurements } = JSON.parse(stdout) as { measurements: Record<string, number>[] };
    expect(measurements.map(({ workload }) => workload)).toEqual([
      "gnsilu_128_32",
      "gnsilu_128_256",
    ]);
    for (const { minMs, medianMs, maxMs, cpuMs } of measurements) {
      expect(minMs).toBeGreaterThan(0);
      expect(medianMs).toBeGreaterThanOrEqual(minMs!);
      expect(maxMs).toBeGreaterThanOrEqual(medianMs!);
      expect(cpuMs).toBeGreaterThan(0);
    }
    const [small, large] = measurements.map(({ peakBytes }) => peakBytes!);
    expect(small).toBeGreaterThan(2 ** 25); // an empty Node
    expect(large! - small!).toBeGreaterThan(2 * 4 * 128 * 256 ** 2); // a map and its result, which the small one has not
  });

  it("stops with its processes", async () => {
    const { child, finished } = startCli(["bench", "--filter", "dit_s2 b4"], tmpdir());
    let said = "";
    child.stderr!.on("data", (text: Buffer) => {
      said += text.toString();
      if (/bench: 1\//.test(said)) child.kill("SIGINT");
    });
    const { code, stdout, stderr } = await finished; // after its pipes are closed: the worker holds one of them
    expect([code, stdout]).toEqual([130, ""]);
    expect(stderr).toContain("bench: stopped");
  });

  it("leaves it to a worker to say why it fails", () => {
    expect(visit({}).status).toBe(0);
    const { status, stdout, stderr } = visit({ threads: -1 });
    expect([status, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/expected threads from 1 to 1024, got -1/);
  });
});
