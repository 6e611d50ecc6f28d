// Whole-number randomness that depends on nothing but its counters: the order of an epoch, the
// caption of a visit and its augmentation are functions of (seed, epoch, position), so a resumed
// run sees what an uninterrupted one would.

/**
 * One 32-bit word from up to four counters: the finaliser of MurmurHash3 (public domain, A.
 * Appleby) after each one.
 */
export function counterHash(seed: number, a: number, b = 0, c = 0): number {
  let h = mix((seed >>> 0) ^ 0x9e3779b9);
  h = mix(h ^ Math.floor(seed / 2 ** 32));
  h = mix(h ^ (a >>> 0));
  h = mix((h + 0x7f4a7c15) ^ (b >>> 0));
  return mix((h + 0x94d049bb) ^ (c >>> 0));
}

function mix(h: number): number {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A whole number in [0, n) from a 32-bit word; the bias is below n / 2^32. */
export const below = (n: number, word: number): number => Math.floor((word / 2 ** 32) * n);

/** Streams that must not repeat each other. */
export const purposes = { order: 1, repeat: 2, caption: 3, flip: 4, shiftX: 5, shiftY: 6 } as const;

/**
 * The samples of an epoch in the order of their visits. A sample of weight w comes floor(w) times,
 * and once more with probability w - floor(w).
 */
export function epochOrder(
  weights: Float64Array,
  seed: number,
  epoch: number,
  shuffle: boolean,
): Uint32Array {
  const order: number[] = [];
  for (let i = 0; i < weights.length; ++i) {
    const whole = Math.floor(weights[i]!);
    const more =
      counterHash(seed, epoch, i, purposes.repeat) / 2 ** 32 < weights[i]! - whole ? 1 : 0;
    for (let k = 0; k < whole + more; ++k) order.push(i);
  }
  const visits = Uint32Array.from(order);
  if (!shuffle) return visits;
  for (let i = visits.length - 1; i > 0; --i) {
    const j = below(i + 1, counterHash(seed, epoch, i, purposes.order));
    [visits[i], visits[j]] = [visits[j]!, visits[i]!];
  }
  return visits;
}
