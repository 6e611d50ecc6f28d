// compile(graph) → Program → bind(buffers) → Session → run(inputs): the whole life of a computation.
import { DiffusionError, formatShape, nearestName } from "../errors.js";
import { encode } from "../ir/encode.js";
import type { Graph, GraphInput, Value } from "../ir/graph.js";
import { sameShape, sizeOf } from "../ir/shape.js";
import { lower } from "../trace/lower.js";
import { arrayFor, expectData, type Buffer, type TensorData } from "./buffer.js";
import { chosenIsa } from "./device.js";
import {
  native,
  nativeCall,
  type NativePlan,
  type NativeProgram,
  type NativeSession,
} from "./native.js";

export interface CompileOptions {
  /** "ref", "scalar", "avx2", "avx512" or "neon"; default SMALTI_ISA or the best of this CPU. */
  isa?: string;
}

/** Named outputs of a run. */
export type RunOutputs = Record<string, TensorData>;

export interface RunOptions {
  /** Stops the run between instructions; it then rejects with code "aborted". */
  signal?: AbortSignal;
}

let kernelNames: ReadonlySet<string> | undefined;

/**
 * Compiles a graph for the core, off the event loop. Throws "option" for an instruction set that this CPU lacks, "memory"
 * when the plan does not fit.
 */
export async function compile(
  graph: Graph,
  { isa = chosenIsa() }: CompileOptions = {},
): Promise<Program> {
  const addon = native();
  kernelNames ??= new Set(addon.kernels());
  const lowered = lower(graph, kernelNames);
  const program = await nativeCall(() => addon.compile(encode(lowered), isa));
  return new Program(lowered, program);
}

/** An immutable compiled graph. */
export class Program implements Disposable {
  constructor(
    /** The graph after lowering. */
    readonly graph: Graph,
    private readonly handle: NativeProgram,
  ) {}

  /** Memory, work and a time estimate, known before running. */
  plan(): NativePlan {
    return this.handle.plan();
  }

  /** The instructions as text. */
  print(): string {
    return this.handle.print();
  }

  /** Binds weights and state by name; packs what can be packed. Throws "option" or "shape" for a wrong set of buffers. */
  async bind(buffers: Readonly<Record<string, Buffer>> = {}): Promise<Session> {
    const wanted = this.graph.inputs.filter(({ role }) => role !== "input");
    const handles = wanted.map((input) => this.#bufferFor(input, buffers).handle);
    return new Session(this.graph, await nativeCall(() => this.handle.bind(handles)));
  }

  #bufferFor({ name, value }: GraphInput, buffers: Readonly<Record<string, Buffer>>): Buffer {
    const { dtype, shape } = this.graph.values[value]!;
    const buffer = buffers[name];
    if (!buffer) {
      const near = nearestName(name, Object.keys(buffers));
      throw new DiffusionError(
        "option",
        `bind: expected a buffer for ${name} ${dtype}${formatShape(shape)}, got none${near ? `; the nearest name is ${near}` : ""}`,
      );
    }
    if (buffer.dtype !== dtype || !sameShape(buffer.shape, shape)) {
      throw new DiffusionError(
        "shape",
        `bind: expected ${name} to be ${dtype}${formatShape(shape)}, got ${buffer.dtype}${formatShape(buffer.shape)}`,
      );
    }
    return buffer;
  }

  dispose(): void {
    this.handle.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** A Program with its weights and state bound. Many runs may be asked for at once; they queue. */
export class Session implements Disposable {
  readonly #inputs: { name: string; value: Value }[];
  readonly #outputs: { name: string; value: Value }[];

  constructor(
    graph: Graph,
    private readonly handle: NativeSession,
  ) {
    const withValue = ({ name, value }: { name: string; value: number }) => ({
      name,
      value: graph.values[value]!,
    });
    this.#inputs = graph.inputs.filter(({ role }) => role === "input").map(withValue);
    this.#outputs = graph.outputs.filter(({ updates }) => updates === undefined).map(withValue);
  }

  /**
   * Runs once. Inputs are copied when called; every input of the graph must be given. Throws "shape", "dtype" or "option"
   * for wrong inputs, "memory", or "aborted".
   */
  async run(
    inputs: Readonly<Record<string, TensorData>> = {},
    { signal }: RunOptions = {},
  ): Promise<RunOutputs> {
    const given = this.#inputs.map(({ name, value }) => {
      const data = inputs[name];
      if (data === undefined) throw this.#missing(name, inputs);
      expectData(`run: input ${name}`, data, value.dtype, value.shape);
      return data;
    });
    this.#expectNoOthers(inputs);
    if (signal?.aborted)
      throw new DiffusionError("aborted", "run: stopped by its signal before it began", {
        cause: signal.reason,
      });
    const outputs = this.#outputs.map(({ value }) => arrayFor(value.dtype, sizeOf(value.shape)));
    await this.#execute(given, outputs, signal);
    return Object.fromEntries(this.#outputs.map(({ name }, i) => [name, outputs[i]!]));
  }

  /** Milliseconds of one run inside the core, without queueing and copying. */
  async timedRun(inputs: Readonly<Record<string, TensorData>> = {}): Promise<number> {
    const given = this.#inputs.map(({ name }) => inputs[name]!);
    const outputs = this.#outputs.map(({ value }) => arrayFor(value.dtype, sizeOf(value.shape)));
    return this.#execute(given, outputs, undefined);
  }

  async #execute(
    given: TensorData[],
    outputs: TensorData[],
    signal: AbortSignal | undefined,
  ): Promise<number> {
    const flag = new Int32Array(1);
    const onAbort = (): void => void Atomics.store(flag, 0, 1);
    signal?.addEventListener("abort", onAbort);
    try {
      return (await nativeCall(() => this.handle.run(given, outputs, signal ? { flag } : null))).ms;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  #missing(name: string, inputs: object): DiffusionError {
    const near = nearestName(name, Object.keys(inputs));
    return new DiffusionError(
      "option",
      `run: expected an input ${name}, got ${Object.keys(inputs).join(", ") || "no inputs"}${near ? `; is ${near} a misspelling?` : ""}`,
    );
  }

  #expectNoOthers(inputs: object): void {
    const names = this.#inputs.map(({ name }) => name);
    const other = Object.keys(inputs).find((name) => !names.includes(name));
    if (other === undefined) return;
    const near = nearestName(other, names);
    throw new DiffusionError(
      "option",
      `run: expected inputs ${names.join(", ")}, got "${other}"${near ? `; did you mean "${near}"?` : ""}`,
    );
  }

  dispose(): void {
    this.handle.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
