// The time that an instruction would take on a number of cores: pieces are dealt as native/runtime/executor.cc cuts them and
// native/core/thread_pool.cc hands them out, each taking as long as it took on one thread. Memory and caches are taken to keep up.

const timedPieces = 16 * 8;
/** Milliseconds until all have begun and the caller knows that all are done: 0.45 us measured at two threads; each worker has a cache line to fetch. */
export const syncMs = (cores) => (cores > 1 ? 0.33e-3 + 0.06e-3 * cores : 0);
const worthOf = ({ flops, bytes }) => Math.max(flops / 40e3, bytes / 32e3);
/** Whether the instruction is worth more than one thread. */
export const isShared = (step) => worthOf(step) >= 1;

function grainOf(step, items, cores) {
  if (!isShared(step)) return items;
  return Math.max(1, Math.floor(items / Math.floor(Math.min(2 * worthOf(step), cores * 8))));
}

/** Milliseconds of the items before each item, by the times of `timed` equal pieces. */
function summed(items, grain, times) {
  const sums = [0];
  for (let i = 0; i < items; ++i) {
    const piece = Math.floor(i / grain);
    sums.push(sums[i] + times[piece] / (Math.min(items, (piece + 1) * grain) - piece * grain));
  }
  return sums;
}

/** Workers take pieces of their own share, then of the next ones'. */
function makespan(sums, grain, cores) {
  const items = sums.length - 1;
  const share = (i) => Math.floor((items * i) / cores);
  const next = Array.from({ length: cores }, (_, i) => share(i));
  const free = next.map(() => 0);
  for (let done = 0; done < items;) {
    const worker = free.indexOf(Math.min(...free));
    let k = worker;
    while (next[k] >= share(k + 1)) k = (k + 1) % cores;
    const end = Math.min(share(k + 1), next[k] + grain);
    free[worker] += sums[end] - sums[next[k]];
    done += end - next[k];
    next[k] = end;
  }
  return Math.max(...free);
}

/** `times`: of the pieces of all phases, from `Session.profilePieces` on one thread. */
export function parallelMs(step, times, cores) {
  let ms = 0;
  let from = 0;
  for (const items of step.items) {
    if (items === 0) continue;
    const timedGrain = grainOf(step, items, timedPieces / 8);
    const count = Math.ceil(items / timedGrain);
    const grain = grainOf(step, items, cores);
    const sums = summed(items, timedGrain, times.slice(from, from + count));
    from += count;
    ms += items > grain && cores > 1 ? makespan(sums, grain, cores) + syncMs(cores) : sums[items];
  }
  if (from !== times.length) throw new Error(`schedule: expected ${from} pieces of ${step.text}, got ${times.length}`); // prettier-ignore
  return ms;
}

/** Milliseconds of the pieces if a thread did 100 GFLOP/s (300 by F(4x4,3x3)) or 20 GB/s and all were alike, for plans that nobody ran. */
export function evenTimes(step) {
  const phases = step.items.filter((items) => items > 0);
  const pieces = phases.map((items) => Math.ceil(items / grainOf(step, items, timedPieces / 8)));
  const speed = step.text.startsWith("F(4x4") ? 300e6 : 100e6;
  const ms = Math.max(step.flops / speed, step.bytes / 20e6) / phases.length;
  return pieces.flatMap((count) => Array.from({ length: count }, () => ms / count));
}
