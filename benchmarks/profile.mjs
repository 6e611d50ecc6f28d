// Where the time of one run goes: least milliseconds of each instruction over many runs. With --cores, on one thread, also
// how many times as fast so many cores would be, by the times of its pieces of work, if memory and caches kept up
// (benchmarks/schedule.mjs), of a program compiled for them; rows show what each instruction would lose there.
// Usage: node benchmarks/profile.mjs WORKLOAD [--batch 1] [--runs 20] [--rows 40] [--threads 1] [--cores N] [--json]   (after npm run build)
import { parseArgs } from "node:util";
import { native } from "../dist/runtime/native.js";
import { measurePeak } from "../dist/runtime/peak.js";
import { bindRandom } from "../dist/cli/bench-session.js";
import { benchWorkloads } from "../dist/cli/bench-workloads.js";
import { compile } from "../dist/runtime/program.js";
import { parallelMs } from "./schedule.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    batch: { type: "string", default: "1" },
    runs: { type: "string", default: "20" },
    rows: { type: "string", default: "40" },
    threads: { type: "string", default: "1" },
    cores: { type: "string" },
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
const cores = threads > 1 ? 0 : Number(options.cores ?? 0);
native().configure({ threads: cores || threads }); // programs are compiled for a number of threads
const program = await compile(workload.graph(), workload.compileOptions);
native().configure({ threads });
const { session, inputs } = await bindRandom(workload, program, 0);
const { steps } = program.plan();
const least = steps.map(() => Infinity);
const pieces = steps.map(() => []);
const totals = [];
for (let run = 0; run < Number(options.runs); ++run) {
  (await session.profilePieces(inputs)).forEach((times, i) => {
    least[i] = Math.min(least[i], times.reduce((a, b) => a + b, 0)); // prettier-ignore
    times.forEach((ms, k) => (pieces[i][k] = Math.min(pieces[i][k] ?? Infinity, ms)));
  });
  totals.push(await session.timedRun(inputs));
}
const peak = (await measurePeak()) * threads;

/** Instructions that do the same on the same shapes are one row. */
function grouped(key) {
  const rows = new Map();
  steps.forEach((step, i) => {
    const row = rows.get(key(step)) ?? { name: key(step), count: 0, ms: 0, gflop: 0, mb: 0, lost: 0 }; // prettier-ignore
    rows.set(row.name, row);
    row.count += 1;
    row.ms += least[i];
    row.gflop += step.flops / 1e9;
    row.mb += step.bytes / 1e6;
    if (cores > 0) row.lost += parallelMs(step, pieces[i], cores) - parallelMs(step, pieces[i], 1) / cores; // prettier-ignore
  });
  return [...rows.values()].sort((a, b) => (cores > 0 ? b.lost - a.lost : b.ms - a.ms));
}

const places = /(arena|input\d+|buffer\d+|persistent|constant)\+\d+:/g;
const byShape = grouped(
  ({ op, text, items }) => `${op} ${text.replaceAll(places, "")} items ${items.join(" ")}`,
);
const byOp = grouped(({ op }) => op.replace(/[+(].*/, ""));
const sum = least.reduce((a, b) => a + b, 0);
totals.sort((a, b) => a - b);

const total = (cores) => steps.reduce((ms, step, i) => ms + parallelMs(step, pieces[i], cores), 0);
const speedUp = cores > 0 ? Number((total(1) / total(cores)).toFixed(2)) : undefined;
const summary = { name, threads, peak, leastMs: totals[0], medianMs: totals[totals.length >> 1], sumOfLeastMs: sum, speedUp }; // prettier-ignore
const line = ({ name: text, count, ms, gflop, mb, lost }) =>
  `${cores > 0 ? `${lost.toFixed(3).padStart(8)} ms lost ` : ""}${ms.toFixed(3).padStart(9)} ms ${((100 * ms) / sum).toFixed(1).padStart(5)} % ${String(count).padStart(4)}x ${(gflop / ms * 1e3).toFixed(1).padStart(7)} GFLOP/s ${((100 * gflop * 1e3) / ms / peak).toFixed(0).padStart(3)} % ${(mb / ms).toFixed(1).padStart(6)} GB/s  ${text}`; // prettier-ignore
if (options.json) {
  console.log(JSON.stringify({ ...summary, byOp, byShape }));
} else {
  console.log(JSON.stringify(summary));
  byOp.forEach((row) => console.log(line(row)));
  console.log();
  byShape.slice(0, Number(options.rows)).forEach((row) => console.log(line(row)));
}
