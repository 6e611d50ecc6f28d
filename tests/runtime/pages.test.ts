// Which pages packed weights lie on: huge ones, but not where the system is a virtual machine that gives free huge pages
// back to its host.
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import { trace } from "../../lib/trace/trace.js";

const mappings = "/proc/self/smaps";
const reportingOrder = "/sys/module/page_reporting/parameters/page_reporting_order";
const never = 2 ** 32 - 1;
const size = 1024;

/** Bytes of this process for which huge pages were asked. */
function bytesOnHugePages(): number {
  const pattern = /^Size: +(\d+) kB$[^]*?^VmFlags:(.*)$/gm;
  const found = [...readFileSync(mappings, "utf8").matchAll(pattern)];
  expect(found.length).toBeGreaterThan(0);
  return found
    .filter(([, , flags]) => flags!.split(" ").includes("hg"))
    .reduce((sum, [, kilobytes]) => sum + 1024 * Number(kilobytes), 0);
}

function areGivenBack(): boolean {
  return existsSync(reportingOrder) && Number(readFileSync(reportingOrder, "utf8")) < never;
}

describe.skipIf(!existsSync(mappings))("pages", () => {
  it("of packed weights are huge unless a host gets free ones", async () => {
    const graph = trace((t) => {
      const weight = t.parameter({ name: "w", shape: [size, size], init: { kind: "zeros" } });
      t.output("y", t.input("x", { shape: [1, size] }).matmul(weight));
    });
    using program = await compile(graph, { winograd: false });
    using w = Buffer.alloc("f32", [size, size]);
    const before = bytesOnHugePages();
    using session = await program.bind({ w });
    const { weightBytes } = program.plan();
    expect(weightBytes).toBeGreaterThanOrEqual(4 * size * size);
    expect(bytesOnHugePages() - before).toBe(areGivenBack() ? 0 : weightBytes);
    expect((await session.run({ x: new Float32Array(size) }))["y"]![0]).toBe(0);
  });
});
