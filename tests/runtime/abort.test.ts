// Long runs stop soon after their signal, and what queues behind them still runs.
import { performance } from "node:perf_hooks";
import { describe, expect, it } from "vitest";
import type { Session } from "../../lib/runtime/program.js";
import { bestOf, bindZeros, longGraph, sleep } from "./workload.js";

const size = 512;
const x = new Float32Array(size * size);

/** Milliseconds from the signal to the rejection of a run of many seconds. */
async function abortTime(session: Session): Promise<number> {
  const controller = new AbortController();
  const run = session.run({ x }, { signal: controller.signal }).catch((error: unknown) => error);
  await sleep(30);
  const start = performance.now();
  controller.abort();
  expect(await run).toMatchObject({ code: "aborted" });
  return performance.now() - start;
}

/** Longest gap between timer ticks while `work` goes on. */
async function loopLag(work: () => Promise<unknown>): Promise<number> {
  let worst = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    worst = Math.max(worst, performance.now() - last);
    last = performance.now();
  }, 2);
  const done = work();
  last = performance.now();
  await done;
  clearInterval(timer);
  return worst;
}

describe("abort", () => {
  it("rejects within 50 ms, and the core works afterwards", async () => {
    const long = await bindZeros(longGraph(size, 2000));
    expect(await bestOf(5, () => abortTime(long.session))).toBeLessThan(50);
    const short = await bindZeros(longGraph(64, 2));
    expect((await short.session.run({ x: new Float32Array(64 * 64) }))["y"]![0]).toBe(0);
    long.dispose();
    short.dispose();
  });

  it("never starts a queued run whose signal fired", async () => {
    const bound = await bindZeros(longGraph(size, 20));
    const controller = new AbortController();
    const first = bound.session.run({ x });
    const second = bound.session.run({ x }, { signal: controller.signal });
    controller.abort();
    await expect(second).rejects.toMatchObject({ code: "aborted" });
    expect((await first)["y"]![0]).toBe(0);
    bound.dispose();
  });

  it("does not block the event loop", async () => {
    const bound = await bindZeros(longGraph(size, 60));
    // Other programs may keep the loop waiting too: compare with a run of nothing.
    const idle = await bestOf(3, () => loopLag(() => sleep(100)));
    const lag = await bestOf(8, () => loopLag(() => bound.session.run({ x })));
    expect(lag).toBeLessThan(20 + 2 * idle);
    bound.dispose();
  });
});
