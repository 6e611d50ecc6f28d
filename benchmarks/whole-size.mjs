// One forward pass of published networks with random weights: seconds, and the peak of resident memory against the plan.
// Usage: node benchmarks/whole-size.mjs [name ...]   (after npm run build); one JSON object a line, a process a network.
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { bindRandom } from "../dist/cli/bench-session.js";
import { benchWorkloads } from "../dist/cli/bench-workloads.js";
import { compile } from "../dist/runtime/program.js";
import { peakMemory } from "../dist/cli/bench-peak.js";

const workloads = benchWorkloads.filter(({ kind, batch }) => kind === "network" && batch === 1);

async function measure(name) {
  const workload = workloads.find((w) => w.name === name);
  const program = await compile(workload.graph(), workload.compileOptions);
  const plan = program.plan();
  const { inputs: declared, values } = program.graph;
  const bytes = ({ value }) => 4 * values[value].shape.reduce((a, b) => a * b, 1);
  const sum = (role) =>
    declared.filter((i) => i.role === role).reduce((total, input) => total + bytes(input), 0);
  const weights = sum("weight");
  const planned = weights + sum("state") + plan.weightBytes + plan.arenaBytes + plan.scratchBytes;
  const before = process.memoryUsage.rss();
  const { session, inputs, state } = await bindRandom(workload, program, 0);
  const start = performance.now();
  await session.run(inputs);
  const seconds = (performance.now() - start) / 1000;
  const peak = peakMemory() - before;
  const finite = state.y.read().every(Number.isFinite);
  const mib = (bytes) => Math.round(bytes / 2 ** 20);
  return {
    name,
    parameters: weights / 4,
    finite,
    seconds: Number(seconds.toFixed(3)),
    plannedMiB: mib(planned),
    peakMiB: mib(peak),
    ratio: Number((peak / planned).toFixed(3)),
  };
}

const names = process.argv.slice(2);
if (names.length === 1) {
  console.log(JSON.stringify(await measure(names[0])));
} else {
  for (const name of names.length > 0 ? names : workloads.map((w) => w.name)) {
    const self = fileURLToPath(import.meta.url);
    const { stdout } = await promisify(execFile)(process.execPath, [self, name]);
    process.stdout.write(stdout);
  }
}
