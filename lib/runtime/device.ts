// What this machine offers, and why a backend is or is not usable.
import { DiffusionError } from "../errors.js";
import { native, nativeSync, type NativeDescription } from "./native.js";

export interface BackendStatus {
  name: string;
  usable: boolean;
  reason: string;
}

export interface BackendReport {
  cpu?: {
    name: string;
    /** Instruction set in use. */
    isa: string;
    /** Those that this CPU has. */
    isas: string[];
    threads: number;
    physicalBytes: number;
    availableBytes: number;
  };
  backends: BackendStatus[];
}

/** The instruction set asked for by SMALTI_ISA, or "" for the best. */
export const chosenIsa = (): string => process.env["SMALTI_ISA"] ?? "";

/** Whether SMALTI_WINOGRAD leaves Winograd's algorithm on: anything but "0". */
export const allowsWinograd = (): boolean => process.env["SMALTI_WINOGRAD"] !== "0";

function cpuReport(d: NativeDescription): Required<BackendReport>["cpu"] {
  const isa = chosenIsa() || d.isa;
  const { cpu: name, isas, threads, physicalBytes, availableBytes } = d;
  return { name, isa, isas, threads, physicalBytes, availableBytes };
}

/** Describes every backend, with that many threads when given; never throws. */
export function describeBackends({ threads }: { threads?: number } = {}): BackendReport {
  const cuda: BackendStatus = {
    name: "cuda",
    usable: false,
    reason: "this version has no CUDA backend",
  };
  try {
    if (threads !== undefined) configureBackend({ threads });
    const cpu = cpuReport(native().describe());
    const isKnown = cpu.isas.includes(cpu.isa) || cpu.isa === "ref";
    const reason = isKnown
      ? `native core loaded, kernels for ${cpu.isa}`
      : `SMALTI_ISA=${cpu.isa} is not one of ${cpu.isas.join(", ")}, ref`;
    return { cpu, backends: [{ name: "cpu", usable: isKnown, reason }, cuda] };
  } catch (error) {
    return { backends: [{ name: "cpu", usable: false, reason: (error as Error).message }, cuda] };
  }
}

/** Sets the number of threads of the core, for the whole process. Throws "option". */
export function configureBackend({ threads }: { threads: number }): void {
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
    throw new DiffusionError(
      "option",
      `configureBackend: expected threads from 1 to 1024, got ${threads}`,
    );
  }
  nativeSync(() => native().configure({ threads }));
}
