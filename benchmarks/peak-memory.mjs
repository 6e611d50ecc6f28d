// The most memory that this process has held.
import { readFileSync } from "node:fs";

/** Bytes. Linux knows it; elsewhere resourceUsage() tells, which may begin with the memory of whoever started the process. */
export function peakMemory() {
  try {
    return 1024 * Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]);
  } catch {
    return 1024 * process.resourceUsage().maxRSS;
  }
}
