// Writes every op case, and the gradient graph of every smooth one, to the file SMALTI_CASES for run_cases.cc: encoded
// graph, inputs, and what each output must be. Expected numbers and limits come from the harness of tests/ops.
//
// "SMLC", u32 count, then each case: text name, blob graph, u32 inputs, blobs, u32 outputs, each a text name and a u8 kind:
// 0 not compared; 1 blob that must be met bit for bit; 2 real: blob of f64 expected values, blob of f64 limits.
// blob = u32 bytes and those bytes, text = blob of utf8; little endian.
import { closeSync, openSync, writeSync } from "node:fs";
import { expect, it } from "vitest";
import { encode } from "../../lib/ir/encode.js";
import type { Graph } from "../../lib/ir/graph.js";
import type { TensorData } from "../../lib/runtime/buffer.js";
import { native } from "../../lib/runtime/native.js";
import { lower } from "../../lib/trace/lower.js";
import { caseName, opCases } from "../ops/cases.js";
import { largeCases } from "../ops/cases-large.js";
import type { OpCase } from "../ops/cases.js";
import { gradientGraph, largeSmoothCases, smoothCases } from "../ops/gradient-graph.js";
import { feedsOf, forwardGraph, isReal, limitsOf, run } from "../ops/harness.js";
import type { Comparison, Feeds, Real } from "../ops/harness.js";

interface ExportedCase {
  readonly name: string;
  readonly graph: (dtype: Real) => Graph;
  readonly feeds: (dtype: Real) => Feeds;
  readonly comparison: Comparison;
}

const forwardCase = (c: OpCase): ExportedCase => ({
  name: caseName(c),
  graph: (dtype) => forwardGraph(c, dtype),
  feeds: (dtype) => feedsOf(c, dtype),
  comparison: c,
});

/** Compared over the whole tensor, as in tests/ops/gradient.test.ts. */
const gradientCase = (c: OpCase): ExportedCase => ({
  name: `gradient of ${caseName(c)}`,
  graph: (dtype) => gradientGraph(c, dtype),
  feeds: (dtype) => feedsOf(c, dtype),
  comparison: { slack: c.slack ?? 1 },
});

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};

const blob = (data: TensorData): Buffer[] => [
  u32(data.byteLength),
  Buffer.from(data.buffer, data.byteOffset, data.byteLength),
];

const text = (value: string): Buffer[] => blob(Buffer.from(value));

function expectation(plain: TensorData, exact: TensorData, comparison: Comparison): Buffer[] {
  if (!isReal(exact)) return [Buffer.of(1), ...blob(exact)];
  const limits = limitsOf(plain, exact, comparison);
  return [Buffer.of(2), ...blob(Float64Array.from(exact)), ...blob(limits)];
}

async function encoded(c: ExportedCase, kernels: ReadonlySet<string>): Promise<Buffer> {
  const exact = await run(c.graph("f64"), "ref", c.feeds("f64"));
  const graph = lower(c.graph("f32"), kernels);
  const feeds = c.feeds("f32");
  const plain = await run(graph, "ref", feeds);
  const inputs = graph.inputs.flatMap(({ name }) => blob(feeds[name]!));
  const outputs = graph.outputs.flatMap(({ name }) => [
    ...text(name),
    // the projection that makes a gradient's loss is a random number near 0
    ...(name === "loss" ? [Buffer.of(0)] : expectation(plain[name]!, exact[name]!, c.comparison)),
  ]);
  return Buffer.concat([
    ...text(c.name),
    ...blob(encode(graph)),
    u32(graph.inputs.length),
    ...inputs,
    u32(graph.outputs.length),
    ...outputs,
  ]);
}

it("exports every case", async () => {
  const path = process.env["SMALTI_CASES"];
  expect(path, "SMALTI_CASES names the file to write").toBeTruthy();
  const kernels = new Set(native().kernels());
  const cases = [
    ...[...opCases, ...largeCases].map(forwardCase),
    ...[...smoothCases, ...largeSmoothCases].map(gradientCase),
  ];
  const file = openSync(path!, "w");
  writeSync(file, "SMLC");
  writeSync(file, u32(cases.length));
  for (const c of cases) writeSync(file, await encoded(c, kernels));
  closeSync(file);
});
