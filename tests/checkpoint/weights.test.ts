// Weights that do not fit the model: the message counts and names what differs, however much it is.
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openSafetensors, writeSafetensors } from "../../lib/checkpoint/safetensors.js";
import { loadWeights } from "../../lib/checkpoint/weights.js";
import { DiffusionError } from "../../lib/errors.js";
import type { ParamSpec } from "../../lib/ir/param.js";
import { processorTime } from "../processor-time.js";

const spec = (name: string, shape: number[] = [1]): ParamSpec => ({
  name,
  shape,
  init: { kind: "zeros" },
});

async function fileOf(names: readonly string[]): Promise<string> {
  const path = join(await mkdtemp(join(tmpdir(), "smalti-")), "w.safetensors");
  await writeSafetensors(
    path,
    names.map((name) => ({ name, shape: [1], data: new Float32Array(1) })),
  );
  return path;
}

async function messageOf(action: () => Promise<unknown>): Promise<string> {
  const error = await action().catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(DiffusionError);
  expect((error as DiffusionError).code).toBe("checkpoint");
  return (error as Error).message;
}

describe("weights that do not fit", () => {
  it("counts every kind of difference and names the nearest", async () => {
    const path = await fileOf(["encoder.wieght", "b", "c", "extra"]);
    const specs = [spec("encoder.weight"), spec("b"), spec("c", [2, 3])];
    const message = await messageOf(() => loadWeights(path, specs));
    expect(message).toContain("4 differences (1 missing, 1 of another shape, 2 unused)");
    expect(message).toContain("missing encoder.weight [1] (nearest: encoder.wieght)");
    expect(message).toContain("c: expected [2, 3], got [1]");
    expect(message).toContain("unused extra");
  });

  it("answers in bounded time for tens of thousands of names, in 40 lines", async () => {
    const name = (kind: string, i: number): string => `${kind}.blocks.${i}.attention.query.weight`;
    const path = await fileOf(Array.from({ length: 20_000 }, (_, i) => name("model", i)));
    const specs = Array.from({ length: 20_000 }, (_, i) => spec(name("modle", i)));
    const spent = processorTime();
    const message = await messageOf(() => loadWeights(path, specs));
    expect(spent()).toBeLessThan(5000);
    expect(message).toContain("(20000 missing, 0 of another shape, 20000 unused)");
    expect(message.split("\n")).toHaveLength(1 + 40 + 1);
    expect(message).toMatch(/and 39960 more$/);
  });

  it("asks for one tensor by a wrong name as quickly", async () => {
    const long = Array.from({ length: 5 }, (_, i) => `${"x".repeat(1e6)}${i}`);
    using file = await openSafetensors(await fileOf([...long, "weight"]));
    const spent = processorTime();
    expect(() => file.info("wieght")).toThrow(/did you mean "weight"/);
    expect(() => file.info("x".repeat(1e6))).toThrow(DiffusionError);
    expect(spent()).toBeLessThan(1000);
  });
});
