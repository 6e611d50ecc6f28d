// Continuous samplers on data whose denoiser is known in closed form: one or two normal distributions.
import { afterAll, describe, expect, it } from "vitest";
import { chainLevels, gaussianChain, respacedChain } from "../../lib/processes/gaussian.js";
import { predictions, type Level } from "../../lib/processes/gaussian-levels.js";
import { linearBetas } from "../../lib/processes/gaussian-schedules.js";
import { trailingTimesteps } from "../../lib/processes/respacing.js";
import { compile } from "../../lib/runtime/program.js";
import {
  sampleContinuous,
  type ContinuousPlan,
  type ContinuousSampleOptions,
  type Floats,
} from "../../lib/samplers/continuous.js";
import {
  continuousStepGraph,
  type ContinuousDenoiser,
  type ContinuousStepOptions,
} from "../../lib/samplers/continuous-step.js";
import { ddim } from "../../lib/samplers/ddim.js";
import { ddpm } from "../../lib/samplers/ddpm.js";
import {
  classifierFree,
  guidanceInputs,
  guidanceInterval,
  isGuided,
  labelLogProbability,
  withAndWithoutPair,
} from "../../lib/samplers/guidance.js";
import { inversion } from "../../lib/samplers/inversion.js";
import { concat, logSumExp } from "../../lib/trace/functions.js";
import type { Tensor } from "../../lib/trace/tensor.js";

const open: { dispose(): void }[] = [];
afterAll(() => open.forEach((resource) => resource.dispose()));

const chain = gaussianChain(linearBetas({ timesteps: 1000 }));

/** Levels round(linspace(0, 999, N + 1)) without 0, noisiest first, then clean data; times are alphaBar. */
const grid = (N: number, b = 0): Level[] => {
  const times = Array.from({ length: N }, (_, i) => Math.round(((i + 1) * 999) / N)).reverse();
  const noisy = times.map((t) => chain.alphaBars[t]!);
  return [...noisy, 1].map((bar) => ({
    time: bar,
    a: Math.sqrt(bar),
    b: bar === 1 ? 0 : b,
    c: Math.sqrt(1 - bar),
  }));
};

const mean = 0.3;
const variance = 0.25;

const column = (x: Tensor, like: Tensor): Tensor =>
  x.reshape([like.shape[0]!, ...like.shape.slice(1).map(() => 1)]);

/** E[eps | x] of N(centre, variance); the time is alphaBar. */
const epsOf = (x: Tensor, times: Tensor, centre: number | Tensor): Tensor => {
  const bar = column(times, x);
  const c = bar.neg().add(1).sqrt();
  const spread = bar.mul(variance).sub(bar).add(1);
  return c.mul(x.sub(bar.sqrt().mul(centre))).div(spread);
};

const exactEps: ContinuousDenoiser = (_, { x, times }) => epsOf(x, times, mean);

type Run = Partial<ContinuousSampleOptions> & {
  plan: ContinuousPlan;
  step?: Partial<ContinuousStepOptions>;
};

/** Last state of a run, in float64 on the reference unless told otherwise. */
async function sample(run: Run): Promise<Floats> {
  const { plan, step, batch = 1, shape = [1], dtype = "f64" } = run;
  const hasPair = run.pair !== undefined;
  const graph = continuousStepGraph(
    { denoise: exactEps, batch, shape, plan, hasPair, ...step },
    { dtype },
  );
  const program = await compile(graph, dtype === "f64" ? { isa: "ref" } : {});
  const session = await program.bind();
  open.push(session, program);
  const defaults = { parameterisation: predictions.eps, batch, shape, seed: 0, dtype };
  let last: Floats = new Float32Array();
  for await (const { state } of sampleContinuous((inputs) => session.run(inputs), {
    ...defaults,
    ...run,
  }))
    last = state.x.slice();
  return last;
}

const one = async (plan: ContinuousPlan, start: number, run: Partial<Run> = {}): Promise<number> =>
  (await sample({ plan, start: Float64Array.of(start), ...run }))[0]!;

/** The probability flow's answer from x at level `from` to clean data. */
const flowEnd = (x: number, from: Level): number =>
  mean + (Math.sqrt(variance) * (x - from.a * mean)) / Math.hypot(from.a * Math.sqrt(variance), from.c); // prettier-ignore

const moments = (sample: Floats): { mean: number; variance: number } => {
  const values = [...sample];
  const average = values.reduce((sum, x) => sum + x, 0) / values.length;
  return {
    mean: average,
    variance: values.reduce((sum, x) => sum + (x - average) ** 2, 0) / values.length,
  };
};

describe("ddim", () => {
  it.each([
    [5, 0.561198449],
    [10, 0.6684900587],
    [20, 0.7300468385],
    [50, 0.7702329586],
  ])("with %i steps gives the published recursion's value", async (N, expected) => {
    expect(await one(ddim().plan(grid(N)), 1)).toBeCloseTo(expected, 8);
  });

  it("converges with order one between levels of one log signal-to-noise spacing", async () => {
    const errors = [];
    for (const N of [20, 40, 80]) {
      const levels = Array.from({ length: N + 1 }, (_, i) => {
        const lambda = -4 + (7 * i) / N;
        const bar = 1 / (1 + Math.exp(-2 * lambda));
        return { time: bar, a: Math.sqrt(bar), b: 0, c: Math.sqrt(1 - bar) };
      });
      const end = levels.at(-1)!;
      const clean = flowEnd(1.1, levels[0]!);
      const spread = Math.hypot(end.a * Math.sqrt(variance), end.c);
      const exact = end.a * mean + (spread * (clean - mean)) / Math.sqrt(variance);
      errors.push(Math.abs((await one(ddim().plan(levels), 1.1)) - exact));
    }
    expect(errors[0]).toBeCloseTo(4.6e-2, 3);
    expect(Math.log2(errors[0]! / errors[1]!)).toBeGreaterThan(0.9);
    expect(Math.log2(errors[1]! / errors[2]!)).toBeGreaterThan(0.95);
  });
});

describe("formulation 2", () => {
  it.each([
    ["ddim", ddim()],
    ["ddpm", ddpm({ variance: "fixedSmall" })],
  ])("by %s is formulation 1 on x - y", async (_, sampler) => {
    const y = 0.7;
    const shifted: ContinuousDenoiser = (t, { x, times, pair }) =>
      exactEps(t, { x: x.sub(pair!), times });
    const noise = (index: number): { noise: Float64Array } => ({
      noise: Float64Array.of(Math.sin(index)),
    });
    const given = { noise, step: { noise: "given" } } as const;
    const plain = await one(sampler.plan(grid(10)), 1, given);
    const found = await one(sampler.plan(grid(10, 1)), 1 + y, {
      noise,
      pair: Float64Array.of(y),
      step: { noise: "given", denoise: shifted },
    });
    expect(found).toBeCloseTo(plain, 12);
  });

  it("guides with a consistent empty branch", async () => {
    const y = 0.7;
    // conditional: the data's mean is the pair; empty: no pair, mean 0.3; both on the unshifted state
    const paired: ContinuousDenoiser = (_, { x, times, pair }) =>
      epsOf(x.sub(pair!), times, pair!.mul(0.5).add(mean));
    const inputs = { guidance: Float64Array.of(2.5) };
    const run = { pair: Float64Array.of(y), inputs };
    const step = (subtract: boolean) => ({
      denoise: classifierFree(withAndWithoutPair(paired, { subtract })),
    });
    const found = await one(ddim().plan(grid(10, 1)), 1 + y, { ...run, step: step(true) });
    // the same on x - y
    const plain: ContinuousDenoiser = (_, { x, times }) => {
      const full = epsOf(x, times, 0.5 * y + mean);
      const empty = epsOf(x, times, mean);
      return empty.add(full.sub(empty).mul(2.5));
    };
    expect(found).toBeCloseTo(
      await one(ddim().plan(grid(10)), 1, { step: { denoise: plain } }),
      12,
    );
    const published = await one(ddim().plan(grid(10, 1)), 1 + y, { ...run, step: step(false) });
    expect(published).not.toBeCloseTo(found, 2);
  });

  it("starts around the pair", async () => {
    const plan = ddim().plan(chainLevels(chain, { formulation: 2 }).slice(0, 2));
    const size = 4096;
    const pair = new Float32Array(size).fill(3);
    const none: ContinuousDenoiser = (_, { x, pair }) => x.sub(pair!);
    const options = { shape: [size], pair, dtype: "f32", step: { denoise: none } } as const;
    const { mean: centre, variance: spread } = moments(await sample({ plan, ...options }));
    expect(centre).toBeCloseTo(3, 1);
    expect(spread).toBeCloseTo(1, 1);
  });
});

describe("ancestral chains", () => {
  const size = 2000;
  const levels = grid(100);
  const plan = ddpm({ variance: "fixedLarge" }).plan(levels);
  const options = { shape: [size], dtype: "f32", seed: 3 } as const;

  it.each([
    ["ddpm", plan],
    ["ddim with eta 1", ddim({ eta: 1 }).plan(levels)],
  ])("by %s end in the data's distribution", async (_, plan) => {
    const found = moments(await sample({ plan, batch: 2, ...options }));
    expect(Math.abs(found.mean - mean)).toBeLessThan(0.05);
    expect(Math.abs(found.variance - variance)).toBeLessThan(0.05);
  });

  it("repeat themselves, differ by seed, and do not depend on the batch", async () => {
    const short = ddpm().plan(grid(5));
    const two = await sample({ plan: short, batch: 2, ...options });
    expect(await sample({ plan: short, batch: 2, ...options })).toEqual(two);
    expect(await sample({ plan: short, batch: 2, ...options, seed: 4 })).not.toEqual(two);
    const second = await sample({ plan: short, batch: 1, ...options, firstSample: 1 });
    expect(second).toEqual(two.slice(size));
  });

  it("share the noise of the start, of the steps, or both", async () => {
    const short = ddpm().plan(grid(5));
    const common = { plan: short, batch: 2, shape: [size], dtype: "f32", seed: 3 } as const;
    const halvesOf = async (shared: "start" | "steps" | "both"): Promise<Floats[]> => {
      const all = await sample({ ...common, shared });
      return [all.slice(0, size), all.slice(size)];
    };
    const [one, two] = await halvesOf("both");
    expect(two).toEqual(one);
    const start = new Float32Array(2 * size).fill(0.5);
    const same = await sample({ ...common, start, shared: "steps" });
    expect(same.slice(size)).toEqual(same.slice(0, size));
    expect(one).toEqual((await sample(common)).slice(0, size));
    for (const part of ["start", "steps"] as const) {
      const [first, second] = await halvesOf(part);
      expect(second).not.toEqual(first);
    }
  });

  it("use learned variances between the two fixed ones", async () => {
    const deviations = [-1, 1].map(async (u) => {
      const learned: ContinuousDenoiser = (t, input) => {
        const eps = exactEps(t, input);
        return concat([eps, eps.mul(0).add(u)], 1);
      };
      const plan = ddpm({ variance: "learnedRange" }).plan(grid(5));
      const step = { denoise: learned, variance: "learnedRange", noise: "given" } as const;
      const noise = () => ({ noise: Float64Array.of(1) });
      return one({ ...plan, steps: plan.steps.slice(0, 2) }, 1, { step, noise });
    });
    const fixed = (["fixedSmall", "fixedLarge"] as const).map(async (variance) => {
      const plan = ddpm({ variance }).plan(grid(5));
      const noise = () => ({ noise: Float64Array.of(1) });
      return one({ ...plan, steps: plan.steps.slice(0, 2) }, 1, {
        step: { noise: "given" },
        noise,
      });
    });
    const [low, high] = await Promise.all(deviations);
    const [small, large] = await Promise.all(fixed);
    expect(low).toBeCloseTo(small!, 12);
    expect(high).toBeCloseTo(large!, 12);
    expect(high).not.toBeCloseTo(low!, 3);
  });
});

describe("inversion", () => {
  it("with refinements finds the noise that ddim turns into the sample", async () => {
    const levels = grid(10);
    const sampled = await one(ddim().plan(levels), 0.9);
    const options = { step: { epsilon: "kept" } } as const;
    const plain = await one(inversion().plan(levels), sampled, options);
    const refined = await one(inversion({ refinements: 20 }).plan(levels), sampled, options);
    expect(Math.abs(refined - 0.9)).toBeLessThan(1e-6);
    expect(Math.abs(plain - 0.9)).toBeGreaterThan(Math.abs(refined - 0.9));
    expect(await one(ddim().plan(levels), refined)).toBeCloseTo(sampled, 6);
  });

  it("comes closer to the flow with more steps", async () => {
    const errors = [];
    for (const N of [20, 300]) {
      const levels = grid(N);
      const start = flowEnd(0.9, levels[0]!);
      errors.push(Math.abs((await one(inversion().plan(levels), start)) - 0.9));
    }
    expect(errors[1]).toBeLessThan(errors[0]! / 2);
    expect(() => inversion({ refinements: -1 })).toThrow("refinements >= 0");
  });
});

describe("guidance", () => {
  const centres = [-0.8, 1.1];
  /** log p(x_t | class) up to a constant, (B, classes). */
  const logLikelihoods = (x: Tensor, times: Tensor): Tensor => {
    const bar = column(times, x);
    const spread = bar.mul(variance).sub(bar).add(1);
    const logs = centres.map((m) => x.sub(bar.sqrt().mul(m)).square().div(spread).mul(-0.5));
    return concat(logs, 1);
  };
  /** E[eps | x] of the even mixture of both classes. */
  const mixture = (x: Tensor, times: Tensor): Tensor => {
    const logs = logLikelihoods(x, times);
    const p = logs.sub(logSumExp(logs, 1, true)).exp();
    const weight = (k: number): Tensor => p.slice([0, k], [x.shape[0]!, 1]);
    return epsOf(x, times, centres[0]!).mul(weight(0)).add(epsOf(x, times, centres[1]!).mul(weight(1))); // prettier-ignore
  };
  const conditional: ContinuousDenoiser = (_, { x, times }) => epsOf(x, times, centres[1]!);
  const plan = ddim().plan(grid(20));

  it("by a classifier's gradient samples the class, for ddim and for ddpm", async () => {
    const step = (mode: "score" | "mean") => ({
      denoise: (_: unknown, { x, times }: { x: Tensor; times: Tensor }) => mixture(x, times),
      guide: {
        mode,
        logProbability: (_: unknown, { x, times }: { x: Tensor; times: Tensor }) =>
          labelLogProbability(logLikelihoods(x, times), times.mul(0).add(1).cast("i32")),
      },
    });
    const wanted = await one(plan, 0.4, { step: { denoise: conditional } });
    const found = await one(plan, 0.4, { step: step("score"), gradient: "score" });
    expect(found).toBeCloseTo(wanted, 9);
    expect(await one(plan, 0.4, { step: step("score"), gradient: "score", gradientScale: 0 })).not.toBeCloseTo(wanted, 2); // prettier-ignore
    const ancestral = ddpm({ variance: "fixedSmall" }).plan(grid(150));
    const noise = (index: number) => ({ noise: Float64Array.of(Math.sin(7 * index)) });
    const given = { noise, seed: 1 };
    const byMean = await one(ancestral, 0.4, { ...given, step: { ...step("mean"), noise: "given" }, gradient: "mean" }); // prettier-ignore
    const byClass = await one(ancestral, 0.4, { ...given, step: { denoise: conditional, noise: "given" } }); // prettier-ignore
    expect(Math.abs(byMean - byClass)).toBeLessThan(0.04);
  });

  const branches: ContinuousDenoiser = (_, { x, times }) => {
    const [rows] = x.shape as [number];
    const half = (i: number, v: Tensor): Tensor =>
      v.slice([(i * rows) / 2, ...v.shape.slice(1).map(() => 0)], [rows / 2, ...v.shape.slice(1)]);
    return concat(
      [epsOf(half(0, x), half(0, times), centres[1]!), mixture(half(1, x), half(1, times))],
      0,
    );
  };
  const guided = (scale: number | ((level: Level) => number), options = {}): Partial<Run> => ({
    batch: 2,
    start: Float64Array.of(0.4, -0.2),
    step: { denoise: classifierFree(branches, options) },
    inputs: (evaluation) => ({
      guidance: Float64Array.from(guidanceInputs([scale], 2)(evaluation)["guidance"]!),
    }),
  });

  it("without classifier is the conditional chain at scale 1, the empty one at 0", async () => {
    const at = async (scale: number): Promise<number> => (await sample({ plan, ...guided(scale) }))[0]!; // prettier-ignore
    const denoise: ContinuousDenoiser = (_, { x, times }) => mixture(x, times);
    expect(await at(1)).toBeCloseTo(await one(plan, 0.4, { step: { denoise: conditional } }), 12);
    expect(await at(0)).toBeCloseTo(await one(plan, 0.4, { step: { denoise } }), 12);
    expect(await at(3)).toBeGreaterThan(await at(1));
  });

  it("acts in its interval only", async () => {
    const scale = guidanceInterval(3, { from: 0.2, to: 0.6 });
    const all = await sample({ plan, ...guided(3) });
    const part = await sample({ plan, ...guided(scale) });
    const none = await sample({ plan, ...guided(1) });
    expect(part[0]).not.toBeCloseTo(all[0]!, 3);
    expect(part[0]).not.toBeCloseTo(none[0]!, 3);
    const flags = plan.steps.map(({ evaluations: [e] }) => isGuided([scale], e!));
    const inside = plan.steps.map(({ t }) => t >= 0.2 && t <= 0.6);
    expect(flags).toEqual(inside);
  });

  it("mixes three branches, a subset of channels, and deviations", async () => {
    const values = [[1, 2, 30], [4, 8, 40], [10, 20, 50]]; // prettier-ignore
    const three = (t: Tensor["trace"]): Tensor => t.constant(values.flat(), [3, 3]);
    const scales = [2, 3];
    const run = async (options: object): Promise<number[]> => {
      const denoise = classifierFree((t) => three(t), { branches: 3, ...options });
      const raw = { inputScale: 1, x0: [0, 0, 1], eps: [0, 0, 0] } as const;
      const levels = [{ time: 1, a: 0.5, b: 0, c: 0.5 }, { time: 0, a: 1, b: 0, c: 0 }]; // prettier-ignore
      const inputs = { guidance: Float64Array.from(scales) };
      const found = await sample({
        plan: ddim().plan(levels), shape: [3], step: { denoise }, inputs,
        start: new Float64Array(3), parameterisation: () => raw,
      }); // prettier-ignore
      return [...found];
    };
    // empty + 3 (middle - empty) + 2 (full - middle)
    expect(await run({})).toEqual([10 - 18 - 6, 20 - 36 - 12, 50 - 30 - 20]);
    expect(await run({ channels: 2 })).toEqual([-14, -28, 30]);
    const deviation = (x: number[]): number => {
      const average = x.reduce((a, b) => a + b) / x.length;
      return Math.sqrt(x.reduce((sum, v) => sum + (v - average) ** 2, 0) / x.length);
    };
    const plain = [-14, -28, 0];
    const factor = 0.7 * (deviation(values[0]!) / deviation(plain)) + 0.3;
    const rescaled = await run({ rescale: 0.7 });
    plain.forEach((x, i) => expect(rescaled[i]).toBeCloseTo(x * factor, 10));
  });

  it("says what is wrong", () => {
    expect(() => classifierFree(branches, { branches: 1 })).toThrow("branches >= 2");
    expect(() => classifierFree(branches, { scale: 3 } as object)).toThrow("scale");
  });
});

describe("steps", () => {
  it("update the state in one instruction after the network", async () => {
    const plan = ddpm().plan(grid(3));
    const denoise: ContinuousDenoiser = (t, { x }) => x.mul(0.5);
    const common = { denoise, batch: 2, shape: [8, 8, 4], plan, hasPair: true } as const;
    using program = await compile(
      continuousStepGraph({ ...common, clamp: [-1, 1], epsilon: "rederived" }),
    );
    const text = program.print();
    expect(text.match(/pointwise/g)).toHaveLength(1);
    expect(text.match(/randomNormal/g)).toHaveLength(1);
  });

  it("clamp x0, with eps kept or derived again", async () => {
    const levels = grid(4).slice(2, 4);
    const first = ddim().plan(levels);
    const [from, to] = levels as [Level, Level];
    const x = 40; // far out, so that x0 is clamped
    const eps = (from.c * (x - from.a * mean)) / (from.a ** 2 * variance + from.c ** 2);
    const again = (x - from.a) / from.c;
    const step = { clamp: [-1, 1], epsilon: "kept" } as const;
    expect(await one(first, x, { step })).toBeCloseTo(to.a + to.c * eps, 9);
    const derived = await one(first, x, { step: { ...step, epsilon: "rederived" } });
    expect(derived).toBeCloseTo(to.a + to.c * again, 9);
  });

  it("clamp by a quantile of each sample", async () => {
    const levels = [{ time: 1, a: 0.5, b: 0, c: 0.5 }, { time: 0, a: 1, b: 0, c: 0 }]; // prettier-ignore
    const raw = { inputScale: 1, x0: [0, 0, 1], eps: [0, 0, 0] } as const;
    const x0 = [[0.2, -4, 1, 3, -2], [0.1, 0.2, -0.3, 0.4, 0.5]]; // prettier-ignore
    const found = await sample({
      plan: ddim().plan(levels), batch: 2, shape: [5], start: new Float64Array(10), parameterisation: () => raw,
      step: { denoise: (t) => t.constant(x0.flat(), [2, 5]), clamp: { quantile: 0.7 } },
    }); // prettier-ignore
    // sorted 0.2 1 2 3 4: the place 0.7 x 4 = 2.8 lies at 2.8
    const bound = 2.8;
    const expected = [0.2 / bound, -1, 1 / bound, 1, -2 / bound, ...x0[1]!];
    expected.forEach((value, i) => expect(found[i]).toBeCloseTo(value, 12));
  });

  it("let a callback replace the state, and stop on a signal", async () => {
    const plan = ddim().plan(grid(4));
    const replaced = await one(plan, 1, {
      onStep: ({ index, state }) => (index === 2 ? { ...state, x: Float64Array.of(5) } : undefined),
    });
    const tail = { ...plan, steps: plan.steps.slice(3) };
    expect(replaced).toBeCloseTo(await one(tail, 5), 12);
    const controller = new AbortController();
    const stopped = one(plan, 1, { signal: controller.signal, onStep: () => controller.abort() });
    await expect(stopped).rejects.toMatchObject({ code: "aborted" });
  });

  it("check what they are given", async () => {
    const plan = ddim().plan(chainLevels(respacedChain(chain, trailingTimesteps(1000, 2))));
    await expect(sample({ plan, start: new Float64Array(3) })).rejects.toThrow("start of [1, 1]");
    const wide: ContinuousDenoiser = (_, { x }) => concat([x, x], 1);
    await expect(sample({ plan, step: { denoise: wide } })).rejects.toThrow("option variance");
  });
});
