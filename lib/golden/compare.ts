// Comparison of computed values with golden ones: element by element within atol + rtol |expected|;
// integers are equal.
import type { IoEntry, Values } from "./case.js";

export interface Difference {
  name: string;
  passed: boolean;
  /** Largest absolute difference, or the number of unequal integers. */
  absolute: number;
  /** |actual - expected| / |expected| in the Euclidean norm. */
  relative: number;
  /** Largest quotient of difference and allowed difference. */
  ofTolerance: number;
  /** Why nothing could be compared. */
  reason?: string;
}

const failed = (name: string, reason: string): Difference => ({
  name,
  passed: false,
  absolute: Infinity,
  relative: Infinity,
  ofTolerance: Infinity,
  reason,
});

const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((extent, axis) => extent === b[axis]);

/** Compares one tensor; `actual` undefined means that the runner did not compute it. */
export function compareValues(
  name: string,
  expected: IoEntry,
  actual: Values | undefined,
  rtol: number,
): Difference {
  if (!actual) return failed(name, "not computed");
  if (!sameShape(actual.shape, expected.shape)) {
    return failed(
      name,
      `shape (${actual.shape.join(", ")}) instead of (${expected.shape.join(", ")})`,
    );
  }
  const isExact = expected.data instanceof Int32Array;
  if (isExact) return compareIntegers(name, expected, actual);
  let absolute = 0;
  let ofTolerance = 0;
  let squares = 0;
  let differences = 0;
  for (let i = 0; i < expected.data.length; ++i) {
    const want = expected.data[i]!;
    const difference = Math.abs(actual.data[i]! - want);
    absolute = difference > absolute || Number.isNaN(difference) ? difference : absolute;
    const share = difference / ((expected.atol ?? 0) + rtol * Math.abs(want) || Number.MIN_VALUE);
    ofTolerance = share > ofTolerance || Number.isNaN(share) ? share : ofTolerance;
    squares += want * want;
    differences += difference * difference;
  }
  const relative = Math.sqrt(differences / (squares || 1));
  return { name, passed: ofTolerance <= 1, absolute, relative, ofTolerance };
}

function compareIntegers(name: string, expected: IoEntry, actual: Values): Difference {
  const unequal = Array.from(expected.data).filter((want, i) => want !== actual.data[i]).length;
  const share = unequal / expected.data.length;
  return {
    name,
    passed: unequal === 0,
    absolute: unequal,
    relative: share,
    ofTolerance: unequal === 0 ? 0 : Infinity,
  };
}
