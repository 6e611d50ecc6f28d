// `smalti bench`: speed of networks, training steps and kernels on this machine, with the share of what it could do.
import { Command } from "commander";
import { DiffusionError } from "../errors.js";
import { describeBackends } from "../runtime/device.js";
import { boundOf, measureLimits, type Limits } from "./bench-bound.js";
import { prepare } from "./bench-session.js";
import { benchWorkloads, type BenchWorkload } from "./bench-workloads.js";
import {
  applyCommonOptions,
  realNumber,
  withCommonOptions,
  type CommonOptions,
} from "./options.js";
import { progress, result } from "./terminal.js";

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
  /** Of convolutions and matrix products, counted directly; 0 without any. */
  gflops: number;
  /** Of the speed that the machine could reach, with convolutions counted directly and by Winograd's algorithm. */
  shareOfDirectBound: number;
  shareOfBound: number;
}

async function measure(
  workload: BenchWorkload,
  { seconds, seed }: BenchOptions,
  limits: Limits,
): Promise<Measurement> {
  using ready = await prepare(workload, seed);
  const times: number[] = [];
  await ready.run();
  const end = performance.now() + seconds * 1000;
  const before = process.cpuUsage();
  while (performance.now() < end || times.length < 5) times.push(await ready.run());
  const { user, system } = process.cpuUsage(before);
  times.sort((a, b) => a - b);
  const medianMs = times[times.length >> 1]!;
  const bound = boundOf(workload, limits);
  return {
    workload: workload.name,
    batch: workload.batch,
    medianMs,
    minMs: times[0]!,
    maxMs: times.at(-1)!,
    cpuMs: (user + system) / 1000 / times.length,
    gflops: (1000 * bound.gflop) / medianMs,
    shareOfDirectBound: bound.directMs / medianMs,
    shareOfBound: bound.winogradMs / medianMs,
  };
}

const row = (m: Measurement): string =>
  [
    `${m.workload} b${m.batch}`.padEnd(28),
    `${m.medianMs.toFixed(3).padStart(10)} ms (${m.minMs.toFixed(3)}–${m.maxMs.toFixed(3)})`,
    `${m.cpuMs.toFixed(1)} ms CPU`,
    m.gflops > 0 ? `${m.gflops.toFixed(1)} GFLOP/s` : "",
    `${(100 * m.shareOfBound).toFixed(0)} % of the bound`,
    `(${(100 * m.shareOfDirectBound).toFixed(0)} % direct)`,
  ].join("  ");

export const bench = withCommonOptions(new Command("bench"))
  .summary("speed of the core on this machine")
  .description(
    "Measure networks, training steps and kernels on this machine: medians, spread, share of the bound that its arithmetic and its memory set.",
  )
  .option("--seconds <n>", "time for each workload", realNumber(0.1, 600), 1)
  .option("--filter <text>", "only workloads whose name contains this")
  .action(async (options: BenchOptions) => {
    applyCommonOptions(options);
    const chosen = chosenWorkloads(options.filter ?? "");
    const { cpu } = describeBackends();
    const limits = await measureLimits(cpu?.threads ?? 1);
    const bar = progress("bench");
    const measurements: Measurement[] = [];
    for (const workload of chosen) {
      measurements.push(await measure(workload, options, limits));
      bar.update(measurements.length, chosen.length, workload.name);
    }
    bar.stop();
    const head = `${cpu?.name ?? "unknown CPU"}, ${cpu?.isa}, ${cpu?.threads} threads; ${limits.gflops.toFixed(0)} GFLOP/s, ${limits.memory.toFixed(0)} GB/s from memory, ${limits.cache.toFixed(0)} GB/s from cache`;
    result(
      { cpu, limits, measurements },
      [head, ...measurements.map(row)].join("\n"),
      options.json,
    );
  });
