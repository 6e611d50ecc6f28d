// Plans of the discrete samplers as numbers: levels, counts of revealed positions, masked
// fractions.
import { describe, expect, it } from "vitest";
import { maskReplaceSchedule } from "../../lib/processes/schedules.js";
import {
  corruptTokens,
  discretePlan,
  keyTable,
  releasedFastPlan,
  sampleDiscrete,
} from "../../lib/samplers/discrete.js";
import type { DiscreteStep } from "../../lib/samplers/discrete.js";
import { nextReveal, purityPlan, revealCount } from "../../lib/samplers/purity.js";

const schedule = maskReplaceSchedule({ codes: 64 });

/**
 * Expected masked share before the last call: the posterior keeps a mask with cbar_s / cbar_t,
 * whatever p(x0) is.
 */
function maskedBeforeLast(plan: readonly DiscreteStep[]): number {
  return plan.slice(0, -1).reduce((masked, { posteriorT, s }) => {
    const cbar = (t: number): number => (t < 0 ? 0 : schedule.cbar[t]!);
    return masked * (cbar(s) / cbar(posteriorT));
  }, 1);
}

describe("plans", () => {
  it("visits every level by default", () => {
    const plan = discretePlan(schedule);
    expect(plan.map(({ t }) => t)).toEqual(Array.from({ length: 100 }, (_, i) => 99 - i));
    expect(plan.at(-1)).toEqual({ t: 0, s: -1, posteriorT: 0 });
  });

  it.each([1, 2, 7, 25, 50, 99])("spreads %i steps from the top to clean data", (steps) => {
    const plan = discretePlan(schedule, { steps });
    expect(plan).toHaveLength(steps);
    expect(plan[0]!.t).toBe(99);
    expect(plan.at(-1)!.s).toBe(-1);
    plan.slice(1).forEach(({ t }, i) => expect(plan[i]!.s).toBe(t));
    if (steps > 1) expect(maskedBeforeLast(plan)).toBeLessThan(1e-4);
  });

  // network calls and masked share before the last call of the released fast form
  it.each([
    [2, 51, 7.2e-5],
    [4, 26, 0.245],
    [5, 21, 0.356],
    [10, 11, 0.664],
    [20, 6, 0.852],
  ])("leaves too much masked in the released form at speed %i", (speed, calls, masked) => {
    const plan = releasedFastPlan(schedule, speed - 1);
    expect(plan).toHaveLength(calls);
    const actual = maskedBeforeLast(plan);
    expect(Math.abs(actual - masked)).toBeLessThanOrEqual(
      0.006 * masked + 5e-4 * Number(masked > 1e-3),
    );
  });

  it("refuses levels that do not fall", () => {
    expect(() => discretePlan(schedule, { levels: [5, 5] })).toThrow(/falling levels/);
    expect(() => discretePlan(schedule, { levels: [] })).toThrow(/falling levels/);
    expect(() => discretePlan(schedule, { steps: 101 })).toThrow(/steps from 1 to 100/);
  });

  it.each([16, 64, 100, 256, 1024])(
    "reveals %i positions once, and redraws all at the end",
    (tokens) => {
      let total = 0;
      for (let t = 99; t > 0; --t) total += revealCount(schedule, tokens, t, t - 1);
      expect(total).toBe(tokens);
      const plan = purityPlan(schedule, tokens);
      expect(plan.at(-1)).toEqual({ t: 0, s: -1, revealed: 1 });
      expect(plan.at(-2)!.revealed).toBe(1);
    },
  );

  it("splits a level into calls and never leaves one position over", () => {
    expect(nextReveal(11, 5)).toBe(5);
    expect(nextReveal(6, 5)).toBe(6);
    expect(nextReveal(3, 5)).toBe(3);
    const calls = purityPlan(schedule, 1024, { perCall: 5 });
    expect(calls.length).toBeGreaterThan(190);
    expect(calls.length).toBeLessThan(210);
  });
});

describe("the loop", () => {
  const fake = (tokens: number) => (inputs: Record<string, Int32Array | Float32Array>) =>
    Promise.resolve({
      tokens: Int32Array.from(inputs["tokens"]!, (x) => Math.max(0, x - tokens)),
      best: new Int32Array(4),
      confidence: new Float32Array(4),
    });

  it("yields each step, lets a callback replace the state, and stops on abort", async () => {
    const seen: number[] = [];
    const options = {
      schedule,
      plan: discretePlan(schedule, { steps: 4 }),
      batch: 1,
      tokens: 4,
      seed: 1,
      known: Int32Array.of(-1, 3, -1, -1),
      onStep: ({ index }: { index: number }) =>
        index === 1 ? { tokens: new Int32Array(4).fill(60) } : undefined,
    };
    for await (const { t, state } of sampleDiscrete(fake(1), options))
      seen.push(t, state.tokens[0]!);
    expect(seen).toEqual([99, 63, 66, 60, 33, 59, 0, 58]);

    const controller = new AbortController();
    const aborted = sampleDiscrete(fake(1), { ...options, signal: controller.signal });
    await aborted.next();
    controller.abort();
    await expect(aborted.next()).rejects.toMatchObject({ code: "aborted" });
  });

  it("keys draws by seed, sample and step", () => {
    expect([...keyTable(2 ** 32 + 7, 3, 9, 2)]).toEqual([7, 1, 3, 9, 7, 1, 4, 9]);
  });
});

describe("corruption on the host", () => {
  it("does not depend on the batch and follows the marginals", () => {
    const x0 = new Int32Array(4 * 500).fill(5);
    const all = corruptTokens(schedule, x0, 49, { batch: 4, seed: 3 });
    const one = corruptTokens(schedule, x0.subarray(0, 500), 49, {
      batch: 1,
      seed: 3,
      firstSample: 2,
    });
    expect([...one]).toEqual([...all.subarray(1000, 1500)]);
    const masked = all.filter((token) => token === 64).length / all.length;
    expect(masked).toBeGreaterThan(0.46);
    expect(masked).toBeLessThan(0.53);
  });
});
