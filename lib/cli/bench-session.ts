// A workload made ready to run: compiled, with random weights, and timed one run at a time.
import type { Role } from "../ir/graph.js";
import { sizeOf } from "../ir/shape.js";
import { arrayFor, Buffer, type TensorData } from "../runtime/buffer.js";
import { compile, type Program, type Session } from "../runtime/program.js";
import type { BenchWorkload } from "./bench-workloads.js";

export interface BoundWorkload {
  session: Session;
  /** Given at each run. */
  inputs: Record<string, TensorData>;
  /** Buffers that runs read and write, by name. */
  state: Record<string, Buffer>;
}

export interface ReadyWorkload extends Disposable {
  /** Milliseconds of one run. */
  run: () => Promise<number>;
}

/** Random values between -scale and scale. */
function fill(data: TensorData, scale: number, seed: number): TensorData {
  let state = (seed + 1) >>> 0;
  for (let i = 0; i < data.length; ++i) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[i] = (state / 2 ** 31 - 1) * scale;
  }
  return data;
}

/** Deviation that keeps activations of the same size from layer to layer. */
const scaleOf = (role: string, shape: readonly number[]): number =>
  role === "input" || shape.length < 2 ? 1 : Math.sqrt((3 * shape.at(-1)!) / sizeOf(shape));

/**
 * Binds a compiled workload to random values; averages of a training step start at zero. `given` weights are used instead
 * of random ones, and disposed of as those.
 */
export async function bindRandom(
  workload: BenchWorkload,
  program: Program,
  seed: number,
  given?: Record<string, Buffer>,
): Promise<BoundWorkload> {
  const declared = program.graph.inputs.map((input) => ({
    ...input,
    ...program.graph.values[input.value]!,
  }));
  const filled = declared.filter(({ role }) => !given || role !== "weight");
  const scratch = new ArrayBuffer(4 * Math.max(...filled.map(({ shape }) => sizeOf(shape))));
  const valuesOf = ({ name, role, dtype, shape }: (typeof declared)[number]): TensorData => {
    const size = sizeOf(shape);
    const chosen = workload.values?.[name];
    if (chosen) return chosen(size);
    const data = arrayFor(dtype, scratch).subarray(0, size);
    if (/^[mv]\./.test(name) || dtype !== "f32") return data.fill(0);
    return fill(data, scaleOf(role, shape), seed);
  };
  const made = (role: Role): Record<string, Buffer> =>
    Object.fromEntries(
      declared
        .filter((input) => input.role === role)
        .map((input) => [input.name, Buffer.fromArray(valuesOf(input), input.dtype, input.shape)]),
    );
  const [weights, state] = [given ?? made("weight"), made("state")];
  const fed = declared.filter(({ role }) => role === "input");
  const inputs = Object.fromEntries(fed.map((input) => [input.name, valuesOf(input).slice()]));
  const session = await program.bind({ ...weights, ...state });
  Object.values(weights).forEach((buffer) => buffer.dispose()); // the session keeps what it reads
  return { session, inputs, state };
}

/** Compiles a workload and binds it to random values, or to given weights. */
export async function prepare(
  workload: BenchWorkload,
  seed: number,
  given?: Record<string, Buffer>,
): Promise<ReadyWorkload> {
  const program = await compile(workload.graph(), workload.compileOptions);
  const { session, inputs, state } = await bindRandom(workload, program, seed, given);
  const timedCall = async (): Promise<number> => {
    const start = performance.now();
    await session.run(inputs);
    return performance.now() - start;
  };
  return {
    run: workload.kind === "kernel" ? () => session.timedRun(inputs) : timedCall,
    [Symbol.dispose]() {
      session.dispose();
      program.dispose();
      Object.values(state).forEach((buffer) => buffer.dispose());
    },
  };
}
