// One row of the comparison: ours and each peer in turn, in processes of their own, and what comes of it.
import { existsSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  cache,
  ortWorker,
  ourWorker,
  probeTorch,
  torchEnvironments,
  torchWorker,
} from "./peers.mjs";
import { Worker } from "./worker.mjs";

const pauseMs = 40; // threads of a library that has just run spin for a while
const slowRoundMs = 4000;

export const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const fastest = (times) => Object.entries(times).sort(([, a], [, b]) => a - b)[0]?.[0];

const modelPath = ({ name, batch }) => join(cache, `${name}_${batch}.onnx`);

/** How ours is started: networks with their weights from a file, as programs load them; it is written once. */
function ours(row, { threads, isa }) {
  if (!row.onnx) return ourWorker(row, threads, isa);
  const file = join(cache, `${row.name}.safetensors`);
  if (!existsSync(file)) {
    const { command, args } = ourWorker(row, 1, undefined, ["--write", file]);
    const { status, stderr } = spawnSync(command, args, { encoding: "utf8" });
    if (status !== 0) throw new Error(`ours: ${stderr.trim()}`);
  }
  return ourWorker(row, threads, isa, ["--from", file]);
}

const ortLabel = "onnxruntime";
const torchLabel = (setting) => `torch ${setting}`;

/** What peers are called: `peer` of a context is a part of these names, and leaves the others out. */
export const peerLabels = [torchLabel("tuned"), torchLabel("installed"), ortLabel];

/** The model of a workload for ONNX Runtime: torch exports it once. */
function exported(workload, { peers, threads, isa }) {
  const path = modelPath(workload);
  if (!existsSync(path)) {
    const { installed } = torchEnvironments(threads, isa);
    probeTorch(peers.torch.python, installed, { ...workload, torch: [] }, path);
  }
  return path;
}

/** How each peer of a row is started, by what it is called. */
function contestants(row, context) {
  const { peers, threads, isa, peer } = context;
  const found = new Map();
  if (!peers.torch) return found;
  for (const [setting, env] of Object.entries(torchEnvironments(threads, isa))) {
    const label = torchLabel(setting);
    if (!label.includes(peer)) continue;
    const variant = fastest(probeTorch(peers.torch.python, env, row));
    if (variant === undefined) continue;
    found.set(label, { start: torchWorker(peers.torch.python, env, row, variant), variant });
  }
  if (row.onnx && peers.ort && isa !== "avx2" && ortLabel.includes(peer)) {
    found.set(ortLabel, { start: ortWorker(exported(row, context), threads), variant: "cpu" });
  }
  return found;
}

async function startAll(starts) {
  const workers = new Map();
  try {
    for (const [label, { start, variant }] of starts) {
      const worker = await Worker.start(label, start);
      workers.set(label, { worker, variant, rounds: [] });
    }
    return workers;
  } catch (error) {
    await stopAll(workers);
    throw error;
  }
}

const stopAll = (workers) => Promise.all([...workers.values()].map(({ worker }) => worker.stop()));

/** Every worker once, the order turned by one each round. */
async function oneRound(entries, round, seconds) {
  for (let i = 0; i < entries.length; ++i) {
    const entry = entries[(i + round) % entries.length];
    await sleep(pauseMs);
    entry.rounds.push(await entry.worker.burst(seconds));
  }
}

const summary = (rounds) => ({
  ms: median(rounds.map(({ wall }) => median(wall))),
  minMs: Math.min(...rounds.flatMap(({ wall }) => wall)),
  maxMs: Math.max(...rounds.map(({ wall }) => median(wall))),
  cpuMs: median(rounds.map(({ cpu }) => median(cpu))),
  peakMb: Math.max(...rounds.map(({ peak_mb }) => peak_mb)),
});

/** Medians of ours and of each peer, from at least `pairs` alternated bursts (5 when a round takes long). */
export async function compareRow(row, context) {
  const { pairs, seconds, isa } = context;
  const starts = new Map([
    ["ours", { start: ours(row, context), variant: isa ?? "" }],
    ...(row.against
      ? [["smalti fp32", { start: ours(row.against, context), variant: "" }]]
      : contestants(row, context)),
  ]);
  const workers = await startAll(starts);
  try {
    const entries = [...workers.values()];
    for (const { worker } of entries) await worker.burst(0); // a second run of each, not counted
    let rounds = pairs;
    for (let round = 0; round < rounds; ++round) {
      const start = performance.now();
      await oneRound(entries, round, seconds);
      if (performance.now() - start > slowRoundMs) rounds = Math.min(pairs, 5);
    }
    const { ours, ...others } = Object.fromEntries(
      [...workers].map(([label, { worker, variant, rounds: done }]) => [
        label,
        { ...summary(done), label, variant, version: worker.version, pairs: done.length },
      ]),
    );
    return { ours, peers: Object.values(others) };
  } finally {
    await stopAll(workers);
  }
}

/** Peak memory, or the time from the start of a process to its first result, each from processes of their own. */
export async function compareProcesses(row, context) {
  const { peers, threads, isa, pairs, seconds, peer } = context;
  const workload = { name: row.network, batch: row.batch, onnx: true };
  const { installed } = torchEnvironments(threads, isa);
  const eager = torchLabel("installed");
  const starts = new Map([["ours", ours(workload, context)]]);
  if (peers.torch && row.measure === "peak" && eager.includes(peer))
    starts.set(eager, torchWorker(peers.torch.python, installed, workload, "eager"));
  if (peers.ort && ortLabel.includes(peer))
    starts.set(ortLabel, ortWorker(exported(workload, context), threads));
  const found = new Map([...starts.keys()].map((label) => [label, { startMs: [], peakMb: [] }]));
  for (let round = 0; round < (row.measure === "start" ? pairs : 1); ++round) {
    for (const [label, start] of starts) {
      const worker = await Worker.start(label, start);
      found.get(label).version = worker.version;
      found.get(label).startMs.push(worker.startMs);
      if (row.measure === "peak")
        found.get(label).peakMb.push((await worker.burst(seconds)).peak_mb);
      await worker.stop();
    }
  }
  return found;
}
