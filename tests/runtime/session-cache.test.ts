// Sessions by key: compiled once, kept while in use however many there are, disposed when more than the few are idle.
import { afterEach, describe, expect, it, vi } from "vitest";
import { Program, Session } from "../../lib/runtime/program.js";
import { SessionCache } from "../../lib/runtime/session-cache.js";
import { trace } from "../../lib/trace/trace.js";

const plusOne = (size: number) => () =>
  trace((t) => t.output("y", t.input("x", { shape: [size] }).add(1)));

const runOf = async (cache: SessionCache, size: number): Promise<void> => {
  const { y } = await cache.run(`${size}`, plusOne(size), { x: new Float32Array(size).fill(size) });
  expect([...y!]).toEqual(new Array(size).fill(size + 1));
};

afterEach(() => vi.restoreAllMocks());

describe("a session cache", () => {
  it("keeps what is in use beyond its limit, and disposes the idle at the next key", async () => {
    const cache = new SessionCache(new Map(), 2);
    const bound = vi.spyOn(Program.prototype, "bind");
    const disposed = vi.spyOn(Session.prototype, "dispose");
    const sizes = [1, 2, 3, 4, 5];
    for (let step = 0; step < 3; ++step) await Promise.all(sizes.map((size) => runOf(cache, size)));
    expect(bound).toHaveBeenCalledTimes(5); // interleaved chains of more keys than are kept
    expect(disposed).not.toHaveBeenCalled();
    await runOf(cache, 6);
    await vi.waitFor(() => expect(disposed).toHaveBeenCalledTimes(4));
    await runOf(cache, 5); // the last of them was kept
    expect(bound).toHaveBeenCalledTimes(6);
    await runOf(cache, 1);
    expect(bound).toHaveBeenCalledTimes(7);
    cache.dispose();
    await vi.waitFor(() => expect(disposed).toHaveBeenCalledTimes(7));
  });

  it("finishes the runs that wait when it is disposed", async () => {
    const cache = new SessionCache();
    const disposed = vi.spyOn(Session.prototype, "dispose");
    const run = runOf(cache, 3);
    cache.dispose();
    await run;
    await vi.waitFor(() => expect(disposed).toHaveBeenCalledTimes(1));
  });

  it("forgets a graph that failed", async () => {
    const cache = new SessionCache();
    const fail = () => cache.run("x", plusOne(2), { x: new Float32Array(3) });
    await expect(fail()).rejects.toThrow(/expected 2 values/);
    const wrong = { quantize: "int9" } as object;
    await expect(cache.run("y", plusOne(2), {}, wrong)).rejects.toThrow(/quantize.*int9/);
    const { y } = await cache.run("y", plusOne(2), { x: new Float32Array(2) });
    expect([...y!]).toEqual([1, 1]);
    cache.dispose();
  });

  it("compiles again for who waited on a compilation that another stopped", async () => {
    const cache = new SessionCache();
    const stop = new AbortController();
    const inputs = { x: new Float32Array(4) };
    const first = cache.run("x", plusOne(4), inputs, { signal: stop.signal });
    const second = cache.run("x", plusOne(4), inputs);
    stop.abort();
    await expect(first).rejects.toMatchObject({ code: "aborted" });
    expect([...(await second)["y"]!]).toEqual([1, 1, 1, 1]);
    cache.dispose();
  });
});
