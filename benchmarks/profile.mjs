// Where the time of one run goes: least milliseconds of each instruction over many runs, and how well its work items would
// fill other numbers of cores: the speed-up if all items took equally long and memory kept up.
// Usage: node benchmarks/profile.mjs WORKLOAD [--batch 1] [--runs 20] [--rows 40] [--threads 1] [--json]   (after npm run build)
import { parseArgs } from "node:util";
import { native } from "../dist/runtime/native.js";
import { measurePeak } from "../dist/runtime/peak.js";
import { bindRandom } from "../dist/cli/bench-session.js";
import { benchWorkloads } from "../dist/cli/bench-workloads.js";
import { compile } from "../dist/runtime/program.js";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    batch: { type: "string", default: "1" },
    runs: { type: "string", default: "20" },
    rows: { type: "string", default: "40" },
    threads: { type: "string", default: "1" },
    json: { type: "boolean", default: false },
  },
});
const name = positionals[0];
const workload = benchWorkloads.find((w) => w.name === name && w.batch === Number(options.batch));
if (!workload) {
  const names = benchWorkloads.map((w) => `${w.name} of batch ${w.batch}`);
  console.error(`profile: expected one of ${names.join(", ")}, got ${name}`);
  process.exit(2);
}
const threads = Number(options.threads);
native().configure({ threads });
const program = await compile(workload.graph(), workload.compileOptions);
const { session, inputs } = await bindRandom(workload, program, 0);
const { steps } = program.plan();
const least = steps.map(() => Infinity);
const totals = [];
for (let run = 0; run < Number(options.runs); ++run) {
  (await session.profile(inputs)).forEach((ms, i) => (least[i] = Math.min(least[i], ms)));
  totals.push(await session.timedRun(inputs));
}
const peak = (await measurePeak()) * threads;

/** Instructions that do the same on the same shapes are one row. */
function grouped(key) {
  const rows = new Map();
  steps.forEach((step, i) => {
    const row = rows.get(key(step)) ?? { name: key(step), count: 0, ms: 0, gflop: 0, mb: 0 };
    rows.set(row.name, row);
    row.count += 1;
    row.ms += least[i];
    row.gflop += step.flops / 1e9;
    row.mb += step.bytes / 1e6;
  });
  return [...rows.values()].sort((a, b) => b.ms - a.ms);
}

const places = /(arena|input\d+|buffer\d+|persistent|constant)\+\d+:/g;
const byShape = grouped(({ op, text }) => `${op} ${text.replaceAll(places, "")}`);
const byOp = grouped(({ op }) => op.replace(/[+(].*/, ""));
const sum = least.reduce((a, b) => a + b, 0);
totals.sort((a, b) => a - b);

/** One thread's time over that of `cores`, by the items of each phase alone; phases count as equally long. */
function itemSpeedUp(cores) {
  const share = ({ items }) =>
    items.reduce((s, n) => s + (n && Math.ceil(n / cores) / n), 0) / items.length;
  return sum / steps.reduce((total, step, i) => total + least[i] * (step.items.length ? share(step) : 1), 0); // prettier-ignore
}
const speedUp = Object.fromEntries([2, 4, 8, 16].map((cores) => [cores, Number(itemSpeedUp(cores).toFixed(2))])); // prettier-ignore
const summary = { name, threads, peak, leastMs: totals[0], medianMs: totals[totals.length >> 1], sumOfLeastMs: sum, speedUp }; // prettier-ignore
const line = ({ name: text, count, ms, gflop, mb }) =>
  `${ms.toFixed(3).padStart(9)} ms ${((100 * ms) / sum).toFixed(1).padStart(5)} % ${String(count).padStart(4)}x ${(gflop / ms * 1e3).toFixed(1).padStart(7)} GFLOP/s ${((100 * gflop * 1e3) / ms / peak).toFixed(0).padStart(3)} % ${(mb / ms).toFixed(1).padStart(6)} GB/s  ${text}`; // prettier-ignore
if (options.json) {
  console.log(JSON.stringify({ ...summary, byOp, byShape }));
} else {
  console.log(JSON.stringify(summary));
  byOp.forEach((row) => console.log(line(row)));
  console.log();
  byShape.slice(0, Number(options.rows)).forEach((row) => console.log(line(row)));
}
