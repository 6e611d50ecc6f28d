// Loads the addon and gives its complete typed surface. Importing this file loads nothing; the first use does.
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { DiffusionError, type ErrorCode } from "../errors.js";

export type TypedArray = Float32Array | Float64Array | Int32Array | Uint8Array | Uint16Array;

export interface NativeBuffer {
  readonly byteLength: number;
  read(offset?: number, bytes?: number): ArrayBuffer;
  write(bytes: Uint8Array, offset?: number): void;
  dispose(): void;
}

/** Where the values of an f32 tensor lie in a file, row-major, little endian. */
export interface FileValues {
  path: string;
  /** Of the first byte. */
  offset: number;
  /** How they are stored. */
  dtype: "f32" | "f16" | "bf16";
}

/** One instruction of a run. */
export interface NativeStep {
  op: string;
  backend: string;
  /** Shapes, for people. */
  text: string;
  scope: string;
  flops: number;
  /** Read and written at the least. */
  bytes: number;
  /** Work items of each phase: what threads share. */
  items: number[];
}

export interface NativePlan {
  /** Bytes of intermediates of one run. */
  arenaBytes: number;
  /** Bytes of packed weights and other values made once when binding. */
  weightBytes: number;
  /** Bytes of scratch of all threads in a run. */
  scratchBytes: number;
  /** Largest total of live intermediates at any point: no plan can need less. */
  lowerBoundBytes: number;
  flops: number;
  bytesMoved: number;
  /** Rough estimate on this machine. */
  estimateMs: number;
  instructions: number;
  /** Largest first. */
  buffers: { name: string; bytes: number }[];
  /** In order of execution. */
  steps: NativeStep[];
}

/** A word that stops a job once it is not 0. */
export type NativeAbort = { flag: Int32Array } | null;

export interface NativeSession {
  /** `times` receives the milliseconds of each instruction; on one thread those of its pieces. */
  run(
    inputs: TypedArray[],
    outputs: TypedArray[],
    abort: NativeAbort,
    times?: number[][],
  ): Promise<{ ms: number }>;
  dispose(): void;
}

export interface NativeProgram {
  plan(): NativePlan;
  print(): string;
  bind(buffers: NativeBuffer[], abort?: NativeAbort): Promise<NativeSession>;
  dispose(): void;
}

export interface NativeDescription {
  version: string;
  isa: string;
  isas: string[];
  threads: number;
  physicalBytes: number;
  availableBytes: number;
  cpu: string;
  napi: number;
}

export interface NativeAddon {
  /** Names of the operations that compile accepts. */
  kernels(): string[];
  describe(): NativeDescription;
  configure(options: { threads?: number }): void;
  /** For tests: allocations of more than this many bytes in all fail; 0 = no limit. */
  setAllocationLimit(bytes: number): void;
  compile(
    bytes: Uint8Array,
    isa: string,
    abort?: NativeAbort,
    choices?: { winograd: boolean; quantize: string },
  ): Promise<NativeProgram>;
  /** GFLOP/s of multiply-adds in registers, one thread. */
  measurePeak(isa: string, milliseconds: number): Promise<number>;
  /** Native text of an encoded graph. */
  print(bytes: Uint8Array): string;
  /** `name` is for errors; zeros without a source. */
  NativeBuffer: new (bytes: number, name?: string, source?: FileValues) => NativeBuffer;
}

const requiredNapi = 9;
const maxThreads = 1024; // kMaxThreads of bindings/
let addon: NativeAddon | undefined;

/** Where the addon is: SMALTI_ADDON, or build/Release below a folder above this file. */
export function addonPath(): string {
  const given = process.env["SMALTI_ADDON"];
  if (given) return given;
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const path = join(folder, "build", "Release", "smalti.node");
    if (existsSync(path)) return path;
    const parent = dirname(folder);
    if (parent === folder) {
      throw new DiffusionError(
        "device",
        "core: expected build/Release/smalti.node above the library, got none; run npm run build in the package folder",
      );
    }
    folder = parent;
  }
}

/**
 * The addon, loaded on first use. Throws "device" with the reason when it cannot be loaded, "option" for a wrong
 * SMALTI_THREADS.
 */
export function native(): NativeAddon {
  if (addon) return addon;
  const napi = Number(process.versions.napi);
  if (!(napi >= requiredNapi)) {
    throw new DiffusionError(
      "device",
      `core: expected Node-API ${requiredNapi} or newer, got ${napi} in Node ${process.version}; use Node 20.19 or newer`,
    );
  }
  const path = addonPath();
  let loaded: NativeAddon;
  try {
    loaded = createRequire(import.meta.url)(path) as NativeAddon;
  } catch (cause) {
    throw new DiffusionError(
      "device",
      `core: expected a loadable addon, got ${(cause as Error).message}; run npm run build again`,
      { cause },
    );
  }
  const threads = threadsOfEnvironment();
  if (threads !== undefined) loaded.configure({ threads });
  addon = loaded;
  return addon;
}

/** What SMALTI_THREADS asks for, if anything. */
function threadsOfEnvironment(): number | undefined {
  const given = process.env["SMALTI_THREADS"];
  if (!given) return undefined;
  const threads = Number(given);
  if (Number.isInteger(threads) && threads >= 1 && threads <= maxThreads) return threads;
  throw new DiffusionError(
    "option",
    `SMALTI_THREADS: expected a whole number from 1 to ${maxThreads}, got "${given}"`,
  );
}

const codes: ReadonlySet<string> = new Set([
  "shape",
  "dtype",
  "option",
  "checkpoint",
  "device",
  "memory",
  "aborted",
  "internal",
  "data",
  "numeric",
]);

/** A native error as a DiffusionError. */
function asDiffusionError(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof DiffusionError) return error;
  const code = (error as { code?: string }).code;
  if (code === undefined || !codes.has(code)) return error;
  return new DiffusionError(code as ErrorCode, error.message, { cause: error });
}

/** Runs a native call that answers at once, turning its errors into DiffusionErrors. */
export function nativeSync<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw asDiffusionError(error);
  }
}

/**
 * Runs a native call, turning its errors into DiffusionErrors; the stack is that of the caller. The call is given a word
 * that `signal` sets, if there is one.
 */
export async function nativeCall<T>(
  call: (abort: NativeAbort) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const caller = new Error("call");
  const flag = new Int32Array([signal?.aborted ? 1 : 0]);
  const onAbort = (): void => void Atomics.store(flag, 0, 1);
  signal?.addEventListener("abort", onAbort);
  try {
    return await call(signal ? { flag } : null);
  } catch (error) {
    const converted = asDiffusionError(error);
    if (converted instanceof Error && caller.stack) {
      converted.stack = `${converted.name}: ${converted.message}\n${caller.stack.split("\n").slice(2).join("\n")}`;
    }
    throw converted;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}
