// Attention of sizes that take tiles where a CPU has them: what is hidden, spoilt or in another sample leaves the rest alone.
import { describe, expect, it } from "vitest";
import { uniformStream } from "../../lib/nn/random.js";
import { compile } from "../../lib/runtime/program.js";
import { attention } from "../../lib/trace/functions.js";
import { trace } from "../../lib/trace/trace.js";
import { backends } from "./harness.js";

const [N, M, H, D] = [260, 150, 2, 64] as const;

type Change = (q: Float32Array, v: Float32Array, mask: Float32Array) => void;

async function attend(
  isa: string,
  B: number,
  scale: number,
  change: Change = () => {},
  masked = true,
) {
  const graph = trace((t) => {
    const q = t.input("q", { shape: [B, N, H, D] });
    const k = t.input("k", { shape: [B, M, H, D] });
    const v = t.input("v", { shape: [B, M, H, D] });
    const mask = masked ? t.input("mask", { shape: [N, M] }) : undefined;
    const { out, lse } = attention(q, k, v, { scale, ...(mask && { mask }) });
    t.output("out", out);
    t.output("lse", lse);
  });
  const floats = (name: string, count: number): Float32Array =>
    Float32Array.from(uniformStream(5, name, count), (u) => 2 * u - 1);
  const [q, k, v] = [floats("q", B * N * H * D), floats("k", B * M * H * D), floats("v", B * M * H * D)]; // prettier-ignore
  const mask = new Float32Array(N * M);
  change(q, v, mask);
  using program = await compile(graph, { isa });
  using session = await program.bind();
  const { out, lse } = await session.run({ q, k, v, ...(masked && { mask }) });
  return { out: out as Float32Array, lse: lse as Float32Array };
}

describe.each(backends)("%s", (isa) => {
  it("gives a sample the same bits in every batch", async () => {
    const alone = await attend(isa, 1, 0.2);
    const both = await attend(isa, 2, 0.2);
    expect(both.out.subarray(0, N * H * D)).toEqual(alone.out);
  });

  it("gives zeros to a query that sees no key", async () => {
    const { out, lse } = await attend(isa, 1, 0.2, (_q, _v, mask) => {
      mask.fill(-Infinity, 3 * M, 4 * M);
      mask.fill(-Infinity, 9 * M, 10 * M - 1); // this one sees the last
    });
    expect(out.subarray(3 * H * D, 4 * H * D).every((x) => x === 0)).toBe(true);
    expect([lse[3], Number.isFinite(lse[9])]).toEqual([-Infinity, true]);
    expect(out.every(Number.isFinite)).toBe(true);
  });

  it.each([NaN, Infinity])(
    "keeps %f to the query or to the channel where it is",
    async (spoilt) => {
      const { out } = await attend(isa, 1, 0.2, (q, v) => {
        q[7 * H * D] = spoilt;
        v[H * D - 1] = spoilt;
      });
      const isSpoilt = (i: number) => (i < H * D * 8 && i >= H * D * 7 && i % (H * D) < D) || i % (H * D) === H * D - 1; // prettier-ignore
      expect(Array.from(out, (x) => !Number.isFinite(x))).toEqual(Array.from(out, (_, i) => isSpoilt(i))); // prettier-ignore
    },
  );

  it.each([true, false])(
    "gives the value of the highest score where scores are extreme, masked: %s",
    async (masked) => {
      const positive: Change = (_q, v) => v.forEach((x, i) => (v[i] = 0.1 + 0.9 * Math.abs(x)));
      for (const scale of [10, 60, 1e4]) {
        const { out } = await attend(isa, 1, scale, positive, masked);
        expect(out.every((x) => x >= 0.0999 && x <= 1.0001)).toBe(true);
      }
    },
  );
});
