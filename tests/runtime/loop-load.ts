// How much this program itself holds up the event loop, on however busy a machine: the processor time of the thread
// from beat to beat of a timer, and the share of all time in which it neither computed, nor waited for a processor that
// others used (of this machine or, where it is a virtual one, of its host), nor rested in the loop, that is, waited for
// something in the middle of its work.
import { readFileSync } from "node:fs";
import { performance } from "node:perf_hooks";

const beat = 1; // milliseconds

interface Reading {
  /** Milliseconds outside the loop's rest. */
  active: number;
  /** Milliseconds that this thread has computed. */
  computed: number;
  /** Milliseconds that it has been ready without a processor of this machine. */
  queued: number;
  /** Milliseconds that a host has kept from the processor that now runs this thread, and its name. */
  stolen: number;
  processor: string;
}

/** Computed and queued; Linux with such statistics only. */
function threadTimes(): [number, number] | undefined {
  try {
    const [computed = 0, queued = 0] = readFileSync("/proc/thread-self/schedstat", "utf8")
      .split(" ")
      .map((nanoseconds) => Number(nanoseconds) / 1e6);
    return computed > 0 ? [computed, queued] : undefined;
  } catch {
    return undefined;
  }
}

/** Where there is no clock of the thread, all time outside the loop's rest counts as computed. */
function read(): Reading {
  const { active } = performance.eventLoopUtilization();
  const times = threadTimes();
  if (times === undefined) {
    return { active, computed: active, queued: 0, stolen: 0, processor: "" };
  }
  const state = readFileSync("/proc/thread-self/stat", "utf8").split(") ").at(-1)!;
  const processor = `cpu${state.split(" ")[36]} `;
  const lines = readFileSync("/proc/stat", "utf8").split("\n");
  const ticks = lines.find((line) => line.startsWith(processor))?.split(" ")[8];
  return {
    active,
    computed: times[0],
    queued: times[1],
    stolen: 10 * Number(ticks ?? 0),
    processor,
  };
}

export interface LoopLoad {
  /** Milliseconds of work that 99 of 100 beats do not exceed. */
  p99: number;
  /** Share of the time in which the thread was not kept from a processor, 0 to 1. */
  waited: number;
}

export async function loopLoad(work: () => Promise<unknown>): Promise<LoopLoad> {
  const beats: number[] = [];
  let stolen = 0;
  const start = performance.now();
  const first = read();
  let last = first;
  const tick = (): void => {
    const now = read();
    beats.push(now.computed - last.computed);
    if (now.processor === last.processor) stolen += now.stolen - last.stolen;
    last = now;
  };
  const timer = setInterval(tick, beat);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  tick(); // work at the very end shows as well
  const elapsed = performance.now() - start;
  const queued = Math.min(elapsed - beat, last.queued - first.queued + stolen);
  const explained = last.computed - first.computed + queued;
  return {
    p99: beats.toSorted((a, b) => a - b)[Math.ceil(0.99 * beats.length) - 1]!,
    waited: Math.max(0, last.active - first.active - explained) / (elapsed - queued),
  };
}

/** Whether in one of three attempts the work leaves the loop free, or holds it up, as asked. */
async function isSeen(free: boolean, work: () => Promise<unknown>, most: number): Promise<boolean> {
  for (let attempt = 0; attempt < 3; attempt++) {
    const { p99, waited } = await loopLoad(work);
    if ((p99 < most && waited < 0.3) === free) return true;
  }
  return false;
}

/** Beats of less than that many milliseconds of work, and hardly any waiting, in one of three attempts. */
export function leavesLoopFree(work: () => Promise<unknown>, most = 10): Promise<boolean> {
  return isSeen(true, work, most);
}

/** The opposite, in one of three attempts: a host that keeps processors to itself hides waiting. */
export function holdsLoopUp(work: () => Promise<unknown>, most = 10): Promise<boolean> {
  return isSeen(false, work, most);
}

/** Keeps this thread busy for that much processor time. */
export function computeFor(milliseconds: number): void {
  const clock = (): number => threadTimes()?.[0] ?? performance.now();
  const end = clock() + milliseconds;
  while (clock() < end);
}

/** Makes this thread wait. */
export function waitFor(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}
