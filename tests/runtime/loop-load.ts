// How much this program itself holds up the event loop, on however busy a machine: the processor time of the thread
// from beat to beat of a timer, and the share of all time in which it neither computed, nor waited for a processor that
// others used (of this machine or, where it is a virtual one, of its host), nor rested in the loop, that is, waited for
// something in the middle of its work.
import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";

const beat = 1; // milliseconds

/** Milliseconds that this thread has computed, and has been ready without a processor; Linux with such statistics only. */
function threadTimes(): { computed: number; queued: number } | undefined {
  try {
    const [computed = 0, queued = 0] = readFileSync("/proc/thread-self/schedstat", "utf8")
      .split(" ")
      .map((nanoseconds) => Number(nanoseconds) / 1e6);
    return computed > 0 ? { computed, queued: queued + stolenTime() } : undefined;
  } catch {
    return undefined;
  }
}

/** Milliseconds that a host has kept from all processors of its virtual machine: at most what this thread has lost. */
function stolenTime(): number {
  const ticks = readFileSync("/proc/stat", "utf8").split("\n", 1)[0]!.split(/ +/)[8];
  return 10 * Number(ticks ?? 0);
}

/** Where there is no clock of the thread, all time outside the loop's rest counts as computed. */
function read(): { active: number; computed: number; queued: number } {
  const { active } = performance.eventLoopUtilization();
  return { active, ...(threadTimes() ?? { computed: active, queued: 0 }) };
}

export interface LoopLoad {
  /** Milliseconds of work that 99 of 100 beats do not exceed. */
  p99: number;
  /** Share of the time in which the thread was not kept from a processor, 0 to 1. */
  waited: number;
}

export async function loopLoad(work: () => Promise<unknown>): Promise<LoopLoad> {
  const beats: number[] = [];
  const start = performance.now();
  const first = read();
  let last = first;
  const tick = (): void => {
    const now = read();
    beats.push(now.computed - last.computed);
    last = now;
  };
  const timer = setInterval(tick, beat);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  tick(); // work at the very end shows as well
  const queued = last.queued - first.queued;
  const explained = last.computed - first.computed + queued;
  return {
    p99: beats.toSorted((a, b) => a - b)[Math.ceil(0.99 * beats.length) - 1]!,
    waited:
      Math.max(0, last.active - first.active - explained) / (performance.now() - start - queued),
  };
}

/** Whether one of three attempts leaves the loop free: beats of less than that many ms of work, and hardly any waiting. */
export async function leavesLoopFree(work: () => Promise<unknown>, most = 10): Promise<boolean> {
  for (let attempt = 0; attempt < 3; attempt++) {
    const { p99, waited } = await loopLoad(work);
    if (p99 < most && waited < 0.3) return true;
  }
  return false;
}

/** Keeps this thread busy for that much processor time. */
export function computeFor(milliseconds: number): void {
  const clock = (): number => threadTimes()?.computed ?? performance.now();
  const end = clock() + milliseconds;
  while (clock() < end);
}

/** Makes this thread wait. */
export function waitFor(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}
