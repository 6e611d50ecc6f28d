// What the parity report says of cases that it cannot run, as text and as JSON. The cases themselves live elsewhere.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { writeSafetensors } from "../../lib/checkpoint/safetensors.js";
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

it("passes no case that it cannot read or that has nothing to compare", async () => {
  const broken = join(folder, "..", `${basename(folder)}-broken`);
  await mkdir(join(broken, "cut"), { recursive: true });
  await writeFile(join(broken, "cut", "case.json"), '{"kind": "fut');
  await expect(runParity(broken)).rejects.toThrow(/readable case\.json in .*cut, got/);
  const header = { kind: "torch_ops", config: { ops: [] }, tolerance: { rtol: 0 }, io: {} };
  await writeFile(join(broken, "cut", "case.json"), JSON.stringify(header));
  await writeSafetensors(join(broken, "cut", "io.safetensors"), []);
  const { cases } = await runParity(broken, { write: () => undefined });
  expect(cases[0]).toMatchObject({
    status: "failed",
    reason: "parity: expected outputs in case cut, got none",
  });
  await rm(broken, { recursive: true });
});
