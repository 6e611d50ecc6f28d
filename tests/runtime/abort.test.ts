// Long runs stop soon after their signal, and what queues behind them still runs.
import { performance } from "node:perf_hooks";
import { describe, expect, it } from "vitest";
import { compile, type Session } from "../../lib/runtime/program.js";
import { trace } from "../../lib/trace/trace.js";
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

/** A graph whose fusing takes a second or more: an early value is read all along a chain. */
const slowToCompile = trace((t) => {
  let y = t.input("x", { shape: [8, 8] });
  let early = y;
  for (let i = 0; i < 1500; i++) {
    y = y.tanh().add(early);
    if (i % 7 === 0) early = y.sum([0], true).add(y);
  }
  t.output("y", y);
});

/** Milliseconds from the signal to the rejection of a compilation. */
async function compileAbortTime(): Promise<number> {
  const controller = new AbortController();
  const { signal } = controller;
  const compiling = compile(slowToCompile, { signal }).catch((error: unknown) => error);
  await sleep(30);
  const start = performance.now();
  controller.abort();
  expect(await compiling).toMatchObject({ code: "aborted" });
  return performance.now() - start;
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

  it("gives up a queued compilation at once", async () => {
    const bound = await bindZeros(longGraph(size, 2000));
    const settled: string[] = [];
    const stop = new AbortController();
    const first = bound.session
      .run({ x }, { signal: stop.signal })
      .catch(() => settled.push("run"));
    const controller = new AbortController();
    const queued = compile(longGraph(64, 2), { signal: controller.signal }).catch(
      (error: unknown) => (settled.push("compilation"), error),
    );
    await sleep(1);
    controller.abort("enough");
    expect(await queued).toMatchObject({ code: "aborted", cause: "enough" });
    stop.abort();
    await first;
    expect(settled).toEqual(["compilation", "run"]);
    bound.dispose();
  });

  it("stops a compilation within 50 ms", async () => {
    expect(await bestOf(5, compileAbortTime)).toBeLessThan(50);
  });

  it("never starts a compilation or a binding whose signal fired, and leaves the program usable", async () => {
    const graph = longGraph(64, 2);
    const stopped = { signal: AbortSignal.abort() };
    await expect(compile(graph, stopped)).rejects.toMatchObject({ code: "aborted" });
    const bound = await bindZeros(graph);
    await expect(bound.program.bind(bound.buffers, stopped)).rejects.toMatchObject({
      code: "aborted",
    });
    const long = await bindZeros(longGraph(size, 20));
    const controller = new AbortController();
    const { signal } = controller;
    const running = long.session.run({ x });
    const waiting = [compile(graph, { signal }), bound.program.bind(bound.buffers, { signal })];
    controller.abort();
    for (const result of await Promise.allSettled(waiting))
      expect(result).toMatchObject({ status: "rejected", reason: { code: "aborted" } });
    await running;
    using session = await bound.program.bind(bound.buffers);
    expect((await session.run({ x: new Float32Array(64 * 64) }))["y"]![0]).toBe(0);
    bound.dispose();
    long.dispose();
  });
});
