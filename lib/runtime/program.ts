// compile(graph) → Program → bind(buffers) → Session → run(inputs): the whole life of a computation.
import { DiffusionError, formatShape, nearestName, throwIfAborted } from "../errors.js";
import { encode } from "../ir/encode.js";
import type { Graph, GraphInput, Value } from "../ir/graph.js";
import { sameShape, sizeOf } from "../ir/shape.js";
import { foldProjections } from "../trace/fold.js";
import { joinProjections } from "../trace/join.js";
import { lower } from "../trace/lower.js";
import { arrayFor, expectData, type Buffer, type TensorData } from "./buffer.js";
import { allowsWinograd, chosenIsa } from "./device.js";
import {
  native,
  nativeCall,
  nativeSync,
  type NativePlan,
  type NativeProgram,
  type NativeSession,
} from "./native.js";

/** How the products of weights are computed when not in floats. */
const quantizeWays = ["int8", "int8-weights", "f16-weights"] as const;
export type Quantize = (typeof quantizeWays)[number];

export interface CompileOptions {
  /** "ref", "scalar", "avx2", "avx512", "zen4", "amx" or "neon"; default SMALTI_ISA or the best of this CPU. */
  isa?: string;
  /**
   * Lets 3x3 convolutions run by Winograd's algorithm and matrix products by Strassen's, by pairs of terms or in digits where that is faster: up to
   * four times the rounding error and the memory of the weight; default true unless SMALTI_WINOGRAD is 0.
   */
  winograd?: boolean;
  /**
   * "int8": products of a weight with 16 or more input and 32 or more output channels run on 8-bit integers, with a scale
   * for each column of the weight and, found in each run, a scale and a zero point for each picture (each row of a matrix).
   * Faster where the CPU has VNNI or AMX, a quarter of the weights' memory, an error of about 0.5 % of a product.
   * "int8-weights" and "f16-weights": weights of such matrix products and 1x1 convolutions are stored in 8 bits, or in half
   * precision, with a scale for each column; everything is computed in floats. A quarter or half of their memory, errors of
   * about 0.4 % and 0.02 % of a product; faster where the reading of weights bounds, with few rows. Default: floats.
   */
  quantize?: Quantize;
  /** Stops the compilation, which then rejects with code "aborted". */
  signal?: AbortSignal;
}

export interface BindOptions {
  /** Stops the preparation of weights, which then rejects with code "aborted". */
  signal?: AbortSignal;
}

/** Named outputs of a run. */
export type RunOutputs = Record<string, TensorData>;

export interface RunOptions {
  /** Stops the run between instructions; it then rejects with code "aborted". */
  signal?: AbortSignal;
}

let kernelNames: ReadonlySet<string> | undefined;

/**
 * Compiles a graph for the core, off the event loop. Throws "device" for an instruction set that this CPU lacks, "memory"
 * when the constants do not fit or a tensor is beyond any machine, "aborted" when the signal stops it.
 */
export async function compile(
  graph: Graph,
  { isa = chosenIsa(), winograd = allowsWinograd(), quantize, signal }: CompileOptions = {},
): Promise<Program> {
  throwIfAborted(signal, "compile");
  checkQuantize("compile", quantize);
  const addon = native();
  kernelNames ??= new Set(addon.kernels());
  const lowered = lower(graph, kernelNames);
  // Narrow weights are packed whole: joined ones would exist twice for a moment.
  const bytes = encode(
    quantize?.endsWith("weights") ? lowered : joinProjections(foldProjections(lowered)),
  );
  const choices = { winograd, quantize: quantize ?? "" };
  const compiled = nativeCall((abort) => addon.compile(bytes, isa, abort, choices), signal);
  return new Program(lowered, await unlessAborted("compile", compiled, signal));
}

/** Throws "option" for anything but a way to quantise, or none. */
export function checkQuantize(
  where: string,
  quantize: unknown,
): asserts quantize is Quantize | undefined {
  if (quantize === undefined || quantizeWays.some((way) => way === quantize)) return;
  const ways = quantizeWays.map((way) => JSON.stringify(way)).join(", ");
  throw new DiffusionError(
    "option",
    `${where}: expected quantize ${ways} or none, got ${JSON.stringify(quantize)}`,
  );
}

/** Rejects as soon as the signal fires, also while the work waits for its turn; its late result is disposed. */
function unlessAborted<T extends { dispose(): void }>(
  where: string,
  work: Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      work.then(
        (late) => late.dispose(),
        () => undefined, // rejected below
      );
      reject(
        new DiffusionError("aborted", `${where}: stopped by its signal`, { cause: signal.reason }),
      );
    };
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
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
    return nativeSync(() => this.handle.plan());
  }

  /** The instructions as text. */
  print(): string {
    return nativeSync(() => this.handle.print());
  }

  /**
   * Binds weights and state by name; packs what can be packed. Throws "option" or "shape" for a wrong set of buffers,
   * "memory", or "aborted".
   */
  async bind(
    buffers: Readonly<Record<string, Buffer>> = {},
    { signal }: BindOptions = {},
  ): Promise<Session> {
    throwIfAborted(signal, "bind");
    const wanted = this.graph.inputs.filter(({ role }) => role !== "input");
    const handles = wanted.map((input) => this.#bufferFor(input, buffers).handle);
    const session = await nativeCall((abort) => this.handle.bind(handles, abort), signal);
    return new Session(this.graph, session);
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
    throwIfAborted(signal, "run");
    const outputs = this.#outputs.map(({ value }) => arrayFor(value.dtype, sizeOf(value.shape)));
    await this.#execute(given, outputs, signal);
    return Object.fromEntries(this.#outputs.map(({ name }, i) => [name, outputs[i]!]));
  }

  /** Milliseconds of one run inside the core, without queueing and copying. */
  async timedRun(inputs: Readonly<Record<string, TensorData>> = {}): Promise<number> {
    return this.#timed(inputs);
  }

  /** Milliseconds of each instruction of one run, in the order of `plan().steps`. */
  async profile(inputs: Readonly<Record<string, TensorData>> = {}): Promise<number[]> {
    const times = await this.profilePieces(inputs);
    return times.map((pieces) => pieces.reduce((sum, ms) => sum + ms, 0));
  }

  /** As `profile`; on one thread by piece of work, in the order of phases and items. */
  async profilePieces(inputs: Readonly<Record<string, TensorData>> = {}): Promise<number[][]> {
    const times: number[][] = [];
    await this.#timed(inputs, times);
    return times;
  }

  #timed(inputs: Readonly<Record<string, TensorData>>, times?: number[][]): Promise<number> {
    const given = this.#inputs.map(({ name }) => inputs[name]!);
    const outputs = this.#outputs.map(({ value }) => arrayFor(value.dtype, sizeOf(value.shape)));
    return this.#execute(given, outputs, undefined, times);
  }

  async #execute(
    given: TensorData[],
    outputs: TensorData[],
    signal: AbortSignal | undefined,
    times?: number[][],
  ): Promise<number> {
    return (await nativeCall((abort) => this.handle.run(given, outputs, abort, times), signal)).ms;
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
