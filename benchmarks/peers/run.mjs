// Our speed beside other libraries on the same work, in one run: ours and each peer in turn. One JSON object a line, then
// a table. npm run bench:peers -- [--filter TEXT] [--threads 1,2] [--pairs N] [--isa avx2] [--peer NAME] [--json] [--install]
import { mkdirSync } from "node:fs";
import { parseArgs } from "node:util";
import { configureBackend, describeBackends, version } from "../../dist/index.js";
import { boundOf, measureLimits } from "../../dist/cli/bench-bound.js";
import { benchWorkloads } from "../../dist/cli/bench-workloads.js";
import { compareProcesses, compareRow, median, peerLabels } from "./compare.mjs";
import { processRows, rows } from "./goals.mjs";
import { cache, findPeers, install } from "./peers.mjs";
import { textTable } from "./report.mjs";

const { values: options } = parseArgs({
  options: {
    filter: { type: "string", default: "" },
    threads: { type: "string", default: "2" },
    pairs: { type: "string", default: "7" },
    seconds: { type: "string", default: "0.15" },
    isa: { type: "string" },
    peer: { type: "string", default: "" },
    json: { type: "boolean", default: false },
    install: { type: "boolean", default: false },
  },
});

const note = (text) => process.stderr.write(`${text}\n`);
const lines = [];
const emit = (line) => {
  const round = (_, v) => (typeof v === "number" ? Number(v.toPrecision(5)) : v);
  lines.push(line);
  if (options.json) process.stdout.write(`${JSON.stringify(line, round)}\n`);
};

const slack = 0.9; // ratios are asked for on two threads, and hold on other numbers within 10 %
const avx2Goal = 1.2; // of a network, when everyone is limited to AVX2

const ratioGoal = (row, threads) =>
  threads === 2 || row.threads === threads ? row.goal : row.goal * slack;

function goalOf(row, threads, isa) {
  if (isa) return row.onnx && row.torch.length === 3 ? avx2Goal : null;
  return ratioGoal(row, threads);
}

/** The bound is that of float32. */
function boundFacts(workload, limits, oursMs) {
  if (workload.compileOptions)
    return { gflops: null, share_of_bound: null, share_of_direct_bound: null };
  const bound = boundOf(workload, limits);
  return {
    gflops: (1000 * bound.gflop) / oursMs || null,
    share_of_bound: bound.winogradMs / oursMs,
    share_of_direct_bound: bound.directMs / oursMs,
  };
}

/** One line for each peer; the best one decides whether the goal is met. */
async function runRow(row, workload, context) {
  const { threads, isa, limits } = context;
  const { ours, peers } = await compareRow(row, context);
  const goal = goalOf(row, threads, isa);
  const best = Math.min(...peers.map(({ ms }) => ms));
  const facts = {
    workload: row.form ? `${row.name}_${row.form}` : row.name,
    threads,
    batch: row.batch,
    ...(isa && { isa }),
    ours_ms: ours.ms,
    ours_min_ms: ours.minMs,
    ours_max_ms: ours.maxMs,
    ours_cpu_ms: ours.cpuMs,
  };
  const bound = boundFacts(workload, limits, ours.ms);
  for (const peer of peers.length > 0 ? peers : [{ label: "none", ms: null }]) {
    const isBest = peer.ms === best;
    const ratio = peer.ms === null ? null : peer.ms / ours.ms;
    emit({
      ...facts,
      peer: peer.variant ? `${peer.label} (${peer.variant})` : peer.label,
      peer_ms: peer.ms,
      peer_min_ms: peer.minMs ?? null,
      peer_max_ms: peer.maxMs ?? null,
      peer_cpu_ms: peer.cpuMs ?? null,
      ratio,
      ratio_of_minima: ratio && peer.minMs / ours.minMs,
      ratio_of_cpu: ratio && peer.cpuMs / ours.cpuMs,
      pairs: ours.pairs,
      goal,
      is_best: isBest,
      is_met: isBest && goal !== null ? ratio >= goal : null,
      ...bound,
      ours_peak_mb: ours.peakMb,
      peer_peak_mb: peer.peakMb ?? null,
    });
  }
}

/** Memory: ours over the better peer's. Start: the peer's time over ours. */
async function runProcesses(row, context) {
  const found = await compareProcesses(row, context);
  const isPeak = row.measure === "peak";
  const valueOf = ({ startMs, peakMb }) => (isPeak ? peakMb[0] : median(startMs));
  const spread = ({ startMs, peakMb }) => (isPeak ? peakMb : startMs);
  const ours = found.get("ours");
  const peers = [...found].filter(([label]) => label !== "ours");
  const best = Math.min(...peers.map(([, peer]) => valueOf(peer)));
  const goal = isPeak ? row.goal : ratioGoal(row, context.threads);
  for (const [label, peer] of peers) {
    const ratio = isPeak ? valueOf(ours) / valueOf(peer) : valueOf(peer) / valueOf(ours);
    const isBest = valueOf(peer) === best;
    emit({
      workload: row.name,
      threads: context.threads,
      batch: row.batch,
      unit: isPeak ? "MB" : "ms",
      ours_ms: valueOf(ours),
      ours_min_ms: Math.min(...spread(ours)),
      ours_max_ms: Math.max(...spread(ours)),
      peer: label,
      peer_ms: valueOf(peer),
      ratio,
      pairs: spread(ours).length,
      goal,
      is_best: isBest,
      is_met: isBest ? (isPeak ? ratio <= goal : ratio >= goal) : null,
      ours_peak_mb: isPeak ? valueOf(ours) : null,
      peer_peak_mb: isPeak ? valueOf(peer) : null,
    });
  }
}

const label = ({ name, batch, form }) => `${form ? `${name}_${form}` : name} b${batch}`;
const isWanted = (row) => label(row).includes(options.filter);

/** Rows with a number of threads of their own run on that one, whatever was asked for. */
const threadsOf = (row, counts) => (row.threads === undefined ? counts : [row.threads]);

async function runThreads(threads, counts, context) {
  for (const row of rows.filter(isWanted)) {
    if (!threadsOf(row, counts).includes(threads)) continue;
    const workload = benchWorkloads.find((w) => w.name === row.name && w.batch === row.batch);
    if (!workload) {
      note(`skipped ${label(row)}: the library has no such workload`);
      continue;
    }
    note(`${label(row)}, ${threads} threads …`);
    await runRow(row, workload, context);
  }
  if (options.isa || !counts.includes(threads)) return;
  for (const row of processRows.filter(isWanted)) {
    note(`${label(row)}, ${threads} threads …`);
    await runProcesses(row, context);
  }
}

const undisturbed = 0.85;

/** CPU time of our networks and steps over wall time and threads, in the middle of all. */
const cpuShare = (measured) =>
  measured.length === 0
    ? 1
    : median(measured.map((line) => line.ours_cpu_ms / line.ours_ms / line.threads));

async function main() {
  if (options.install) return install();
  if (!peerLabels.some((label) => label.includes(options.peer))) {
    note(
      `bench:peers: expected --peer with a part of ${peerLabels.join(", ")}, got "${options.peer}"`,
    );
    process.exit(2);
  }
  mkdirSync(cache, { recursive: true });
  const peers = findPeers();
  peers.missing.forEach((name) => note(`skipped: ${name}`));
  if (options.isa && peers.ort) note("skipped: ONNX Runtime, which cannot be limited to AVX2");
  const asked = options.threads.split(",").map(Number);
  const counts = [
    ...new Set([...asked, ...rows.filter(isWanted).flatMap((row) => threadsOf(row, asked))]),
  ];
  const limits = [];
  for (const threads of counts) {
    configureBackend({ threads });
    limits.push({ threads, ...(await measureLimits(threads)) });
  }
  const { cpu } = describeBackends();
  emit({
    cpu: cpu.name,
    isa: options.isa ?? cpu.isa,
    threads: counts,
    limits,
    date: new Date().toISOString().slice(0, 10),
    versions: [
      `smalti ${version}`,
      `Node ${process.versions.node}`,
      ...(peers.torch ? [`torch ${peers.torch.version}`] : []),
      ...(peers.ort ? [`ONNX Runtime ${peers.ort}`] : []),
    ],
  });
  for (const [i, threads] of counts.entries()) {
    const context = { peers, threads, isa: options.isa, limits: limits[i] };
    await runThreads(threads, asked, {
      ...context,
      pairs: Number(options.pairs),
      seconds: Number(options.seconds),
      peer: options.peer,
    });
  }
  (options.json ? note : console.log)(textTable(lines));
  const share = cpuShare(lines.filter(({ ours_cpu_ms: cpu }) => cpu));
  if (share < undisturbed)
    note(
      `The machine was busy: our CPU time was ${Math.round(100 * share)} % of what it could be.`,
    );
}

await main();
