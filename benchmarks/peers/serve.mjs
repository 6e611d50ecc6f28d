// The Node side of a worker: one first run, then bursts of runs as asked for on stdin, one line of JSON for each.
import { createInterface } from "node:readline";

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const cpuMs = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

/** Times of runs for about that long; the first, which finds cold caches, counts only when there is no other. */
async function burst(run, seconds) {
  const timed = async () => {
    const before = cpuMs();
    const wall = await run();
    return { wall, cpu: cpuMs() - before };
  };
  const end = performance.now() + seconds * 1000;
  const first = await timed();
  const times = first.wall < (seconds * 1000) / 3 ? [] : [first];
  while (times.length === 0 || (times[0] !== first && performance.now() < end))
    times.push(await timed());
  return { wall: times.map(({ wall }) => wall), cpu: times.map(({ cpu }) => cpu) };
}

/** `run` runs once and gives the milliseconds; `version` and further facts are told with the first answer. */
export async function serve({ run, ...facts }) {
  await run();
  say({ ready: true, ...facts });
  for await (const line of createInterface({ input: process.stdin })) {
    const times = await burst(run, Number(line));
    say({ ...times, peak_mb: process.resourceUsage().maxRSS / 1024 });
  }
  process.exit(0);
}
