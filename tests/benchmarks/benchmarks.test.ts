// The benchmarks measure what they say: the same work as the other libraries, and a comparison that can fail.
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { boundOf } from "../../lib/cli/bench-bound.js";
import { prepare } from "../../lib/cli/bench-session.js";
import { benchWorkloads } from "../../lib/cli/bench-workloads.js";

const folder = resolve(import.meta.dirname, "../../benchmarks");
const load = async <T>(path: string): Promise<T> => (await import(join(folder, path))) as T;
const limits = { gflops: 100, memory: 10, cache: 50 };

interface Row {
  name: string;
  batch: number;
}
const { rows, processRows } = await load<{
  rows: Row[];
  processRows: (Row & { network: string })[];
}>("peers/goals.mjs");

interface Comparison {
  name: string;
  verdict: string;
}
type Compare = (before: Record<string, number>, now: Record<string, number>) => Comparison[];
const { compareCounts } = await load<{ compareCounts: Compare }>("instructions/compare.mjs");

type Line = Record<string, unknown>;
const report = await load<{
  textTable: (lines: Line[]) => string;
  readmeTable: (lines: Line[]) => string;
  boundTable: (lines: Line[]) => string;
  between: (document: string, name: string, text: string) => string;
}>("peers/report.mjs");

const workload = (name: string, batch = 1) => {
  const found = benchWorkloads.find((w) => w.name === name && w.batch === batch);
  if (!found) throw new Error(`no workload ${name} b${batch}`);
  return found;
};

describe("workloads", () => {
  // GFLOP of the torch networks of benchmarks/peers, by torch's profiler (worker.py NAME 1 --flops)
  it.each([
    ["cifar_unet", 12.443713536],
    ["adm64_unet", 78.223638528],
    ["vqgan_f16_enc", 138.428809216],
    ["vqgan_f16_dec", 252.74875904],
    ["dit_s2", 12.111347712],
    ["dit_b2", 46.01020416],
    ["vqd_small", 121.922125824],
  ])("%s does as many operations as its peer", (name, gflop) => {
    // we project the timestep tables of vqd_small once, when weights are bound: 0.02 % less
    expect(boundOf(workload(name), limits).gflop / gflop).toBeCloseTo(1, 3);
  });

  it("has every workload that is compared", () => {
    for (const { name, batch } of rows) expect(workload(name, batch).name).toBe(name);
    for (const { network, batch } of processRows) expect(workload(network, batch)).toBeDefined();
  });

  it("bounds a convolution by its arithmetic, fewer products with Winograd, or by its bytes", () => {
    const conv = workload("conv_128_128_32");
    const flop = 2 * 32 * 32 * 128 * 128 * 9;
    const { directMs, winogradMs } = boundOf(conv, { ...limits, memory: 1e9 });
    expect(directMs).toBeCloseTo(flop / 1e8, 6);
    expect(winogradMs).toBeCloseTo(flop / 1e8 / 4, 6);
    const slow = boundOf(conv, { ...limits, memory: 0.001 });
    expect(slow.directMs).toBeCloseTo((4 * 9 * 128 * 128) / 1e3, 3);
  });

  it("counts a training step as three forward passes", () => {
    const forward = boundOf(workload("dit_s2", 4), limits);
    expect(boundOf(workload("train_dit_s2", 4), limits).directMs).toBeCloseTo(3 * forward.directMs);
  });

  it("runs, for a kernel and for a step that draws tokens", async () => {
    for (const name of ["gnsilu_128_32", "matmul_512_512_512"]) {
      using ready = await prepare(workload(name), 0);
      expect(await ready.run()).toBeGreaterThan(0);
    }
  });
});

describe("instruction counts", () => {
  it("fails for more than 3 % more, and for what has no counterpart", () => {
    const before = { same: 1000, slower: 1000, faster: 1000, gone: 5 };
    const now = { same: 1029, slower: 1031, faster: 900, fresh: 5 };
    const verdicts = compareCounts(before, now).map(({ name, verdict }) => [name, verdict]);
    expect(Object.fromEntries(verdicts)).toEqual({
      same: "same",
      slower: "slower",
      faster: "faster",
      gone: "slower",
      fresh: "slower",
    });
  });
});

describe("report", () => {
  const machine = {
    cpu: "a CPU",
    isa: "avx2",
    threads: [2],
    limits: [{ threads: 2, gflops: 200, memory: 20, cache: 80 }],
    date: "2026-01-01",
    versions: ["smalti 1", "torch 2"],
  };
  const line = (peer: string, ratio: number, isBest: boolean) => ({
    workload: "net",
    threads: 2,
    batch: 1,
    ours_ms: 10,
    ours_min_ms: 9,
    ours_max_ms: 12,
    peer,
    peer_ms: 10 * ratio,
    ratio,
    goal: 2,
    is_best: isBest,
    is_met: isBest ? ratio >= 2 : null,
    gflops: 100,
    share_of_bound: 0.5,
    share_of_direct_bound: 0.6,
    ours_peak_mb: 100,
  });
  const lines = [
    machine,
    line("torch installed (eager)", 3, false),
    line("torch tuned (opt)", 1.5, true),
  ];

  it("judges by the best peer", () => {
    const [, row] = report.textTable(lines).split("\n");
    expect(row).toMatch(
      /net b1 +2 +10\.0 ms +9\.00–12\.0 +15\.0 +30\.0 +– +1\.50 +2\.00 +NO +50 %/,
    );
  });

  it("names the number of threads of what ran on fewer only", () => {
    const alone = { ...line("torch tuned (opt)", 4, true), threads: 1 };
    const table = report.readmeTable([
      { ...machine, threads: [2, 1] },
      ...lines.slice(1),
      alone,
      { ...alone, workload: "norm" },
    ]);
    const rows = table.split("\n").filter((row) => row.includes(" b1"));
    expect(rows.map((row) => row.split(" | ")[0])).toEqual(["| net b1", "| norm b1, 1 thread"]);
  });

  it("writes tables between marks, with machine and spread", () => {
    const document = "before\n<!-- speed -->\nold\n<!-- /speed -->\nafter";
    const text = report.between(document, "speed", report.readmeTable(lines));
    expect(text).toContain("a CPU (avx2), 2 threads, smalti 1, torch 2; 2026-01-01");
    expect(text).toContain("| net b1 | 10.0 ms (9.00–12.0) | 15.0 | 30.0 | – | **1.50** | 3.0 |");
    expect(text).not.toContain("old");
    expect(text.endsWith("<!-- /speed -->\nafter")).toBe(true);
    expect(report.between(text, "speed", "new")).not.toContain("a CPU");
    expect(() => report.between(document, "other", "")).toThrow(/expected the marks/);
    expect(report.boundTable(lines)).toContain("| net b1 | 2 | 10.0 | 100 | 60 % | 50 % | 100 |");
  });
});
