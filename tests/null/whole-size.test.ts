// Published networks at their whole size, run once with random weights: finite, and in the memory that was planned.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";

const names = ["cifar_unet", "vqgan_f16_dec", "dit_s2", "dit_b2", "vqd_small"];

/** Resident memory over what was planned; the process itself takes some MiB more while it runs. */
const slack = 1.2;

describe("one forward pass", () => {
  it.each(names)("%s stays within the plan", { timeout: 120_000 }, async (name) => {
    const run = promisify(execFile);
    const { stdout } = await run(process.execPath, ["benchmarks/whole-size.mjs", name]);
    const { finite, parameters, ratio } = JSON.parse(stdout) as Record<string, number>;
    expect(finite).toBe(true);
    expect(parameters).toBeGreaterThan(30e6);
    expect(ratio).toBeLessThanOrEqual(slack);
  });
});
