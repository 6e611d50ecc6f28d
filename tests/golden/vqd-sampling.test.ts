// The runner of vqd_sampling on a model that is told nothing: its chain against products of transition matrices in plain
// JavaScript, and what is refused.
import { expect, it } from "vitest";
import type { Config, GoldenCase, IoEntry, Values } from "../../lib/golden/case.js";
import { evaluator } from "../../lib/golden/evaluate.js";
import { runners } from "../../lib/golden/runners.js";
import { vqTransformer, type VqTransformer } from "../../lib/models/vq-transformer.js";
import { microsoftVqTransformerKeys } from "../../lib/models/vq-transformer.keys.js";
import { fromLayout } from "../../lib/nn/key-map.js";
import { uniformStream } from "../../lib/nn/random.js";
import { maskReplaceSchedule } from "../../lib/processes/schedules.js";
import { foreignOf } from "../checkpoint/foreign-weights.js";
import { drawnParameters, run } from "../models/run-model.js";

const [K, N, T] = [5, 4, 3];
const transformer = {
  kind: "uncond", n_layer: 1, n_embd: 8, n_head: 2, mlp_hidden_times: 2, block_activate: "GELU2",
  timestep_type: "adalayernorm", mlp_type: "fc", hw: [2, 2], K,
}; // prettier-ignore
const config: Config = {
  transformer, diffusion_step: T, guidance_scale: 1, truncation_rate: 1, mode: "full", skip_step: 0, batch: 1,
}; // prettier-ignore

const model = vqTransformer({
  codes: K, grid: [2, 2], width: 8, layers: 1, heads: 2, mlpRatio: 2, mlp: "linear", activation: "quickGelu",
  timesteps: T, timeNorm: "layer", timeFeatures: "learned",
}); // prettier-ignore
const parameters = drawnParameters(model.parameters);

/** The case with weights as the original names them. */
function caseOf(changes: Config = {}): GoldenCase {
  const weights = model.parameters.map((spec): [string, Values] => {
    const { name, shape, layout } = foreignOf(spec, microsoftVqTransformerKeys)!;
    return [name, { shape, data: fromLayout(parameters.get(spec.name)!.data as Float32Array, shape, layout) }];
  }); // prettier-ignore
  const io = Array.from({ length: T }, (_, k): [string, IoEntry] => [
    `uniform.${k}`,
    { shape: [1, K + 1, N], data: uniformOf(k), role: "input", atol: undefined },
  ]);
  return { name: "test", kind: "vqd_sampling", config: { ...config, ...changes }, rtol: 0, io: new Map(io), weights: new Map(weights), texts: new Map() }; // prettier-ignore
}

const uniformOf = (k: number): Float32Array =>
  Float32Array.from(uniformStream(1, `uniform ${k}`, (K + 1) * N));

const { a, b, c } = maskReplaceSchedule({ codes: K, timesteps: T });

/** Transition i -> j of timestep t; the last state is the mask, which stays. */
const transition = (t: number): number[][] =>
  Array.from({ length: K + 1 }, (_, i) =>
    Array.from({ length: K + 1 }, (_, j) => {
      if (i === K) return Number(j === K);
      return j === K ? c[t]! : b[t]! + (i === j ? a[t]! : 0);
    }),
  );

const product = (x: number[][], y: number[][]): number[][] =>
  x.map((row) => y[0]!.map((_, j) => row.reduce((sum, v, i) => sum + v * y[i]![j]!, 0)));

/** From the beginning to after timestep t; before the first, nothing has moved. */
const until = (t: number): number[][] => {
  const still = transition(0).map((row, i) => row.map((_, j) => Number(i === j)));
  return Array.from({ length: t + 1 }, (_, i) => transition(i)).reduce(product, still);
};

/** Probabilities of every token before timestep t: sum over x0 of p(x0) q(x_{t-1} | x_t, x0). */
function posterior(logits: ArrayLike<number>, xt: number, t: number): number[] {
  const exponentials = Array.from({ length: K }, (_, k) => Math.exp(logits[k]!));
  const total = exponentials.reduce((x, y) => x + y);
  const [step, before, after] = [transition(t), until(t - 1), until(t)];
  return Array.from({ length: K + 1 }, (_, k) =>
    exponentials.reduce((sum, p, x0) => sum + ((p / total) * before[x0]![k]! * step[k]![xt]!) / after[x0]![xt]!, 0),
  ); // prettier-ignore
}

async function logitsOf(network: VqTransformer, tokens: Int32Array, t: number): Promise<Values> {
  const inputs = { tokens: { shape: [1, N], data: tokens }, times: { shape: [1], data: Int32Array.of(t) } }; // prettier-ignore
  const { logits } = await run(parameters, inputs, (_, x) => ({
    logits: network.forward({ tokens: x["tokens"]!, times: x["times"]! }),
  }));
  return logits!;
}

it("walks the chain of a model without a condition", async () => {
  const out = await runners["vqd_sampling"]!(caseOf(), evaluator("ref"));
  let tokens = new Int32Array(N).fill(K);
  for (let k = 0; k < T; ++k) {
    const t = T - 1 - k;
    const logits = await logitsOf(model, tokens, t);
    const uniform = uniformOf(k);
    const found = out[`tap.log_p.${k}`]!.data;
    tokens = tokens.map((xt, n) => {
      const p = posterior(logits.data.subarray(n * K, (n + 1) * K), xt, t);
      p.forEach((value, state) => expect(Math.exp(found[state * N + n]!)).toBeCloseTo(value, 5));
      const scores = p.map((value, state) => Math.log(Math.max(value, 1e-30)) - Math.log(-Math.log(uniform[state * N + n]!))); // prettier-ignore
      return scores.indexOf(Math.max(...scores));
    });
    expect([...out[`tokens.${k}`]!.data]).toEqual([...tokens]);
  }
  expect(tokens.every((token) => token < K)).toBe(true);
});

it("refuses to guide a model that is told nothing", async () => {
  await expect(
    Promise.resolve().then(() => runners["vqd_sampling"]!(caseOf({ guidance_scale: 3 }), evaluator("ref"))),
  ).rejects.toThrow(/guidance_scale/);
}); // prettier-ignore
