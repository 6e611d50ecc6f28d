// `smalti bench`: speed of the core on this machine, with the share of its measured peak.
import { Command } from "commander";
import { DiffusionError } from "../errors.js";
import type { Graph } from "../ir/graph.js";
import { describeBackends } from "../runtime/device.js";
import { measurePeak } from "../runtime/peak.js";
import { compile } from "../runtime/program.js";
import { arrayFor, Buffer, type TensorData } from "../runtime/buffer.js";
import { sizeOf } from "../ir/shape.js";
import { conv2d, groupNorm, nearestCodes } from "../trace/functions.js";
import { trace, type Trace } from "../trace/trace.js";
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

interface Workload {
  name: string;
  build: (t: Trace) => void;
}

const zeros = { kind: "zeros" } as const;

const matmulWorkload = (M: number, N: number, K: number): Workload => ({
  name: `matmul ${M}x${N}x${K}`,
  build: (t) =>
    t.output(
      "y",
      t
        .input("x", { shape: [M, K] })
        .matmul(t.parameter({ name: "w", shape: [K, N], init: zeros })),
    ),
});

const convWorkload = (B: number, size: number, C: number): Workload => ({
  name: `conv 3x3 ${C}->${C} @${size}x${size} batch ${B}`,
  build: (t) => {
    const w = t.parameter({ name: "w", shape: [3, 3, C, C], init: zeros });
    t.output(
      "y",
      conv2d(t.input("x", { shape: [B, size, size, C] }), w, { padding: [1, 1, 1, 1] }),
    );
  },
});

const normWorkload: Workload = {
  name: "group norm + SiLU 128 @32x32",
  build: (t) => {
    const gamma = t.parameter({ name: "gamma", shape: [128], init: zeros });
    const beta = t.parameter({ name: "beta", shape: [128], init: zeros });
    const x = t.input("x", { shape: [1, 32, 32, 128] });
    t.output("y", groupNorm(x, gamma, beta, { groups: 32, eps: 1e-6, activation: "silu" }));
  },
};

const codesWorkload = (N: number, K: number, D: number): Workload => ({
  name: `nearest codes ${N} x ${K} x ${D}`,
  build: (t) =>
    t.output(
      "i",
      nearestCodes(t.input("z", { shape: [N, D] }), t.input("e", { shape: [K, D] }), {
        metric: "euclidean",
      }),
    ),
});

const workloads: Workload[] = [
  matmulWorkload(512, 512, 512),
  convWorkload(8, 16, 256),
  convWorkload(1, 32, 128),
  normWorkload,
  codesWorkload(4096, 1024, 256),
];

/** Throws "option" when no name contains the text. */
function chosenWorkloads(text: string): Workload[] {
  const chosen = workloads.filter(({ name }) => name.includes(text));
  if (chosen.length > 0) return chosen;
  const names = workloads.map(({ name }) => name).join(", ");
  throw new DiffusionError(
    "option",
    `bench: expected a filter that is part of ${names}, got "${text}"`,
  );
}

interface Measurement {
  workload: string;
  medianMs: number;
  minMs: number;
  maxMs: number;
  gflops: number;
  /** Of the measured multiply-add peak of all threads. */
  shareOfPeak: number;
}

/** Random values, so that no multiplication is by zero. */
function fill(data: TensorData, seed: number): TensorData {
  let state = (seed + 1) >>> 0;
  for (let i = 0; i < data.length; ++i) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[i] = state / 2 ** 32 - 0.5;
  }
  return data;
}

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

async function measure(
  { name, build }: Workload,
  { seconds, seed }: BenchOptions,
  peak: number,
): Promise<Measurement> {
  const graph: Graph = trace(build);
  using program = await compile(graph);
  const values = (wanted: boolean) =>
    program.graph.inputs
      .filter(({ role }) => (role === "input") === wanted)
      .map(({ name: key, value }) => ({ key, ...program.graph.values[value]! }));
  const weights = values(false).map(({ key, dtype, shape }): [string, Buffer] => [
    key,
    Buffer.fromArray(fill(arrayFor(dtype, sizeOf(shape)), seed), dtype, shape),
  ]);
  const inputs = values(true).map(
    ({ key, dtype, shape }) => [key, fill(arrayFor(dtype, sizeOf(shape)), seed)] as const,
  );
  using session = await program.bind(Object.fromEntries(weights));
  const times: number[] = [];
  const end = performance.now() + seconds * 1000;
  await session.run(Object.fromEntries(inputs));
  while (performance.now() < end || times.length < 5) {
    times.push(await session.timedRun(Object.fromEntries(inputs)));
  }
  const medianMs = median(times);
  const gflops = program.plan().flops / medianMs / 1e6;
  weights.forEach(([, buffer]) => buffer.dispose());
  return {
    workload: name,
    medianMs,
    minMs: Math.min(...times),
    maxMs: Math.max(...times),
    gflops,
    shareOfPeak: gflops / peak,
  };
}

export const bench = withCommonOptions(new Command("bench"))
  .summary("speed of the core on this machine")
  .description("Measure the core on this machine: medians, spread, share of the multiply-add peak.")
  .option("--seconds <n>", "time for each workload", realNumber(0.1, 600), 1)
  .option("--filter <text>", "only workloads whose name contains this")
  .action(async (options: BenchOptions) => {
    applyCommonOptions(options);
    const chosen = chosenWorkloads(options.filter ?? "");
    const { cpu } = describeBackends();
    const peakPerThread = await measurePeak();
    const peak = peakPerThread * (cpu?.threads ?? 1);
    const bar = progress("bench", chosen.length);
    const measurements: Measurement[] = [];
    for (const workload of chosen) {
      measurements.push(await measure(workload, options, peak));
      bar.update(measurements.length, workload.name);
    }
    bar.stop();
    const rows = measurements.map(
      (m) =>
        `${m.workload.padEnd(40)} ${m.medianMs.toFixed(3).padStart(9)} ms (${m.minMs.toFixed(3)}–${m.maxMs.toFixed(3)})  ${m.gflops.toFixed(1).padStart(7)} GFLOP/s  ${(100 * m.shareOfPeak).toFixed(0).padStart(3)} % of peak`,
    );
    const head = `${cpu?.name ?? "unknown CPU"}, ${cpu?.isa}, ${cpu?.threads} threads, peak ${peak.toFixed(0)} GFLOP/s (${peakPerThread.toFixed(0)} a thread)`;
    result({ cpu, peakPerThread, peak, measurements }, [head, ...rows].join("\n"), options.json);
  });
