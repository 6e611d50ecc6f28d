// Tests of fit with a fixed significance of about 1 in 30,000: seeds are fixed, so a failure is a bug.
import { expect } from "vitest";

const worstScore = 4;

/** Pearson's chi-square of counts against probabilities, as a normal score (Wilson and Hilferty 1931). */
export function expectDistribution(
  counts: readonly number[],
  probabilities: readonly number[],
): void {
  const total = counts.reduce((sum, n) => sum + n, 0);
  let [statistic, freedom] = [0, -1];
  counts.forEach((count, i) => {
    const expected = total * probabilities[i]!;
    if (expected < 1e-6 * total) return expect(count, `class ${i} is impossible`).toBeLessThan(5);
    statistic += (count - expected) ** 2 / expected;
    freedom++;
  });
  if (freedom === 0) return;
  const variance = 2 / (9 * freedom);
  const score = (Math.cbrt(statistic / freedom) - (1 - variance)) / Math.sqrt(variance);
  expect(score, `counts ${counts}`).toBeLessThan(worstScore);
}

export function expectMean(values: ArrayLike<number>, mean: number, deviation: number): void {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  const score = (sum / values.length - mean) / (deviation / Math.sqrt(values.length));
  expect(Math.abs(score), `mean ${sum / values.length}`).toBeLessThan(worstScore);
}

export function countsOf(draws: ArrayLike<number>, classes: number): number[] {
  const counts = new Array<number>(classes).fill(0);
  for (let i = 0; i < draws.length; i++) counts[draws[i]!]!++;
  return counts;
}
