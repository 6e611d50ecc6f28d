// Whole chains of the discrete samplers on the core, with a denoiser whose answer is known.
import { afterAll, describe, expect, it } from "vitest";
import { maskReplaceSchedule } from "../../lib/processes/schedules.js";
import type { Program, Session } from "../../lib/runtime/program.js";
import { compile } from "../../lib/runtime/program.js";
import {
  discretePlan,
  discreteStepGraph,
  releasedFastPlan,
  sampleDiscrete,
} from "../../lib/samplers/discrete.js";
import type {
  DiscreteDenoiser,
  DiscreteSampleOptions,
  RunStep,
} from "../../lib/samplers/discrete.js";
import { purityPlan, purityStepGraph, samplePurity } from "../../lib/samplers/purity.js";

const p = [0.1, 0.2, 0.3, 0.4];
const codes = 4;
const tokens = 256;
const schedule = maskReplaceSchedule({ codes, timesteps: 20 });
const open: { dispose(): void }[] = [];

/** The same p(x0) at every position; the unconditional rows say the reverse. */
const constantDenoiser: DiscreteDenoiser = (t, { tokens: xt, guided, batch }) => {
  const [rows, N] = xt.shape as [number, number];
  const logP = p.map(Math.log);
  const row = (values: number[]) => t.constant(values, [1, 1, codes]);
  const isConditional = t
    .constant(
      Array.from({ length: rows }, (_, i) => Number(!guided || i < batch)),
      [rows, 1, 1],
    )
    .greater(0.5);
  const logits = row(logP).where(isConditional, row([...logP].reverse()));
  return logits.broadcastTo([rows, N, codes]).add(xt.cast("f32").mul(0).reshape([rows, N, 1]));
};

async function runner(graph: Parameters<typeof compile>[0]): Promise<RunStep> {
  const program: Program = await compile(graph);
  const session: Session = await program.bind();
  open.push(session, program);
  return async (inputs, options) => session.run(inputs, options);
}

afterAll(() => open.forEach((resource) => resource.dispose()));

const stepFor = (batch: number, guided = false): Promise<RunStep> =>
  runner(discreteStepGraph({ denoise: constantDenoiser, batch, tokens, codes, guided }));

async function lastTokens(
  run: RunStep,
  options: Partial<DiscreteSampleOptions> & { batch: number },
): Promise<Int32Array> {
  let last = new Int32Array();
  const defaults = { schedule, plan: discretePlan(schedule), tokens, seed: 5 };
  for await (const { state } of sampleDiscrete(run, { ...defaults, ...options }))
    last = Int32Array.from(state.tokens);
  return last;
}

const shares = (values: Int32Array): number[] =>
  Array.from({ length: codes + 1 }, (_, k) => values.filter((v) => v === k).length / values.length);

/** Within four deviations of a binomial share. */
function expectShares(values: Int32Array, expected: readonly number[]): void {
  shares(values).forEach((share, k) => {
    const q = expected[k] ?? 0;
    expect(Math.abs(share - q)).toBeLessThanOrEqual(4 * Math.sqrt((q * (1 - q)) / values.length));
  });
}

describe("full chain", () => {
  it.each([20, 5, 1])("ends in p(x0) after %i steps, without masks", async (steps) => {
    const run = await stepFor(4);
    expectShares(await lastTokens(run, { batch: 4, plan: discretePlan(schedule, { steps }) }), p);
  });

  it("masks fall as cbar along the exact chain", async () => {
    const run = await stepFor(4);
    const plan = discretePlan(schedule, { steps: 4 });
    const options = { schedule, plan, tokens, seed: 2, batch: 4 };
    for await (const { s, state } of sampleDiscrete(run, options)) {
      const masked = shares(state.tokens)[codes]!;
      expect(Math.abs(masked - (s < 0 ? 0 : schedule.cbar[s]!))).toBeLessThan(0.07);
    }
  });

  it("repeats itself, differs by seed, and does not depend on the batch", async () => {
    const four = await stepFor(4);
    const one = await stepFor(1);
    const all = await lastTokens(four, { batch: 4 });
    expect(await lastTokens(four, { batch: 4 })).toEqual(all);
    expect(await lastTokens(four, { batch: 4, seed: 6 })).not.toEqual(all);
    const third = await lastTokens(one, { batch: 1, firstSample: 2 });
    expect(third).toEqual(all.slice(2 * tokens, 3 * tokens));
  });

  it("guides: scale 3 between p and its reverse", async () => {
    const run = await stepFor(4, true);
    const expected = [0.00087167, 0.01239709, 0.09414044, 0.8925908];
    expectShares(await lastTokens(run, { batch: 4, guidanceScale: 3 }), expected);
    expectShares(await lastTokens(run, { batch: 4, guidanceScale: 1 }), p);
  });

  it("truncates, keeps the best, and cools", async () => {
    const run = await stepFor(4);
    const plan = discretePlan(schedule, { steps: 3 });
    const two = [0, 0, 3 / 7, 4 / 7];
    expectShares(await lastTokens(run, { batch: 4, plan, truncation: 0.69 }), two);
    expectShares(await lastTokens(run, { batch: 4, plan, topK: 2 }), two);
    const squares = p.map((x) => x * x);
    const total = squares.reduce((a, b) => a + b, 0);
    const cooled = squares.map((x) => x / total);
    expectShares(await lastTokens(run, { batch: 4, plan, temperature: 0.5 }), cooled);
  });

  it("keeps known tokens", async () => {
    const run = await stepFor(1);
    const known = Int32Array.from({ length: tokens }, (_, i) => (i < 100 ? 1 : -1));
    const result = await lastTokens(run, { batch: 1, known });
    expect(shares(result.slice(0, 100))[1]).toBe(1);
    expect(shares(result.slice(100))[1]).toBeLessThan(0.5);
  });

  it("runs the released fast form to the end", async () => {
    const run = await stepFor(4);
    const plan = releasedFastPlan(schedule, 3);
    expectShares(await lastTokens(run, { batch: 4, plan }), p);
  });
});

describe("purity chain", () => {
  const options = { denoise: constantDenoiser, batch: 2, tokens, codes, guided: false };

  it("reveals the planned share after each call and redraws all at the end", async () => {
    const reveal = await runner(purityStepGraph({ ...options, rule: "purity" }));
    const redraw = await stepFor(2);
    const plan = purityPlan(schedule, tokens, { perCall: 20 });
    let index = 0;
    let last = new Int32Array();
    for await (const { state } of samplePurity(reveal, redraw, {
      schedule,
      plan,
      batch: 2,
      tokens,
      seed: 1,
    })) {
      const masked = shares(state.tokens)[codes]!;
      expect(masked).toBeCloseTo(1 - plan[index]!.revealed, 6);
      last = Int32Array.from(state.tokens);
      ++index;
    }
    expect(index).toBe(plan.length);
    expectShares(last, p);
  });

  it("scales the counts when tokens are known, and never changes those", async () => {
    const reveal = await runner(purityStepGraph({ ...options, rule: "uniform" }));
    const redraw = await stepFor(2);
    const known = Int32Array.from({ length: 2 * tokens }, (_, i) => (i % 2 === 0 ? 3 : -1));
    const plan = purityPlan(schedule, tokens, { steps: 4 });
    for await (const { s, state } of samplePurity(reveal, redraw, {
      schedule,
      plan,
      batch: 2,
      tokens,
      seed: 1,
      known,
    })) {
      expect(state.tokens.filter((_, i) => i % 2 === 0).every((token) => token === 3)).toBe(true);
      if (s < 0) expect(shares(state.tokens)[codes]).toBe(0);
    }
  });
});
