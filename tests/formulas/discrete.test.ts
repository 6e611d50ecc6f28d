// Posterior, truncation, guidance and loss of mask-and-replace against printed tables, explicit
// matrices and each other.
import { describe, expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import {
  guide,
  keepBest,
  logCoefficients,
  logCoefficientTable,
  logOneHot,
  posterior,
  predictStart,
  truncate,
} from "../../lib/processes/discrete.js";
import {
  discreteLoss,
  drawTimesteps,
  importanceState,
  lossWeightTable,
  referenceLoss,
  timestepProbabilities,
  updateImportance,
} from "../../lib/processes/discrete-loss.js";
import {
  coefficientTable,
  maskReplaceSchedule,
  pairCoefficients,
} from "../../lib/processes/schedules.js";
import type { MaskReplacePreset, MaskReplaceSchedule } from "../../lib/processes/schedules.js";
import { sharpen } from "../../lib/samplers/purity.js";
import { maskReplaceLoss } from "../../lib/trace/functions.js";
import { evaluate, f64, i32 } from "./evaluate.js";

const p = [0.1, 0.2, 0.3, 0.4];
const logP = p.map(Math.log);
const kMask = 4;

/** Log posterior of one token for p(x0) over K classes, as probabilities. */
async function posteriorOf(
  schedule: MaskReplaceSchedule,
  t: number,
  s: number,
  xt: number,
  from = logP,
) {
  const { out } = await evaluate(
    (_, x) => ({
      out: posterior(predictStart(x["logits"]!), x["xt"]!, logCoefficients(x["table"]!)).exp(),
    }),
    {
      logits: f64([1, 1, from.length], from),
      xt: i32([1, 1], [xt]),
      table: f64([1, 12], logCoefficientTable(schedule, [{ t, s }])),
    },
  );
  return out!;
}

type Row = [MaskReplacePreset, number, number, number, number[]];

// preset, t, s, x_t, probabilities of 0, 1, 2, 3 and the mask; K = 4, T = 100
const table: Row[] = [
  ["released", 0, -1, 2, [0.1, 0.2, 0.3, 0.4, 0]],
  ["released", 0, -1, kMask, [0.1, 0.2, 0.3, 0.4, 0]],
  ["released", 1, 0, 2, [0.00101009, 0.00202018, 0.99292936, 0.00404037, 0]],
  ["released", 1, 0, kMask, [0.09991113, 0.19982201, 0.29973288, 0.39964376, 0.00089022]],
  ["released", 50, 49, 2, [0.00199997, 0.00399993, 0.98600026, 0.00799985, 0]],
  ["released", 50, 49, kMask, [0.00199997, 0.00399993, 0.00599989, 0.00799985, 0.98000036]],
  ["released", 99, 98, 2, [0.09991859, 0.19981969, 0.30063985, 0.39962188, 0]],
  ["released", 99, 98, kMask, [0.00101024, 0.00202023, 0.00303023, 0.00404022, 0.98989908]],
  ["released", 99, 95, 2, [0.09997964, 0.19995489, 0.30016007, 0.3999054, 0]],
  ["released", 99, 95, kMask, [0.00404052, 0.00808079, 0.01212105, 0.01616132, 0.95959632]],
  ["released", 50, 46, 2, [0.00754705, 0.01509408, 0.94717072, 0.03018814, 0]],
  ["released", 50, 46, kMask, [0.00799988, 0.01599972, 0.02399956, 0.03199941, 0.92000143]],
  ["paper90", 1, 0, 2, [0.09990216, 0.19980415, 0.30068556, 0.39960812, 0]],
  ["paper90", 1, 0, kMask, [0.09990125, 0.19980224, 0.29970324, 0.39960424, 0.00098903]],
  ["paper90", 50, 49, 2, [0.00423158, 0.00783809, 0.97287921, 0.01505112, 0]],
  ["paper90", 50, 49, kMask, [0.0022677, 0.00408917, 0.00591064, 0.00773211, 0.9800004]],
  ["paper90", 99, 98, 2, [0.23586646, 0.24512564, 0.25536392, 0.26364398, 0]],
  ["paper90", 99, 98, kMask, [0.00238481, 0.00247842, 0.00257203, 0.00266564, 0.98989909]],
  ["paper90", 50, 46, 2, [0.01586036, 0.0296102, 0.89741955, 0.05710989, 0]],
  ["paper90", 50, 46, kMask, [0.00895809, 0.0163191, 0.02368011, 0.03104112, 0.92000158]],
];

// The tables are rounded to eight digits; log coefficients pass through float32.
const kTableError = 2e-7;

const expectNear = (
  actual: readonly number[],
  expected: readonly number[],
  error = kTableError,
): void => {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThan(error));
};

/**
 * Bayes' rule with explicit matrices, in float64: P(x_s) = sum over x0 of q(x_s | x_t, x0) p(x0).
 */
function bayes(schedule: MaskReplaceSchedule, t: number, s: number, xt: number): number[] {
  const K = schedule.codes;
  const [, bbarT, cbarT, abarS, bbarS, cbarS, a, b, c] = pairCoefficients(schedule, t, s);
  const abarT = pairCoefficients(schedule, t, s)[0];
  const move = (from: number, to: number, keep: number, replace: number, mask: number): number => {
    if (from === K) return to === K ? 1 : 0;
    if (to === K) return mask;
    return replace + (to === from ? keep : 0);
  };
  return Array.from({ length: K + 1 }, (_, xs) =>
    p.reduce((sum, mass, x0) => {
      const joint = move(x0, xs, abarS, bbarS, cbarS) * move(xs, xt, a, b, c);
      return sum + (mass * joint) / move(x0, xt, abarT, bbarT, cbarT);
    }, 0),
  );
}

describe("posterior", () => {
  it.each(table)("%s, %i -> %i from %i", async (preset, t, s, xt, expected) => {
    expectNear(await posteriorOf(maskReplaceSchedule({ codes: 4, preset }), t, s, xt), expected);
  });

  it("equals Bayes' rule with explicit matrices for every pair of levels", async () => {
    const schedule = maskReplaceSchedule({ codes: 4, timesteps: 8, preset: "paper90" });
    const pairs = Array.from({ length: 8 }, (_, t) =>
      Array.from({ length: t + 1 }, (__, i) => ({ t, s: i - 1 })),
    );
    const levels = pairs
      .flat()
      .flatMap((pair) => Array.from({ length: 5 }, (_, xt) => ({ ...pair, xt })));
    const B = levels.length;
    const { out } = await evaluate(
      (_, x) => ({
        out: posterior(predictStart(x["logits"]!), x["xt"]!, logCoefficients(x["table"]!)).exp(),
      }),
      {
        logits: f64(
          [B, 1, 4],
          levels.flatMap(() => logP),
        ),
        xt: i32(
          [B, 1],
          levels.map(({ xt }) => xt),
        ),
        table: f64([B, 12], logCoefficientTable(schedule, levels)),
      },
    );
    levels.forEach(({ t, s, xt }, i) =>
      expectNear(out!.slice(5 * i, 5 * i + 5), bayes(schedule, t, s, xt), 1e-6),
    );
  });

  it("composes: one-step posteriors with a fixed x0 are the strided posterior", () => {
    const schedule = maskReplaceSchedule({ codes: 4, timesteps: 20, preset: "paper90" });
    const given = (t: number, s: number, xt: number, x0: number): number[] => {
      const only = p.map((_, k) => Number(k === x0));
      const [abarT, bbarT, cbarT, abarS, bbarS, cbarS, a, b, c] = pairCoefficients(schedule, t, s);
      const like = (
        from: number,
        to: number,
        keep: number,
        replace: number,
        mask: number,
      ): number =>
        from === 4 ? Number(to === 4) : to === 4 ? mask : replace + Number(to === from) * keep;
      return Array.from({ length: 5 }, (_, xs) =>
        only.reduce(
          (sum, mass, k) =>
            mass === 0
              ? sum
              : sum +
                (like(k, xs, abarS, bbarS, cbarS) * like(xs, xt, a, b, c)) /
                  like(k, xt, abarT, bbarT, cbarT),
          0,
        ),
      );
    };
    const [t, middle, s] = [17, 11, 4];
    for (let xt = 0; xt < 5; ++xt) {
      const first = given(t, middle, xt, 2);
      const chained = Array.from({ length: 5 }, (_, xs) =>
        first.reduce(
          (sum, mass, xm) => sum + (mass === 0 ? 0 : mass * given(middle, s, xm, 2)[xs]!),
          0,
        ),
      );
      expectNear(chained, given(t, s, xt, 2), 1e-12);
    }
  });
});

describe("truncation", () => {
  it.each([
    [0.3, [3]],
    [0.69, [2, 3]],
    [0.71, [1, 2, 3]],
    [0.86, [1, 2, 3]],
    [0.95, [0, 1, 2, 3]],
  ])("keeps at rate %f", async (rate, kept) => {
    const { out } = await evaluate((_, x) => ({ out: truncate(x["logP"]!, rate) }), {
      logP: f64([1, 1, 4], logP),
    });
    expect(out!.flatMap((value, i) => (value > -69 ? [i] : []))).toEqual(kept);
  });

  it("keeps the k best", async () => {
    const { out } = await evaluate((_, x) => ({ out: keepBest(x["logP"]!, 2) }), {
      logP: f64([1, 1, 4], logP),
    });
    expect(out!.map((value) => value > -69)).toEqual([false, false, true, true]);
  });
});

describe("guidance", () => {
  it.each([
    [1.5, [0.03621292, 0.11827089, 0.26610951, 0.57940668]],
    [3, [0.00087167, 0.01239709, 0.09414044, 0.8925908]],
    [5, [0.00000376, 0.00038002, 0.01460917, 0.98500705]],
  ])("at scale %f", async (scale, expected) => {
    const { out } = await evaluate(
      (_, x) => ({ out: guide(predictStart(x["c"]!), predictStart(x["u"]!), scale).exp() }),
      { c: f64([1, 1, 4], logP), u: f64([1, 1, 4], [...logP].reverse()) },
    );
    expectNear(out!.slice(0, 4), expected, 1e-8);
  });
});

describe("purity prior", () => {
  it.each([
    [1, 0.4, [0.06553528, 0.17294864, 0.3051019, 0.45641419]],
    [1, 1, [0.03333333, 0.13333333, 0.3, 0.53333333]],
    [2, 0.4, [0.04195932, 0.14611083, 0.30314239, 0.50878746]],
    [2, 1, [0.01, 0.08, 0.27, 0.64]],
  ])("sharpens with weight %f and score %f", async (weight, score, expected) => {
    const { out } = await evaluate(
      (_, x) => ({ out: sharpen(predictStart(x["logits"]!), x["score"]!, weight).exp() }),
      { logits: f64([1, 1, 4], logP), score: f64([1, 1], [score]) },
    );
    expectNear(out!.slice(0, 4), expected, 1e-8);
  });
});

// preset, t, x_t, KL of one position with p as above and x0 = 2
const kls: [MaskReplacePreset, number, number, number][] = [
  ["released", 50, kMask, 0.0240785847],
  ["released", 50, 2, 0.0140986643],
  ["released", 50, 1, 0.0200869331],
  ["released", 99, kMask, 0.0121530051],
  ["paper90", 50, kMask, 0.0184673576],
  ["paper90", 50, 2, 0.027039364],
  ["paper90", 50, 1, 0.0314162492],
  ["paper90", 99, kMask, 0.000113906244],
];

describe("loss", () => {
  it.each(kls)("%s at t = %i from %i", async (preset, t, xt, expected) => {
    const schedule = maskReplaceSchedule({ codes: 4, preset });
    const coeffs = f64([1, 9], pairCoefficients(schedule, t, t - 1));
    const inputs = {
      logits: f64([1, 1, 4], logP),
      x0: i32([1, 1], [2]),
      xt: i32([1, 1], [xt]),
      coeffs,
    };
    const { kl, nll } = await evaluate(
      (_, x) => ({ ...maskReplaceLoss(x["logits"]!, x["x0"]!, x["xt"]!, x["coeffs"]!) }),
      inputs,
    );
    expect(Math.abs(kl![0]! - expected)).toBeLessThan(1e-9);
    expect(nll![0]).toBeCloseTo(1.2039728, 6);
  });

  it("is the weighted cross-entropy of a masked position under a pure mask schedule", async () => {
    const schedule = maskReplaceSchedule({ codes: 4 });
    const [, , cbarT, abarS, , , , , c] = pairCoefficients(schedule, 50, 49);
    const { kl } = await evaluate(
      (_, x) => ({ kl: maskReplaceLoss(x["logits"]!, x["x0"]!, x["xt"]!, x["coeffs"]!).kl }),
      {
        logits: f64([1, 1, 4], logP),
        x0: i32([1, 1], [2]),
        xt: i32([1, 1], [kMask]),
        coeffs: f64([1, 9], pairCoefficients(schedule, 50, 49)),
      },
    );
    expect(kl![0]).toBeCloseTo((c / cbarT) * abarS * -Math.log(0.3), 5);
  });

  it("has one value and gradient by the fused operation and by the reference's arrays", async () => {
    const schedule = maskReplaceSchedule({ codes: 4, timesteps: 10, preset: "paper90" });
    const times = [0, 3, 9];
    const levels = times.map((t) => ({ t, s: t - 1 }));
    const options = { timesteps: 10, auxiliaryWeight: 0.01, maskWeight: [0.5, 1.5] } as const;
    const logits = Array.from({ length: 3 * 2 * 4 }, (_, i) => Math.sin(3 * i));
    const results = await evaluate(
      (_, x) => {
        const inputs = { logits: x["logits"]!, x0: x["x0"]!, xt: x["xt"]!, weights: x["weights"]! };
        const fused = discreteLoss({ ...inputs, coeffs: x["coeffs"]! });
        const reference = referenceLoss({ ...inputs, logTable: x["table"]!, times: x["times"]! });
        return {
          fused: fused.perSample,
          reference: reference.perSample,
          fusedGradient: gradients(fused.loss, [x["logits"]!])[0]!,
          referenceGradient: gradients(reference.loss, [x["logits"]!])[0]!,
        };
      },
      {
        logits: f64([3, 2, 4], logits),
        x0: i32([3, 2], [0, 1, 2, 3, 1, 2]),
        xt: i32([3, 2], [4, 1, 4, 0, 1, 4]),
        times: i32([3], times),
        coeffs: f64([3, 9], coefficientTable(schedule, levels)),
        table: f64([3, 12], logCoefficientTable(schedule, levels)),
        weights: f64([3, 4], lossWeightTable(times, [0.2, 0.3, 0.5], options)),
      },
    );
    expectNear(results["fused"]!, results["reference"]!, 1e-5);
    expectNear(results["fusedGradient"]!, results["referenceGradient"]!, 1e-5);
  });

  it("weighs terms as the reference: 2 - t / T, no mask weights at t = 0", () => {
    const options = { timesteps: 100, auxiliaryWeight: 0.001, maskWeight: [0.5, 1.2] } as const;
    const rows = lossWeightTable([0, 50], [0.5, 0.25], options);
    expectNear([...rows], [2, 0.004, 1, 1, 4, 0.006, 0.5, 1.2], 1e-6);
  });
});

describe("log one-hot", () => {
  it("counts zero as 1e-30", async () => {
    const { out } = await evaluate((_, x) => ({ out: logOneHot(x["tokens"]!, 3) }), {
      tokens: i32([1, 1], [1]),
    });
    expectNear(out!, [-69.0775527898, 0, -69.0775527898], 1e-9);
  });
});

describe("importance sampling", () => {
  it("is uniform until each timestep has more than ten draws", () => {
    const fresh = importanceState(4);
    expect([...timestepProbabilities(fresh)]).toEqual([0.25, 0.25, 0.25, 0.25]);
    expect(drawTimesteps(fresh, [0, 0.3, 0.999]).times).toEqual([0, 1, 3]);
  });

  it("follows the root of the averaged squares, entry 0 like entry 1", () => {
    const warm = { history: Float64Array.of(9, 4, 1), counts: Float64Array.of(11, 11, 11) };
    expectNear([...timestepProbabilities(warm)], [0.4, 0.4, 0.2], 1e-4);
  });

  it("keeps the last of equal timesteps and counts every draw", () => {
    const next = updateImportance(importanceState(3), [1, 2, 1], [10, 3, 2]);
    expectNear([...next.history], [0, 0.4, 0.9], 1e-12);
    expect([...next.counts]).toEqual([0, 2, 1]);
  });
});
