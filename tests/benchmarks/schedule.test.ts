// How the work items of the networks that are compared would fill sixteen threads, by their plans alone.
import { resolve } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { benchWorkloads } from "../../lib/cli/bench-workloads.js";
import { configureBackend, describeBackends } from "../../lib/runtime/device.js";
import { compile } from "../../lib/runtime/program.js";

interface Step {
  op: string;
  text: string;
  items: number[];
  flops: number;
  bytes: number;
}
const { evenTimes, isShared, parallelMs } = (await import(
  resolve(import.meta.dirname, "../../benchmarks/schedule.mjs")
)) as {
  evenTimes: (step: Step) => number[];
  isShared: (step: Step) => boolean;
  parallelMs: (step: Step, times: number[], cores: number) => number;
};

const cores = 16;
/** Below this share of its network's time an instruction may have few items. */
const hotShare = 0.015;
const step = (items: number[], flops: number): Step => ({ op: "", text: "", items, flops, bytes: 0 }); // prettier-ignore

describe("the schedule", () => {
  it("is never faster than its cores, and leaves small work on one", () => {
    for (const items of [1, 2, 15, 16, 17, 100, 5000]) {
      const s = step([items, 7], 1e9);
      const [one, two, many] = [1, 2, cores].map((n) => parallelMs(s, evenTimes(s), n));
      expect(one).toBeCloseTo(10, 6);
      expect(one! / two!).toBeLessThanOrEqual(2);
      expect(one! / many!).toBeLessThanOrEqual(cores);
    }
    const small = step([100], 30e3);
    expect(isShared(small)).toBe(false);
    expect(parallelMs(small, evenTimes(small), cores)).toBeCloseTo(3e-4, 9);
  });

  it("helps whoever is late", () => {
    const s = step([4], 1e9);
    expect(parallelMs(s, [3, 1, 1, 1], 2)).toBeCloseTo(3, 2);
    expect(parallelMs(s, [1, 1, 1, 3], 2)).toBeCloseTo(4, 2);
  });
});

/** The share of sixteen threads that its widest phase would use. */
function used({ items }: Step): number {
  const most = Math.max(...items);
  return most / (cores * Math.ceil(most / cores));
}

const { threads } = describeBackends().cpu!;
afterAll(() => configureBackend({ threads }));

const networks = benchWorkloads.filter(
  ({ name, kind }) => kind !== "kernel" && !name.startsWith("int8"),
);
it.each(networks.map((w) => [`${w.name} b${w.batch}`, w] as const))(
  "no hot instruction of %s leaves sixteen threads half idle",
  async (_, workload) => {
    configureBackend({ threads: cores });
    using program = await compile(workload.graph(), workload.compileOptions);
    const steps = program.plan().steps as unknown as Step[];
    const ms = (n: number): number[] => steps.map((s) => parallelMs(s, evenTimes(s), n));
    const [one, many] = [ms(1), ms(cores)];
    const [sumOfOne, sumOfMany] = [one, many].map((times) => times.reduce((a, b) => a + b, 0));
    const hot = steps.filter((s, i) => isShared(s) && one[i]! > hotShare * sumOfOne!);
    expect(hot.filter((s) => used(s) < 0.55).map(({ op, items }) => `${op} ${items.join(" ")}`)).toEqual([]); // prettier-ignore
    expect(sumOfOne! / sumOfMany!).toBeGreaterThan(8);
  },
);
