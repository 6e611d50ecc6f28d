// Which timesteps the rules of respacing keep, against published tables and counts.
import { describe, expect, it } from "vitest";
import { gaussianChain, respacedChain } from "../../lib/processes/gaussian.js";
import { linearBetas } from "../../lib/processes/gaussian-schedules.js";
import {
  distinctQuadraticTimesteps,
  karrasChainLevels,
  latentTimesteps,
  leadingTimesteps,
  linspaceTimesteps,
  quadraticTimesteps,
  roundHalfEven,
  sectionTimesteps,
  stridedTimesteps,
  trailingTimesteps,
} from "../../lib/processes/respacing.js";

const attainable = (T: number): number[] =>
  Array.from({ length: T }, (_, i) => i + 1).filter((count) => {
    try {
      return stridedTimesteps(T, count).length === count;
    } catch {
      return false;
    }
  });

describe("sections", () => {
  it.each([
    [1000, "10", [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]],
    [1000, "ddim10", [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]],
    [10, "4", [0, 3, 6, 9]],
    [7, "4,2", [0, 1, 2, 3, 4, 6]],
    [5, "", [0, 1, 2, 3, 4]],
    [10, [2, 1], [0, 4, 5]],
  ])("%i steps by %j", (T, text, expected) => {
    expect(sectionTimesteps(T, text)).toEqual(expected);
  });

  it("accumulates and rounds halves to even", () => {
    expect(sectionTimesteps(1000, "25").slice(0, 12)).toEqual([
      0, 42, 83, 125, 166, 208, 250, 291, 333, 375, 416, 458,
    ]);
    expect(sectionTimesteps(300, "10,15,20").slice(25, 34)).toEqual([
      200, 205, 210, 216, 221, 226, 231, 236, 242,
    ]);
    expect([0.5, 1.5, 2.5, 2.4, 3].map(roundHalfEven)).toEqual([0, 2, 2, 2, 3]);
  });

  it.each(["x", "ddim", "10,", "-3", "2.5", "600,600", "ddim37"])("refuses %j", (text) => {
    expect(() => sectionTimesteps(1000, text)).toThrow(/Timesteps: expected/);
  });
});

describe("strides and quadratics", () => {
  it("reaches 62 counts of 1000", () => {
    const counts = attainable(1000);
    expect(counts).toHaveLength(62);
    expect(counts.slice(-6)).toEqual([167, 200, 250, 334, 500, 1000]);
  });

  it.each([
    [10, 10],
    [50, 49],
    [100, 96],
    [200, 187],
    [500, 422],
    [1000, 688],
  ])("quadratic %i gives %i different ones", (count, different) => {
    const kept = quadraticTimesteps(1000, count);
    expect(kept).toHaveLength(count);
    expect(new Set(kept).size).toBe(different);
    expect(kept.at(-1)).toBe(800);
    const distinct = distinctQuadraticTimesteps(1000, count);
    expect(new Set(distinct).size).toBe(count);
    expect(distinct.at(-1)).toBeLessThan(1000);
  });

  it("gives the published betas of 10 quadratic steps", () => {
    const chain = respacedChain(
      gaussianChain(linearBetas({ timesteps: 1000 })),
      quadraticTimesteps(1000, 10),
    );
    expect(chain.times).toEqual([0, 9, 39, 88, 158, 246, 355, 483, 632, 800]);
    const expected = [1e-4, 0.00179497471, 0.01749198395, 0.06519485543, 0.1642645762, 0.3054827578, 0.4865013152, 0.6627928817, 0.8137339841, 0.9121567624]; // prettier-ignore
    expected.forEach((beta, i) => expect(chain.betas[i]).toBeCloseTo(beta, 9));
  });
});

describe("other spacings", () => {
  it("trailing starts at the end, leading at the beginning, linspace at both", () => {
    expect(trailingTimesteps(1000, 4)).toEqual([249, 499, 749, 999]);
    expect(leadingTimesteps(1000, 4)).toEqual([0, 250, 500, 750]);
    expect(leadingTimesteps(1000, 4, 1)).toEqual([1, 251, 501, 751]);
    expect(linspaceTimesteps(1000, 4)).toEqual([0, 333, 666, 999]);
    expect(trailingTimesteps(1000, 1)).toEqual([999]);
  });

  it("latent diffusion adds one, and may give more than asked for", () => {
    expect(latentTimesteps(1000, 4, "uniform")).toEqual([1, 251, 501, 751]);
    expect(latentTimesteps(1000, 30, "uniform")).toHaveLength(31);
    expect(() => latentTimesteps(1000, 3, "uniform")).toThrow("below 1000");
  });

  it("noise levels of the Karras grid are those of the chain at their fractional times", () => {
    const chain = gaussianChain(linearBetas({ timesteps: 1000 }));
    const levels = karrasChainLevels(chain, { steps: 7 });
    expect(levels).toHaveLength(8);
    expect(levels[0]!.time).toBeCloseTo(999, 9);
    expect(levels[6]!.time).toBeCloseTo(0, 9);
    expect(levels[7]!.c).toBe(0);
    for (const { a, c, time } of levels.slice(0, -1)) {
      expect(a * a + c * c).toBeCloseTo(1, 12);
      const [low, high] = [Math.floor(time), Math.ceil(time)].map(
        (t) => chain.sqrtRecipMinusOne[t]!,
      );
      expect(c / a).toBeGreaterThanOrEqual(low! * (1 - 1e-9));
      expect(c / a).toBeLessThanOrEqual(high! * (1 + 1e-9));
    }
  });

  it.each([trailingTimesteps, leadingTimesteps, linspaceTimesteps, quadraticTimesteps])(
    "%o refuses more steps than the chain has",
    (rule) => {
      expect(() => rule(10, 11)).toThrow("count from 1 to 10");
    },
  );
});
