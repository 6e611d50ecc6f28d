// What the parity report says of cases that it cannot run, as text and as JSON. The cases themselves live elsewhere.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { runParity, type ParityReport } from "../../lib/golden/parity.js";

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "smalti-parity-"));
  await mkdir(join(folder, "future_case"));
  const header = { kind: "future", config: {}, tolerance: { rtol: 0 }, io: {} };
  await writeFile(join(folder, "future_case", "case.json"), JSON.stringify(header));
});

afterAll(() => rm(folder, { recursive: true }));

async function linesOf(json: boolean): Promise<string[]> {
  const lines: string[] = [];
  await runParity(folder, { json, write: (line) => lines.push(line) });
  return lines;
}

it("calls kinds without a runner unsupported", async () => {
  expect(await linesOf(false)).toEqual([
    "unsupported  future_case: no runner for future",
    "unsupported kinds: future",
    "0 passed, 0 failed, 1 unsupported",
  ]);
});

it("writes one JSON document", async () => {
  const lines = await linesOf(true);
  expect(lines).toHaveLength(1);
  const report = JSON.parse(lines[0]!) as ParityReport;
  expect(report).toMatchObject({ unsupported: 1, unsupportedKinds: ["future"] });
  expect(report.cases).toMatchObject([{ name: "future_case", status: "unsupported" }]);
});

it("refuses a filter that matches nothing, and a folder without cases", async () => {
  await expect(runParity(folder, { filter: "future_cas*e_" })).rejects.toMatchObject({
    code: "data",
    message: expect.stringContaining("the nearest name is future_case") as string,
  });
  await expect(runParity(join(folder, "future_case"))).rejects.toThrow(/got none/);
});
