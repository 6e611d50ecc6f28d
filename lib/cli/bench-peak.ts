// The most memory that this process has held.
import { readFileSync } from "node:fs";

/**
 * Bytes that this process has had resident at most. Linux knows it of a process alone; elsewhere resourceUsage() tells,
 * which may begin with the memory of whoever started the process.
 */
export function peakMemory(): number {
  try {
    const [, kilobytes] = /VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))!;
    return 1024 * Number(kilobytes);
  } catch {
    return 1024 * process.resourceUsage().maxRSS;
  }
}
