// 16-bit floats: all 65,536 patterns round-trip, and rounding agrees with the definition.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bfloatsToFloats, floatsToBfloats, floatsToHalves, halvesToFloats, toBfloat, toHalf } from "../../lib/checkpoint/half.js"; // prettier-ignore

const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
const half = (bits: number): number => halvesToFloats(Uint16Array.of(bits))[0]!;
const bfloat = (bits: number): number => bfloatsToFloats(Uint16Array.of(bits))[0]!;

describe.each([
  ["binary16", halvesToFloats, floatsToHalves],
  ["bfloat16", bfloatsToFloats, floatsToBfloats],
] as const)("%s", (_, widen, narrow) => {
  it("comes back from float32 for every pattern", () => {
    const values = widen(all);
    const bits = narrow(values);
    for (let i = 0; i < 65536; ++i)
      if (Number.isNaN(values[i])) expect(widen(bits.subarray(i, i + 1))[0]).toBeNaN();
      else if (bits[i] !== i) expect.unreachable(`pattern ${i} became ${bits[i]}`);
  });

  it("rounds to the nearest, ties to even", () => {
    const finite = [...new Set(widen(all).filter(Number.isFinite))].sort((a, b) => a - b);
    const largest = finite.at(-1)!;
    fc.assert(
      fc.property(
        fc.float({ min: -Math.fround(largest), max: Math.fround(largest), noNaN: true }),
        (x) => {
          const rounded = widen(narrow(Float32Array.of(x)))[0]!;
          let low = 0;
          let high = finite.length - 1;
          while (high - low > 1) {
            const middle = (low + high) >> 1;
            if (finite[middle]! <= x) low = middle;
            else high = middle;
          }
          const [below, above] = [finite[low]!, finite[high]!];
          const nearest = x - below < above - x ? below : x - below > above - x ? above : undefined;
          if (nearest !== undefined) expect(rounded + 0).toBe(nearest + 0);
          else expect(narrow(Float32Array.of(rounded))[0]! & 1).toBe(0);
        },
      ),
      { numRuns: 3000 },
    );
  });
});

describe("edges", () => {
  it("keeps signs, infinities and the limits of binary16", () => {
    expect([toHalf(-0), toHalf(Infinity), toHalf(-Infinity), toHalf(1)]).toEqual([
      0x8000, 0x7c00, 0xfc00, 0x3c00,
    ]);
    expect([half(toHalf(65504)), half(toHalf(65519.996)), half(toHalf(65520))]).toEqual([
      65504,
      65504,
      Infinity,
    ]);
    expect([toHalf(2 ** -24), toHalf(2 ** -25), toHalf(2 ** -25 * 1.001), toHalf(1e-30)]).toEqual([
      1, 0, 1, 0,
    ]);
    expect(half(0x7e01)).toBeNaN();
  });

  it("keeps NaN in bfloat16 even when its upper half would be infinity", () => {
    const nan = new Float32Array(Uint32Array.of(0x7f800001).buffer);
    expect(bfloat(floatsToBfloats(nan)[0]!)).toBeNaN();
    expect(bfloat(toBfloat(3.4e38))).toBe(Infinity);
    expect(toBfloat(1)).toBe(0x3f80);
  });
});
