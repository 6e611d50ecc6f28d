import { describe, expect, it, vi } from "vitest";
import { maskAndReplace, nearestCodes } from "../../lib/kernels/kernels.js";
import { uniformStream } from "../../lib/nn/random.js";
import { maskReplaceSchedule } from "../../lib/processes/schedules.js";
import { Session } from "../../lib/runtime/program.js";

const floats = (name: string, count: number): Float32Array =>
  Float32Array.from(uniformStream(1, name, count), (u) => u - 0.5);

describe("nearestCodes", () => {
  it.each([
    [7, 5, 4],
    [33, 100, 16],
    [64, 1000, 3],
  ])("finds the nearest of N=%i K=%i D=%i", async (N, K, D) => {
    const z = floats("z", N * D);
    const e = floats("e", K * D);
    const found = await nearestCodes(z, e, { width: D });
    const expected = Array.from({ length: N }, (_, n) => {
      const distance = (k: number): number =>
        Array.from({ length: D }, (_unused, d) => (z[n * D + d]! - e[k * D + d]!) ** 2).reduce(
          (a, b) => a + b,
        );
      return Array.from({ length: K }, (_unused, k) => k).reduce(
        (best, k) => (distance(k) < distance(best) ? k : best),
        0,
      );
    });
    expect([...found]).toEqual(expected);
  });

  it("takes the lowest index on ties", async () => {
    const e = Float32Array.of(1, 0, 1, 0, 0, 1);
    expect([...(await nearestCodes(Float32Array.of(1, 0), e, { width: 2 }))]).toEqual([0]);
    expect([
      ...(await nearestCodes(Float32Array.of(3, 0), e, { width: 2, metric: "cosine" })),
    ]).toEqual([0]);
  });

  it("disposes the programs it no longer keeps, once another is asked for", async () => {
    const disposed = vi.spyOn(Session.prototype, "dispose");
    const shapes = 40; // at once: more than are kept
    const results = await Promise.all(
      Array.from({ length: shapes }, (_, i) => {
        const latents = Float32Array.from({ length: 2 * (i + 1) }, (_unused, j) => j % 2);
        return nearestCodes(latents, Float32Array.of(1, 0, 0, 1), { width: 2 });
      }),
    );
    results.forEach((found, i) => expect([...found]).toEqual(new Array(i + 1).fill(1)));
    const rows = shapes + 1;
    await nearestCodes(new Float32Array(2 * rows), Float32Array.of(1, 0, 0, 1), { width: 2 });
    await vi.waitFor(() => expect(disposed.mock.calls.length).toBeGreaterThanOrEqual(8));
    disposed.mockRestore();
  });

  it("rejects lengths that are no rows", async () => {
    await expect(
      nearestCodes(new Float32Array(5), new Float32Array(4), { width: 2 }),
    ).rejects.toThrow(/latents in rows of 2, got 5/);
  });
});

describe("maskAndReplace", () => {
  const schedule = maskReplaceSchedule({ codes: 6, timesteps: 10, preset: "paper90" });

  it("corrupts by the given uniforms", async () => {
    const x0 = Int32Array.of(0, 1, 2, 3);
    const masked = Float32Array.of(0, 0, 0, 0, 0, 0, 0, 0);
    expect([
      ...(await maskAndReplace.corrupt(schedule, { x0, times: [9], uniform: masked })),
    ]).toEqual([6, 6, 6, 6]);
    const kept = Float32Array.of(0.5, 0, 0.5, 0, 0.5, 0, 0.5, 0);
    expect([
      ...(await maskAndReplace.corrupt(schedule, { x0, times: [0], uniform: kept })),
    ]).toEqual([0, 1, 2, 3]);
  });

  it("gives back the certain tokens at the last step", async () => {
    const logits = new Float32Array(4 * 6).fill(-50);
    [5, 2, 0, 3].forEach((k, n) => (logits[n * 6 + k] = 50));
    const step = await maskAndReplace.step(schedule, {
      logits,
      xt: new Int32Array(4).fill(6),
      levels: [{ t: 0, s: -1 }],
      uniform: Float32Array.of(0.1, 0.9, 0.5, 0.3),
    });
    expect([...step.tokens]).toEqual([5, 2, 0, 3]);
    expect([...step.best]).toEqual([5, 2, 0, 3]);
    step.confidence.forEach((p) => expect(p).toBeCloseTo(1, 5));
  });

  it("has no loss for certain truth", async () => {
    const logits = new Float32Array(2 * 6).fill(-30);
    [1, 4].forEach((k, n) => (logits[n * 6 + k] = 30));
    const x0 = Int32Array.of(1, 4);
    const { kl, nll } = await maskAndReplace.loss(schedule, {
      logits,
      x0,
      xt: Int32Array.of(6, 4),
      levels: [{ t: 5, s: 4 }],
    });
    [...kl, ...nll].forEach((value) => expect(Math.abs(value)).toBeLessThan(1e-5));
  });
});
