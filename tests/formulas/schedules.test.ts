// Mask-and-replace schedules against the tables of the published definition and explicit matrices.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  coefficientTable,
  cumulativeAt,
  logBuffers,
  maskReplaceSchedule,
  pairCoefficients,
} from "../../lib/processes/schedules.js";
import type { MaskReplacePreset, MaskReplaceSchedule } from "../../lib/processes/schedules.js";

type Row = [preset: MaskReplacePreset, t: number, values: number[]];

// preset, t, a, K b, c, abar, K bbar, cbar at T = 100
const table: Row[] = [
  ["released", 0, [0.99999, 1e-6, 9e-6, 0.99999, 1e-6, 9e-6]],
  [
    "released",
    1,
    [0.989899080809, 1.0101e-8, 0.01010090909, 0.989889181818, 1e-6, 0.0101098181818],
  ],
  [
    "released",
    49,
    [0.980392499424, 3.80616e-8, 0.0196074625146, 0.505049909091, 1e-6, 0.494949090909],
  ],
  [
    "released",
    98,
    [0.500222655038, 2.47272e-5, 0.499752617754, 0.0101098181818, 1e-6, 0.989889181818],
  ],
  ["released", 99, [0.000890223724916, 9.88159e-5, 0.999010960357, 9e-6, 1e-6, 0.99999]],
  ["paper90", 0, [0.99999, 1e-6, 9e-6, 0.99999, 1e-6, 9e-6]],
  [
    "paper90",
    1,
    [0.989899080809, 0.00101002, 0.00909089999992, 0.989889181818, 0.001011, 0.00909981818182],
  ],
  [
    "paper90",
    49,
    [0.980392499424, 0.0034785, 0.0161290036418, 0.505049909091, 0.049491, 0.445459090909],
  ],
  [
    "paper90",
    98,
    [0.500222655038, 0.422855, 0.0769224260345, 0.0101098181818, 0.098981, 0.890909181818],
  ],
  ["paper90", 99, [0.000890223724916, 0.915777, 0.0833325694438, 9e-6, 0.099991, 0.9]],
];

/** Agrees in the printed digits. */
const near = (actual: number, expected: number): void =>
  expect(Math.abs(actual - expected)).toBeLessThanOrEqual(5e-6 * Math.abs(expected) + 1e-15);

/** Transition matrix, column = from: stay a + b, other b, mask c; the mask stays. */
function matrix(K: number, a: number, b: number, c: number): number[][] {
  return Array.from({ length: K + 1 }, (_, to) =>
    Array.from({ length: K + 1 }, (__, from) => {
      if (from === K) return to === K ? 1 : 0;
      if (to === K) return c;
      return to === from ? a + b : b;
    }),
  );
}

const product = (x: number[][], y: number[][]): number[][] =>
  x.map((row) => y[0]!.map((_, j) => row.reduce((sum, value, k) => sum + value * y[k]![j]!, 0)));

const step = (schedule: MaskReplaceSchedule, t: number, s: number): number[][] => {
  const [, , , , , , a, b, c] = pairCoefficients(schedule, t, s);
  return matrix(schedule.codes, a, b, c);
};

const expectEqual = (x: number[][], y: number[][]): void =>
  x.forEach((row, i) => row.forEach((value, j) => expect(value).toBeCloseTo(y[i]![j]!, 12)));

describe("mask-and-replace schedule", () => {
  it.each(table)("%s at t = %i", (preset, t, values) => {
    const K = 16;
    const { a, b, c, abar, bbar, cbar } = maskReplaceSchedule({ codes: K, preset });
    const actual = [a[t], K * b[t]!, c[t], abar[t], K * bbar[t]!, cbar[t]];
    values.forEach((expected, i) => near(actual[i]!, expected));
  });

  it.each([
    [4, -15.2018049],
    [2887, -21.7834837],
    [4096, -22.1332767],
  ])("has log bbar of K = %i", (codes, expected) => {
    const { log_cumprod_bt: log } = logBuffers(maskReplaceSchedule({ codes }));
    expect(log[50]).toBeCloseTo(expected, 6);
    expect(log[100]).toBe(-Infinity);
  });

  it("treats level -1 as clean data", () => {
    expect(cumulativeAt(maskReplaceSchedule({ codes: 5 }), -1)).toEqual({
      abar: 1,
      bbar: 0,
      cbar: 0,
    });
  });

  it("passes the self-check of the reference: log c and log (1 - c) add up to one", () => {
    const { log_ct: c, log_1_min_ct: rest } = logBuffers(maskReplaceSchedule({ codes: 8 }));
    const sum = c.reduce(
      (total, x, i) => total + Math.abs(Math.log(Math.exp(x) + Math.exp(rest[i]!))),
      0,
    );
    expect(sum).toBeLessThan(1e-5);
  });

  it("gives pair coefficients that are products of one-step matrices", () => {
    const schedule = maskReplaceSchedule({ codes: 4, timesteps: 12, preset: "paper90" });
    for (let s = -1; s < 12; ++s) {
      let chain = matrix(4, 1, 0, 0);
      for (let t = s + 1; t < 12; ++t) {
        chain = product(step(schedule, t, t - 1), chain);
        expectEqual(chain, step(schedule, t, s));
      }
    }
  });

  it("gives cumulative probabilities that are pair coefficients from -1", () => {
    const schedule = maskReplaceSchedule({ codes: 7, preset: "paper90" });
    for (const t of [0, 3, 50, 99]) {
      const [abar, bbar, cbar, , , , a, b, c] = pairCoefficients(schedule, t, -1);
      expect([a, b, c].map((x) => x!.toFixed(12))).toEqual(
        [abar, bbar, cbar].map((x) => x!.toFixed(12)),
      );
    }
  });

  it("stays a distribution for any endpoints it accepts", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.double({ min: 0.01, max: 0.98, noNaN: true }),
        fc.integer({ min: 1, max: 9 }),
        (timesteps, cbarLast, codes) => {
          const endpoints = { abarFirst: 0.999, abarLast: 1e-3, cbarFirst: 1e-4, cbarLast };
          const schedule = maskReplaceSchedule({ codes, timesteps, endpoints });
          schedule.a.forEach((a, t) =>
            expect(a + codes * schedule.b[t]! + schedule.c[t]!).toBeCloseTo(1, 12),
          );
        },
      ),
    );
  });

  it("packs nine columns a sample", () => {
    const schedule = maskReplaceSchedule({ codes: 3 });
    const rows = coefficientTable(schedule, [
      { t: 5, s: 4 },
      { t: 9, s: -1 },
    ]);
    expect(rows.length).toBe(18);
    expect(rows[9 + 3]).toBe(1);
  });

  it.each([
    [{ codes: 0 }, /codes >= 1, got 0/],
    [{ codes: 4, timesteps: 0 }, /timesteps >= 1/],
    [{ codes: 4, cumulative: { abar: [0.9], cbar: [0.1, 0.2] } }, /one equal length/],
    [{ codes: 4, cumulative: { abar: [0.9, 0.95], cbar: [0.01, 0.02] } }, /a\[1\] in \[0, 1\]/],
    [{ codes: 4, cumulative: { abar: [0.9], cbar: [0.2] } }, /abar \+ cbar <= 1/],
  ])("refuses %j", (options, message) =>
    expect(() => maskReplaceSchedule(options)).toThrow(message),
  );

  it("refuses s >= t and levels outside", () => {
    const schedule = maskReplaceSchedule({ codes: 3 });
    expect(() => pairCoefficients(schedule, 4, 4)).toThrow(/s < t/);
    expect(() => pairCoefficients(schedule, 100, 4)).toThrow(/level from -1 to 99/);
  });
});
