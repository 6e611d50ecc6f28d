// Random numbers: the generator's bits, the moments of its distributions, and draws against explicit probabilities.
import { describe, expect, it } from "vitest";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace } from "../../lib/trace/trace.js";
import { categorical, maskReplaceStep, randomUniform } from "../../lib/trace/functions.js";
import { coefficientRow } from "./cases-fused.js";
import { ownBackends, run } from "./harness.js";
import { reverseStep, softmaxOf, transition } from "./mask-replace-oracle.js";
import { philox } from "./philox.js";
import { countsOf, expectDistribution, expectMean } from "./statistics.js";

const isas = ownBackends;

/** `count` numbers for each key row. */
async function draw(
  op: "randomUniform" | "randomNormal",
  isa: string,
  keys: readonly number[],
  count: number,
  purpose: number,
): Promise<Float32Array> {
  const B = keys.length / 4;
  const graph = trace((t) => {
    const key = t.input("key", { shape: [B, 4], dtype: "i32" });
    t.output("y", t.append(op, [key], { shape: [B, count], purpose, dtype: "f32" })[0]!);
  });
  return (await run(graph, isa, { key: Int32Array.from(keys) })).y as Float32Array;
}

describe("Philox", () => {
  it("agrees with Random123's known answers", () => {
    const ones = 0xffffffff;
    const hex = (words: readonly number[]): string => words.map((w) => w.toString(16)).join(" ");
    expect(hex(philox([0, 0, 0, 0], [0, 0]))).toBe("6627e8d5 e169c58d bc57ac4c 9b00dbd8");
    expect(hex(philox([ones, ones, ones, ones], [ones, ones]))).toBe(
      "408f276d 41c83b0e a20bc7c6 6d5451fd",
    );
    expect(
      hex(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])),
    ).toBe("d16cfe09 94fdcceb 5001e420 24126ea1");
  });

  it.each(isas)("gives the same bits in native code: %s", async (isa) => {
    const zero = await draw("randomUniform", isa, [0, 0, 0, 0], 4, 0);
    expect(Array.from(zero, (u) => u * 2 ** 24)).toEqual([0x6627e8, 0xe169c5, 0xbc57ac, 0x9b00db]);
    const keys = [123456789, -987654321, 5, 999, 1, 2, 70000, 3];
    const ours = await draw("randomUniform", isa, keys, 45, 17);
    const expected = [0, 1].flatMap((b) => {
      const [low, high, sample, step] = keys.slice(4 * b, 4 * b + 4) as [
        number,
        number,
        number,
        number,
      ];
      return Array.from({ length: 45 }, (_, i) => {
        const words = philox([i >> 2, 17, sample, step], [low >>> 0, high >>> 0]);
        return (words[i % 4]! >>> 8) * 2 ** -24;
      });
    });
    expect(Array.from(ours)).toEqual(expected);
  });
});

describe.each(isas)("distributions on %s", (isa) => {
  const count = 200_000;
  const key = [42, 7, 0, 1];

  it("uniform numbers are uniform", async () => {
    const u = await draw("randomUniform", isa, key, count, 1);
    expect(u.every((x) => x >= 0 && x < 1)).toBe(true);
    expectMean(u, 0.5, Math.sqrt(1 / 12));
    expectMean(
      u.map((x) => x * x),
      1 / 3,
      Math.sqrt(4 / 45),
    );
    expectDistribution(
      countsOf(
        u.map((x) => Math.floor(x * 64)),
        64,
      ),
      new Array<number>(64).fill(1 / 64),
    );
  });

  it("normal numbers have the moments of a normal distribution", async () => {
    const z = await draw("randomNormal", isa, key, count, 2);
    expectMean(z, 0, 1);
    expectMean(
      z.map((x) => x ** 2),
      1,
      Math.sqrt(2),
    );
    expectMean(
      z.map((x) => x ** 3),
      0,
      Math.sqrt(15),
    );
    expectMean(
      z.map((x) => x ** 4),
      3,
      Math.sqrt(96),
    );
    expectMean(
      z.subarray(1).map((x, i) => x * z[i]!),
      0,
      1,
    ); // neighbours do not correlate
    expect(z.every(Number.isFinite)).toBe(true);
  });
});

it("a sample does not depend on the batch around it", async () => {
  const batch = await draw("randomNormal", "", [3, 1, 0, 0, 3, 1, 1, 0, 3, 1, 2, 0], 33, 4);
  const alone = await draw("randomNormal", "", [3, 1, 2, 0], 33, 4);
  expect(Array.from(batch.subarray(66))).toEqual(Array.from(alone));
});

const K = 6;
const N = 60_000;
const logits = [0.3, -1, 2, 0.1, -0.4, 1.2];
const uncond = [1, 0.2, -0.5, 0.4, 0.3, -1];
const step = coefficientRow(K, 0.5, 0.4);

describe.each(isas)("mask-and-replace draws on %s", (isa) => {
  it("forward: q(x_t | x_0)", async () => {
    const graph = trace((t) => {
      const x0 = t.constant([2], [1, N], "i32");
      const key = t.input("key", { shape: [1, 4], dtype: "i32" });
      const uniform = randomUniform(key, { shape: [1, N, 2], purpose: 3 });
      const coeffs = t.constant(step, [1, 9]);
      t.output("xt", t.append("maskReplaceForward", [x0, coeffs, uniform], { codes: K })[0]!);
    });
    const { xt } = await run(graph, isa, { key: Int32Array.of(1, 2, 3, 4) });
    const [alpha, beta, gamma] = step as [number, number, number];
    const expected = Array.from({ length: K + 1 }, (_, k) =>
      transition({ alpha, beta, gamma }, K, k, 2),
    );
    expectDistribution(countsOf(xt!, K + 1), expected);
  });

  it.each([
    ["from the mask", K],
    ["from a code", 2],
  ])("reverse: p(x_s | x_t) %s", async (_, xt) => {
    const { tokens } = await reverse(isa, xt, [1, 1, 1, 0]);
    expectDistribution(countsOf(tokens!, K + 1), reverseStep(step, K, xt, softmaxOf(logits)));
  });

  it("temperature flattens or sharpens p(x_0)", async () => {
    const { tokens } = await reverse(isa, K, [1, 0.5, 1, 0]);
    const p0 = softmaxOf(logits.map((x) => x / 0.5));
    expectDistribution(countsOf(tokens!, K + 1), reverseStep(step, K, K, p0));
  });

  it("top-k keeps the k most probable codes", async () => {
    const { tokens } = await reverse(isa, K, [1, 1, 1, 2]);
    const p0 = softmaxOf(logits).map((p, i) => (i === 2 || i === 5 ? p : 0));
    const total = p0.reduce((sum, p) => sum + p, 0);
    const expected = reverseStep(step, K, K, p0.map((p) => p / total)); // prettier-ignore
    expectDistribution(countsOf(tokens!, K + 1), expected);
  });

  it("truncation keeps codes until their mass reaches the rate", async () => {
    const { tokens } = await reverse(isa, K, [1, 1, 0.6, 0]);
    // sorted: 2 has 0.52, 5 has 0.23 (0.75 so far), and what follows is dropped
    const p0 = softmaxOf(logits.map((x, i) => (i === 2 || i === 5 ? x : -1e9)));
    expectDistribution(countsOf(tokens!, K + 1), reverseStep(step, K, K, p0));
  });

  it("guidance extrapolates log p from the unconditional one", async () => {
    const { tokens } = await reverse(isa, 2, [3, 1, 1, 0], uncond);
    const [given, without] = [softmaxOf(logits), softmaxOf(uncond)];
    const guided = given.map((p, i) => Math.log(without[i]!) + 3 * Math.log(p / without[i]!));
    expectDistribution(countsOf(tokens!, K + 1), reverseStep(step, K, 2, softmaxOf(guided)));
  });

  it("best and confidence are the maximum of p(x_0)", async () => {
    const { best, confidence } = await reverse(isa, K, [1, 1, 1, 0]);
    expect(new Set(best)).toEqual(new Set([2]));
    expect(confidence![0]).toBeCloseTo(softmaxOf(logits)[2]!, 5);
  });
});

describe.each(isas)("categorical draws on %s", (isa) => {
  it("follow softmax(logits)", async () => {
    const graph = trace((t) => {
      const key = t.input("key", { shape: [1, 4], dtype: "i32" });
      const rows = t.constant(logits, [1, 1, K]).broadcastTo([1, N, K]);
      t.output("draws", categorical(rows, key, { purpose: 11 }));
    });
    const { draws } = await run(graph, isa, { key: Int32Array.of(5, 6, 7, 8) });
    expectDistribution(countsOf(draws!, K), softmaxOf(logits));
  });
});

/** One step for N positions with the same logits, x_t and settings. */
async function reverse(isa: string, xt: number, settings: number[], unconditional?: number[]) {
  const graph = trace((t) => {
    const key = t.input("key", { shape: [1, 4], dtype: "i32" });
    const everywhere = (row: number[]): Tensor => t.constant(row, [1, 1, K]).broadcastTo([1, N, K]);
    const { tokens, best, confidence } = maskReplaceStep(
      everywhere(logits),
      t.constant([xt], [1, N], "i32"),
      t.constant(step, [1, 9]),
      t.constant(settings, [1, 4]),
      randomUniform(key, { shape: [1, N], purpose: 5 }),
      unconditional && everywhere(unconditional),
    );
    t.output("tokens", tokens);
    t.output("best", best);
    t.output("confidence", confidence);
  });
  return run(graph, isa, { key: Int32Array.of(9, 8, 7, 6) });
}
