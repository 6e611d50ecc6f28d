// One forward pass of published networks with random weights: seconds, and the peak of resident memory against the plan.
// Usage: node benchmarks/whole-size.mjs [name ...]   (after npm run build); one JSON object a line, a process a network.
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { compileNetwork, networks, randomWeights } from "./networks.mjs";

async function measure(name) {
  const { program, specs, given } = await compileNetwork(name);
  const plan = program.plan();
  const weights = 4 * specs.reduce((sum, { size }) => sum + size, 0);
  const planned = weights + plan.weightBytes + plan.arenaBytes + plan.scratchBytes;
  const before = process.memoryUsage.rss();
  const session = await program.bind(randomWeights(specs));
  const start = performance.now();
  const { y } = await session.run(given);
  const seconds = (performance.now() - start) / 1000;
  const peak = process.resourceUsage().maxRSS * 1024 - before;
  const finite = y.every(Number.isFinite);
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
  for (const name of names.length > 0 ? names : Object.keys(networks)) {
    const self = fileURLToPath(import.meta.url);
    const { stdout } = await promisify(execFile)(process.execPath, [self, name]);
    process.stdout.write(stdout);
  }
}
