// Losses of Gaussian chains: the bound against its definition, the hybrid loss, and the pixels'
// likelihood as a distribution.
import { describe, expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import { gaussianChain } from "../../lib/processes/gaussian.js";
import {
  corrupt,
  discretisedLogLikelihood,
  gaussianColumns,
  gaussianLoss,
  gaussianTable,
  lossTarget,
  normalKl,
  predictedPosterior,
  priorTerm,
  type ChainPrediction,
  type GaussianTableOptions,
} from "../../lib/processes/gaussian-loss.js";
import { linearBetas } from "../../lib/processes/gaussian-schedules.js";
import { concat } from "../../lib/trace/functions.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { evaluate, f64, type Given } from "./evaluate.js";

const chain = gaussianChain(linearBetas({ timesteps: 1000 }));
const times = [0, 1, 400, 999];
const B = times.length;
const C = 3;

const tableOf = (options: GaussianTableOptions): Given =>
  f64([B, gaussianColumns.length], gaussianTable(chain, times, options));

const wave = (phase: number, scale = 0.9): Given =>
  f64(
    [B, C],
    Array.from({ length: B * C }, (_, i) => scale * Math.sin(3 * i + phase)),
  );

const inputs = { x0: wave(0), eps: wave(1, 1.4), pair: wave(2, 0.5) };
type Named = Record<"x0" | "eps" | "pair" | "table", Tensor>;

describe("a perfect network", () => {
  const predictions: ChainPrediction[] = ["eps", "x0", "v", "previous"];
  const cases = predictions.flatMap((prediction) =>
    ([1, 2] as const).map((formulation) => ({ prediction, formulation })),
  );

  it.each(cases)(
    "has no error and finds x0: $prediction, formulation $formulation",
    async (options) => {
      const found = await evaluate(
        (_, x) => {
          const { x0, eps, table, pair: y } = x as Named;
          const pair = options.formulation === 2 ? { pair: y } : {};
          const xt = corrupt(x0, eps, table, pair.pair);
          const shared = { xt, table, ...pair };
          const output = lossTarget({ x0, eps, output: x0, ...shared }, options.prediction);
          const posterior = predictedPosterior(
            { output, ...shared },
            { prediction: options.prediction },
          );
          const { perSample } = gaussianLoss({ x0, eps, output, ...shared }, { prediction: options.prediction }); // prettier-ignore
          return { gap: posterior.x0.sub(x0).abs().max(), perSample };
        },
        { ...inputs, table: tableOf(options) },
      );
      // the table holds float32 numbers; x0 is divided by sqrt(alphaBar) = 0.006 at the last timestep
      expect(found["gap"]![0]).toBeLessThan(options.prediction === "previous" ? 1e-2 : 1e-4);
      found["perSample"]!.forEach((loss) => expect(loss).toBe(0));
    },
  );

  it("has a bound of zero beyond timestep 0 with the posterior's variance", async () => {
    const options = { variance: "fixedSmall" } as const;
    const found = await evaluate(
      (_, x) => {
        const { x0, eps, table } = x as Named;
        const xt = corrupt(x0, eps, table);
        const loss = gaussianLoss(
          { x0, eps, xt, table, output: eps },
          { loss: "bound", ...options },
        );
        return { bound: loss.perSample };
      },
      { ...inputs, table: tableOf(options) },
    );
    const [first, ...rest] = found["bound"]!;
    expect(first).not.toBeCloseTo(0, 3);
    rest.forEach((bound) => expect(Math.abs(bound)).toBeLessThan(1e-6));
  });
});

describe("the bound", () => {
  it("of normal distributions is the integral's value", async () => {
    const [m1, v1, m2, v2] = [0.3, 0.2, -0.4, 0.7];
    const expected = 0.5 * (Math.log(v2 / v1) + (v1 + (m1 - m2) ** 2) / v2 - 1);
    const found = await evaluate((t) => {
      const normal = (mean: number, variance: number) => ({
        mean: t.constant(mean),
        logVariance: t.constant(Math.log(variance)),
      });
      return { kl: normalKl(normal(m1, v1), normal(m2, v2)) };
    }, {});
    expect(found["kl"]![0]).toBeCloseTo(expected, 12);
  });

  it("of pixels sums to one over their 256 values", async () => {
    const pixels = Array.from({ length: 256 }, (_, i) => i / 127.5 - 1);
    for (const [mean, deviation] of [
      [0.1, 0.3],
      [-0.95, 0.05],
      [1, 1],
    ] as const) {
      const found = await evaluate(
        (t, x) => ({
          total: discretisedLogLikelihood(x["pixels"]!, t.constant(mean), t.constant(Math.log(deviation))).exp().sum(), // prettier-ignore
        }),
        { pixels: f64([256], pixels) },
      );
      expect(found["total"]![0]).toBeCloseTo(1, 6);
    }
  });

  it("of the prior vanishes at the end of the chain only", async () => {
    const at = async (t: number): Promise<number> => {
      const last = { a: chain.sqrtAlphaBars[t]!, c: chain.sqrtOneMinusAlphaBars[t]! };
      const found = await evaluate((_, x) => ({ bits: priorTerm(x["x0"]!, last).mean() }), inputs);
      return found["bits"]![0]!;
    };
    expect(await at(999)).toBeLessThan(1e-4);
    expect(await at(100)).toBeGreaterThan(0.1);
  });

  it("beside the error moves variances only, alone it moves both", async () => {
    const options = { variance: "learnedRange" } as const;
    const build = (loss: "l2" | "bound") => (_: unknown, x: Record<string, Tensor>) => {
      const { x0, eps, table } = x as Named;
      const [mean, spread] = [x["mean"]!, x["spread"]!];
      const xt = corrupt(x0, eps, table);
      const output = concat([mean, spread], 1);
      const found = gaussianLoss({ x0, eps, xt, table, output }, { ...options, loss });
      const [ofMean, ofSpread] = gradients(found.perSample.sum(), [mean, spread]);
      const error = found.error && gradients(found.error.sum(), [mean])[0]!;
      return { ofMean: ofMean!, ofSpread: ofSpread!, ...(error && { error }) };
    };
    const given = { ...inputs, table: tableOf(options), mean: wave(4), spread: wave(5) };
    const hybrid = await evaluate(build("l2"), given);
    hybrid["ofMean"]!.forEach((g, i) => expect(g).toBeCloseTo(hybrid["error"]![i]!, 14));
    expect(hybrid["ofSpread"]!.some((g) => Math.abs(g) > 1e-3)).toBe(true);
    const bound = await evaluate(build("bound"), given);
    expect(bound["ofMean"]!.some((g) => Math.abs(g) > 1e-3)).toBe(true);
    bound["ofSpread"]!.forEach((g, i) => expect(g).toBeCloseTo(hybrid["ofSpread"]![i]!, 12));
  });
});

describe("weights", () => {
  it("multiply the error of a sample", async () => {
    const errors = async (weighting: "uniform" | "min-snr"): Promise<number[]> => {
      const found = await evaluate(
        (_, x) => {
          const { x0, eps, table, pair: output } = x as Named;
          const xt = corrupt(x0, eps, table);
          return { perSample: gaussianLoss({ x0, eps, xt, table, output }).perSample };
        },
        { ...inputs, table: tableOf({ weighting }) },
      );
      return found["perSample"]!;
    };
    const [plain, weighted] = [await errors("uniform"), await errors("min-snr")];
    times.forEach((t, i) => {
      const ratio = chain.alphaBars[t]! / (1 - chain.alphaBars[t]!);
      expect(weighted[i]! / plain[i]!).toBeCloseTo(Math.min(ratio, 5) / ratio, 5);
    });
  });

  it("refuse timesteps beyond the chain", () => {
    expect(() => gaussianTable(chain, [1000])).toThrow("from 0 to 999, got 1000");
    expect(() => gaussianTable(chain, [0], { loss: "l1" } as object)).toThrow("loss");
  });
});
