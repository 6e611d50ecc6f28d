// One visit of `smalti bench` to a workload, in a process of its own: node bench-worker.js VISIT, both ways JSON.
import { configureBackend } from "../runtime/device.js";
import { peakMemory } from "./bench-peak.js";
import { prepare } from "./bench-session.js";
import { benchWorkloads } from "./bench-workloads.js";
import { fail } from "./terminal.js";

export interface Visit {
  name: string;
  batch: number;
  threads: number;
  seed: number;
  /** How long to measure, at least two runs. */
  seconds: number;
}

export interface Visited {
  /** Milliseconds of each run but the first, which finds cold caches. */
  times: number[];
  /** Milliseconds of CPU time of all threads, all these runs together. */
  cpuMs: number;
  /** Of the process, with the preparation of the workload. */
  peakBytes: number;
}

async function visit({ name, batch, threads, seed, seconds }: Visit): Promise<Visited> {
  configureBackend({ threads });
  const workload = benchWorkloads.find((w) => w.name === name && w.batch === batch)!;
  using ready = await prepare(workload, seed);
  await ready.run();
  const times: number[] = [];
  const end = performance.now() + seconds * 1000;
  const before = process.cpuUsage();
  while (performance.now() < end || times.length < 2) times.push(await ready.run());
  const { user, system } = process.cpuUsage(before);
  return { times, cpuMs: (user + system) / 1000, peakBytes: peakMemory() };
}

try {
  process.stdout.write(JSON.stringify(await visit(JSON.parse(process.argv[2]!) as Visit)));
} catch (error) {
  fail(error);
}
