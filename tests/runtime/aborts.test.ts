// Many aborts at random moments: while binding, while queued, while running, and after the end.
import { expect, it } from "vitest";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile, type Session } from "../../lib/runtime/program.js";
import { uniformStream } from "../../lib/nn/random.js";
import { bestOf, longGraph, sleep } from "./workload.js";

const size = 128;
const milliseconds = 50; // of a whole run, about
const aborts = 100;
const longestDelay = 30;

/** With a weight of 2 / size everywhere, x = 1 stays 1 in every row: each layer gives 1 * 2 * 0.5. */
const weight = new Float32Array(size * size).fill(2 / size);
const x = new Float32Array(size * size).fill(1);

/** A depth at which a run takes about `milliseconds` on this machine. */
async function calibratedDepth(w: Buffer): Promise<number> {
  const probe = 20;
  using program = await compile(longGraph(size, probe));
  using session = await program.bind({ w });
  await session.run({ x });
  const ms = await bestOf(5, () => session.timedRun({ x }));
  return Math.min(2000, Math.max(1, Math.round((probe * milliseconds) / ms)));
}

/** Runs and aborts after the delay; gives "aborted" or "done", anything else fails. */
async function abortedRun(session: Session, delay: number): Promise<string> {
  const controller = new AbortController();
  const run = session.run({ x }, { signal: controller.signal });
  const outcome = run.then(
    (outputs) => (expect(outputs["y"]![0]).toBe(size * size), "done"),
    (error: unknown) => (expect(error).toMatchObject({ code: "aborted" }), "aborted"),
  );
  await sleep(delay);
  controller.abort();
  return outcome;
}

it("survives aborts at random moments, and then gives the right numbers", async () => {
  using w = Buffer.fromArray(weight, "f32", [size, size]);
  using program = await compile(longGraph(size, await calibratedDepth(w)));
  const delays = uniformStream(7, "aborts", aborts);
  const outcomes: string[] = [];
  using session = await program.bind({ w });
  for (let i = 0; i < aborts; ++i) {
    const delay = Math.floor(delays[i]! * (longestDelay + 1));
    if (i % 3 === 1) {
      // Queued: the first run is still going when the second is given up.
      const pair = [abortedRun(session, longestDelay), abortedRun(session, delay)];
      outcomes.push(...(await Promise.all(pair)));
    } else if (i % 3 === 2) {
      // Binding and running at once, the run given up meanwhile; the second session is left at once.
      const binding = program.bind({ w });
      outcomes.push(await abortedRun(session, delay));
      (await binding).dispose();
    } else outcomes.push(await abortedRun(session, delay));
  }
  expect(outcomes.filter((outcome) => outcome === "aborted").length).toBeGreaterThan(aborts / 2);
  expect((await session.run({ x }))["y"]![0]).toBe(size * size);
}, 120_000);
