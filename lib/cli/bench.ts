// `smalti bench`: speed of networks, training steps and kernels on this machine, with the share of what it could do.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { DiffusionError } from "../errors.js";
import { describeBackends } from "../runtime/device.js";
import { boundOf, measureLimits, type Limits } from "./bench-bound.js";
import type { Visit, Visited } from "./bench-worker.js";
import { benchWorkloads, type BenchWorkload } from "./bench-workloads.js";
import {
  applyCommonOptions,
  realNumber,
  withCommonOptions,
  type CommonOptions,
} from "./options.js";
import { formatBytes, interruptSignal, progress, result } from "./terminal.js";

interface BenchOptions extends CommonOptions {
  seconds: number;
  filter?: string;
}

const labelOf = ({ name, batch }: BenchWorkload): string => `${name} b${batch}`;

/** Throws "option" when no name contains the text. */
function chosenWorkloads(text: string): BenchWorkload[] {
  const chosen = benchWorkloads.filter((workload) => labelOf(workload).includes(text));
  if (chosen.length > 0) return chosen;
  const names = benchWorkloads.map(labelOf).join(", ");
  throw new DiffusionError(
    "option",
    `bench: expected a filter that is part of ${names}, got "${text}"`,
  );
}

interface Measurement {
  workload: string;
  batch: number;
  medianMs: number;
  minMs: number;
  maxMs: number;
  /** CPU time of a run, all threads: near wall time x threads on a machine that does nothing else. */
  cpuMs: number;
  /** Most memory that a process of this workload alone has held, with its preparation. */
  peakBytes: number;
  /** Of convolutions and matrix products, counted directly; 0 without any. */
  gflops: number;
  /** Of the speed that the machine could reach, with convolutions counted directly and by Winograd's algorithm. */
  shareOfDirectBound: number;
  shareOfBound: number;
}

const rounds = 3; // of all workloads in turn: a slow moment of the machine falls on a part of each

/** Runs a worker, which says on stderr why it fails. Throws "aborted" with the signal, "device" when it ends without an answer. */
async function visited(visit: Visit, signal: AbortSignal): Promise<Visited> {
  const worker = fileURLToPath(new URL("./bench-worker.js", import.meta.url));
  const child = spawn(process.execPath, [worker, JSON.stringify(visit)], {
    stdio: ["ignore", "pipe", "inherit"],
    signal,
  });
  let end: string;
  try {
    const [answer, [code, killed]] = await Promise.all([
      text(child.stdout),
      once(child, "close") as Promise<[number | null, string | null]>,
    ]);
    if (code === 0) return JSON.parse(answer) as Visited;
    end = killed ?? `exit code ${code}`;
  } catch (error) {
    end = String(error);
  }
  if (signal.aborted) throw new DiffusionError("aborted", "bench: stopped");
  throw new DiffusionError(
    "device",
    `bench: expected the process of ${visit.name} b${visit.batch} to measure it, got ${end}; it may want more memory than there is`,
  );
}

function measured(workload: BenchWorkload, visits: Visited[], limits: Limits): Measurement {
  const times = visits.flatMap((visit) => visit.times).sort((a, b) => a - b);
  const medianMs = times[times.length >> 1]!;
  const bound = boundOf(workload, limits);
  return {
    workload: workload.name,
    batch: workload.batch,
    medianMs,
    minMs: times[0]!,
    maxMs: times.at(-1)!,
    cpuMs: visits.reduce((sum, visit) => sum + visit.cpuMs, 0) / times.length,
    peakBytes: Math.max(...visits.map((visit) => visit.peakBytes)),
    gflops: (1000 * bound.gflop) / medianMs,
    shareOfDirectBound: bound.directMs / medianMs,
    shareOfBound: bound.winogradMs / medianMs,
  };
}

/** Visits all workloads in turn, some times, each visit a process. */
async function measure(
  chosen: readonly BenchWorkload[],
  settings: Pick<Visit, "threads" | "seed" | "seconds">,
  limits: Limits,
): Promise<Measurement[]> {
  const signal = interruptSignal("stopping");
  const bar = progress("bench");
  const visits = chosen.map((): Visited[] => []);
  for (let i = 0; i < rounds * chosen.length; ++i) {
    const { name, batch } = chosen[i % chosen.length]!;
    const seconds = settings.seconds / rounds;
    visits[i % chosen.length]!.push(await visited({ ...settings, name, batch, seconds }, signal));
    bar.update(i + 1, rounds * chosen.length, name);
  }
  bar.stop();
  return chosen.map((workload, i) => measured(workload, visits[i]!, limits));
}

const row = (m: Measurement): string =>
  [
    `${m.workload} b${m.batch}`.padEnd(28),
    `${m.medianMs.toFixed(3).padStart(10)} ms (${m.minMs.toFixed(3)}–${m.maxMs.toFixed(3)})`,
    `${m.cpuMs.toFixed(1)} ms CPU`,
    formatBytes(m.peakBytes),
    m.gflops > 0 ? `${m.gflops.toFixed(1)} GFLOP/s` : "",
    `${(100 * m.shareOfBound).toFixed(0)} % of the bound`,
    `(${(100 * m.shareOfDirectBound).toFixed(0)} % direct)`,
  ].join("  ");

export const bench = withCommonOptions(new Command("bench"))
  .summary("speed of the core on this machine")
  .description(
    "Measure networks, training steps and kernels on this machine: medians, spread, CPU time, peak memory, share of the bound that its arithmetic and its memory set. Each is measured in processes of its own, all in turn.",
  )
  .option("--seconds <n>", "time for each workload", realNumber(0.1, 600), 1)
  .option("--filter <text>", "only workloads whose name contains this")
  .action(async (options: BenchOptions) => {
    applyCommonOptions(options);
    const chosen = chosenWorkloads(options.filter ?? "");
    const { cpu } = describeBackends();
    const threads = cpu?.threads ?? 1;
    const limits = await measureLimits(threads);
    const { seed, seconds } = options;
    const measurements = await measure(chosen, { threads, seed, seconds }, limits);
    const head = `${cpu?.name ?? "unknown CPU"}, ${cpu?.isa}, ${cpu?.threads} threads; ${limits.gflops.toFixed(0)} GFLOP/s, ${limits.memory.toFixed(0)} GB/s from memory, ${limits.cache.toFixed(0)} GB/s from cache`;
    result(
      { cpu, limits, measurements },
      [head, ...measurements.map(row)].join("\n"),
      options.json,
    );
  });
