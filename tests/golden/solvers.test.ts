// Solvers for which the references' numbers are not at hand agree with those for which they are, on
// fields known in closed form.
import { describe, expect, it } from "vitest";
import type { Config, GoldenCase, Values } from "../../lib/golden/case.js";
import { evaluator } from "../../lib/golden/evaluate.js";
import { runners } from "../../lib/golden/runners.js";
import { normalStream } from "../../lib/nn/random.js";

const draw = (name: string, scale = 1): Values => ({
  shape: [2, 1, 2, 2],
  data: Float32Array.from(normalStream(5, name, 8), (value) => scale * value),
});

const run = (kind: string, config: Config, io: Record<string, Values>) => {
  const golden: GoldenCase = {
    name: "test",
    kind,
    config,
    rtol: 0,
    io: new Map(
      Object.entries(io).map(([name, values]) => [name, { ...values, role: "input", atol: 0 }]),
    ),
    weights: new Map(),
    texts: new Map(),
  };
  return runners[kind]!(golden, evaluator("ref"));
};

/** Largest difference to the first of the results. */
const misses = (results: readonly Values[]): number[] =>
  results.map(({ data }) =>
    Math.max(...Array.from(data, (value, i) => Math.abs(value - results[0]!.data[i]!))),
  );

describe("kdiff_samplers", () => {
  const mu: Values = { shape: [1, 1, 2, 2], data: Float32Array.of(0.4, -0.2, 0.1, 0.7) };
  const sigmas = Float32Array.from({ length: 61 }, (_, i) => (i < 60 ? 10 * 0.9 ** i : 0));
  const sigmaMin = { sigma_min: sigmas[59]! };
  const io = {
    x_init: draw("x", 10),
    mu,
    sigmas: { shape: [61], data: sigmas },
    ...Object.fromEntries(Array.from({ length: 99 }, (_, k) => [`noise.${k}`, draw(`n${k}`)])),
  };
  const solve = (jobs: unknown[]) =>
    run("kdiff_samplers", { jobs, sigmas_karras: [60, 0.02, 10, 7], data_std: 0.3 }, io);

  it("dpm_fast and dpm_adaptive end where heun's steps do", async () => {
    const results = await solve([
      ["heun", {}],
      ["dpm_fast", { n: 60 }],
      ["dpm_fast", { n: 61, ...sigmaMin, sigma_max: 10 }],
      ["dpm_adaptive", { atol: 1e-4, rtol: 1e-3 }],
      ["dpm_adaptive", { atol: 1e-4, rtol: 1e-3, order: 2, pcoeff: 0.2, dcoeff: 0.1 }],
    ]);
    const ends = [0, 1, 2, 3, 4].map((i) => results[`${i}.final`]!);
    for (const miss of misses(ends)) expect(miss).toBeLessThan(0.03);
    expect(results["1.denoised.20"]).toBeDefined();
    expect(results["1.denoised.21"]).toBeUndefined();
  });

  it("both add the noise of the case", async () => {
    const options = { eta: 1, s_noise: 1 };
    const results = await solve([
      ["dpm_fast", { n: 60 }],
      ["dpm_fast", { n: 60, ...options }],
      ["dpm_adaptive", { ...options }],
    ]);
    const [, fast, adaptive] = misses([0, 1, 2].map((i) => results[`${i}.final`]!));
    expect(fast).toBeGreaterThan(0.01);
    expect(adaptive).toBeGreaterThan(0.01);
  });

  it("refuses what they do not take", async () => {
    await expect(solve([["dpm_fast", { steps: 3 }]])).rejects.toThrow("steps");
    await expect(solve([["dpm_adaptive", { n: 3 }]])).rejects.toThrow("n");
  });
});

describe("sit_integrate_analytic", () => {
  const job = { type: "ode", path: "Linear", prediction: "velocity", data_std: 0.9 };
  const methods = ["rk4", "adaptive_heun", "fehlberg2", "bosh3", "dopri5", "dopri8", "explicit_adams", "implicit_adams"]; // prettier-ignore
  const io = { x_init: draw("x"), mu: draw("mu", 0.5) };

  it("every method of torchdiffeq's own ends at the same place", async () => {
    const jobs = methods.map((method) => ({
      ...job,
      method,
      num_steps: 13,
      atol: 1e-3,
      rtol: 1e-3,
    }));
    const results = await run("sit_integrate_analytic", { jobs }, io);
    const ends = methods.map((_, i) => results[`${i}.x.12`]!);
    misses(ends).forEach((miss, i) => expect(miss, methods[i]).toBeLessThan(0.03));
  });

  it("says why it leaves SciPy alone", async () => {
    const jobs = [{ ...job, method: "scipy_solver" }];
    await expect(run("sit_integrate_analytic", { jobs }, io)).rejects.toThrow("SciPy");
  });
});
