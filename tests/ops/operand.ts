// Inputs of a test case: a shape, an element type and how the numbers are made. The same numbers, rounded to f32, go to
// the f32 and to the f64 graph.
import type { DType } from "../../lib/ir/dtype.js";

/** One element from a stream of uniform numbers in [0, 1), its index and the element count. */
export type Fill = (draw: () => number, index: number, count: number) => number;

export interface Operand {
  readonly shape: readonly number[];
  readonly fill: Fill;
  /** "real" is the float type of the trace. */
  readonly dtype: DType | "real";
  /** Real, but never differentiated (a coefficient, a uniform number). */
  readonly isFixed?: boolean;
}

/** mulberry32: small, seedable, good enough for test data. */
export function uniformStream(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** FNV-1a, to seed a stream by name. */
export function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (const letter of name) hash = Math.imul(hash ^ letter.codePointAt(0)!, 0x01000193);
  return hash >>> 0;
}

export const gaussian: Fill = (draw) =>
  Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());

export const between =
  (low: number, high: number): Fill =>
  (draw) =>
    low + (high - low) * draw();

/** Between low and high in absolute value, with either sign: keeps away from a kink at 0. */
export const signed =
  (low: number, high: number): Fill =>
  (draw) =>
    (draw() < 0.5 ? -1 : 1) * (low + (high - low) * draw());

export const integers =
  (low: number, high: number): Fill =>
  (draw) =>
    low + Math.floor((high - low) * draw());

/** All different, at least 1 / count apart, in scattered order: no ties for max and sort. */
export const distinct: Fill = (_, index, count) =>
  (((index * 7919) % nextPrime(count)) - count / 2) / Math.max(1, count / 8);

export const cycle =
  (values: readonly number[]): Fill =>
  (_, index) =>
    values[index % values.length]!;

function nextPrime(n: number): number {
  const isPrime = (candidate: number): boolean => {
    for (let d = 2; d * d <= candidate; d++) if (candidate % d === 0) return false;
    return true;
  };
  let candidate = Math.max(2, n);
  while (!isPrime(candidate)) candidate++;
  return candidate;
}

export const real = (shape: readonly number[], fill: Fill = gaussian): Operand => ({
  shape,
  fill,
  dtype: "real",
});

export const fixed = (shape: readonly number[], fill: Fill): Operand => ({
  ...real(shape, fill),
  isFixed: true,
});

export const whole = (shape: readonly number[], low: number, high: number): Operand => ({
  shape,
  fill: integers(low, high),
  dtype: "i32",
});

export const truth = (shape: readonly number[]): Operand => ({
  shape,
  fill: integers(0, 2),
  dtype: "bool",
});

/** The numbers of an operand, each exactly representable in f32. */
export function valuesOf(operand: Operand, seed: number): number[] {
  const count = operand.shape.reduce((product, size) => product * size, 1);
  const draw = uniformStream(seed);
  return Array.from({ length: count }, (_, i) => Math.fround(operand.fill(draw, i, count)));
}
