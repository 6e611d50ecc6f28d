// Philox 4x32-10 once more, in big integers, to check the native bits. Salmon et al. 2011, section 3.3.
type Words = readonly [number, number, number, number];

const low = (x: bigint): number => Number(x & 0xffffffffn);
const high = (x: bigint): number => Number(x >> 32n);

export function philox(counter: Words, key: readonly [number, number]): Words {
  let [a, b, c, d] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * BigInt(a >>> 0);
    const p1 = 0xcd9e8d57n * BigInt(c >>> 0);
    [a, b, c, d] = [high(p1) ^ b ^ k0, low(p1), high(p0) ^ d ^ k1, low(p0)];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [a >>> 0, b >>> 0, c >>> 0, d >>> 0];
}
