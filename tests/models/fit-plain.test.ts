// FiT against plain loops in float64: rotation by row and column, norms of heads, attention within each picture of a packed
// sequence, gated networks and every kind of modulation. No original numbers cover it; the loops follow the papers
// (arXiv:2402.12376, 2410.13925) and work on tensors in the names and layouts of whlzy/FiT.
import { describe, expect, it } from "vitest";
import { fit, type FitConfig, type HeadNorm } from "../../lib/models/fit.js";
import { fitKeys } from "../../lib/models/fit.keys.js";
import { mapKey, toLayout } from "../../lib/nn/key-map.js";
import { evaluate, i32, type Given } from "../formulas/evaluate.js";
import { add, attention, draw, layerNorm, linear, map, silu, type Plain } from "./plain-ops.js";

const geluTanh = (x: Plain): Plain =>
  map(x, (v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))));

type Weights = (name: string, ...shape: number[]) => Plain;

const rms = (x: Plain, width: number): Plain => ({
  shape: x.shape,
  data: x.data.map((value, i) => {
    const start = i - (i % width);
    const row = x.data.subarray(start, start + width);
    return value / Math.sqrt(row.reduce((a, b) => a + b * b, 0) / width + 1e-6);
  }),
});

/** Norm of rows of `width` values, with a weight where it is a scaled one. */
function normed(w: Weights, name: string, kind: string, x: Plain, width: number): Plain {
  if (kind === "none") return x;
  const rows = { shape: [x.data.length / width, width], data: x.data };
  const unit = /layer/i.test(kind) ? layerNorm(rows, 1e-6) : rms(rows, width);
  const weight = kind.startsWith("scaled") ? w(`${name}.weight`, width) : undefined;
  return { shape: x.shape, data: unit.data.map((v, i) => v * (weight?.data[i % width] ?? 1)) };
}

const full = (w: Weights, name: string, x: Plain, out: number, hasBias = true): Plain =>
  linear(
    x,
    w(`${name}.weight`, out, x.shape.at(-1)!),
    hasBias ? w(`${name}.bias`, out) : undefined,
  );

const gated = (
  w: Weights,
  at: string,
  x: Plain,
  hidden: number,
  out: number,
  bias: boolean,
): Plain => {
  const [gate, up] = ["fc1_g", "fc1_x"].map((name) => full(w, `${at}.${name}`, x, hidden, bias)) as [Plain, Plain]; // prettier-ignore
  const active = silu(gate);
  return full(
    w,
    `${at}.fc2`,
    map(up, (v, i) => v * active.data[i]!),
    out,
    bias,
  );
};

interface Input {
  tokens: Plain;
  rows: number[];
  columns: number[];
  mask: number[];
  times: number[];
  labels: number[];
}

/** (B, N, D) with heads side by side, each turned by its token's place. */
function turned(x: Plain, heads: number, theta: number, { rows, columns }: Input): Plain {
  const D = x.shape[2]!;
  const d = D / heads;
  const data = x.data.slice();
  for (let token = 0; token < x.data.length / D; ++token)
    for (let h = 0; h < heads; ++h)
      for (let pair = 0; pair < d / 2; ++pair) {
        const axis = pair < d / 4 ? rows : columns;
        const angle = axis[token]! * theta ** (-(pair % (d / 4)) / (d / 4));
        const at = token * D + h * d + 2 * pair;
        const [a, b] = [x.data[at]!, x.data[at + 1]!];
        data[at] = a * Math.cos(angle) - b * Math.sin(angle);
        data[at + 1] = b * Math.cos(angle) + a * Math.sin(angle);
      }
  return { shape: x.shape, data };
}

/** Vectors of a modulation: (B, count D). */
function vectorsOf(w: Weights, at: string, c: Plain, config: FitConfig, count: number): Plain {
  const { width: D, modulation = "lora", modulationBias: bias = true } = config;
  if (modulation === "swiglu") return gated(w, at, c, count === 6 ? 3 * Math.floor(D / 4) : Math.floor(D / 2), count * D, bias); // prettier-ignore
  if (modulation === "linear" || count === 2) return full(w, `${at}.1`, silu(c), count * D, bias);
  const narrow = full(w, `${at}.1`, silu(c), config.modulationRank ?? Math.floor(D / 4), bias);
  return full(w, `${at}.2`, narrow, count * D, bias);
}

const vector = (vectors: Plain, n: number, D: number, count: number) => (b: number, c: number) =>
  vectors.data[b * count * D + n * D + c]!;

/** x (B, N, D) with each value combined with the vectors of its sample. */
const eachToken = (
  x: Plain,
  f: (value: number, b: number, c: number, i: number) => number,
): Plain => {
  const [, N, D] = x.shape as [number, number, number];
  return map(x, (value, i) => f(value, Math.floor(i / (N * D)), i % D, i));
};

function attend(w: Weights, at: string, x: Plain, config: FitConfig, input: Input): Plain {
  const { width: D, heads, queryNorm = "layer", keyNorm = "layer", rotary = {} } = config;
  const [B, N] = x.shape as [number, number];
  const qkv = full(w, `${at}.qkv`, x, 3 * D, config.qkvBias);
  const part = (n: number): Plain => ({ shape: [B, N, D], data: qkv.data.filter((_, i) => Math.floor((i % (3 * D)) / D) === n) }); // prettier-ignore
  const turn = (y: Plain): Plain => turned(y, heads, rotary.theta ?? 10000, input);
  const q = turn(normed(w, `${at}.q_norm`, queryNorm, part(0), D / heads));
  const k = turn(normed(w, `${at}.k_norm`, keyNorm, part(1), D / heads));
  const v = rotary.values ? turn(part(2)) : part(2);
  const own = (b: number, n: number): number => input.mask[b * N + n]!;
  const mixed = attention(q, k, v, { heads, scale: 1 / Math.sqrt(D / heads), sees: (b, n, m) => own(b, n) === own(b, m) }); // prettier-ignore
  const kept = map(mixed, (value, i) => (input.mask[Math.floor(i / D)] === 0 ? 0 : value));
  return full(w, `${at}.proj`, kept, D);
}

function feedForward(w: Weights, at: string, x: Plain, config: FitConfig): Plain {
  const { width: D, mlp = "swiglu", mlpRatio = 4, mlpBias: bias = true } = config;
  const hidden = Math.floor(D * mlpRatio);
  if (mlp === "gelu") return full(w, `${at}.fc2`, geluTanh(full(w, `${at}.fc1`, x, hidden, bias)), D, bias); // prettier-ignore
  return gated(w, at, x, mlp === "swiglu" ? Math.floor((2 * hidden) / 3) : hidden, D, bias);
}

function plainFit(config: FitConfig, w: Weights, input: Input): Plain {
  const { width: D, classes, channels = 4, patch, timeShift: s = 1, norm = "layer" } = config;
  const half = 128;
  const features = input.times.flatMap((raw) => {
    const t = s === 1 ? raw : Math.min(1, (s * raw) / (1 + (s - 1) * raw));
    const angles = Array.from({ length: half }, (_, i) => t * 10000 ** (-i / half));
    return [...angles.map(Math.cos), ...angles.map(Math.sin)];
  });
  const B = input.times.length;
  const first = full(w, "t_embedder.mlp.0", { shape: [B, 2 * half], data: Float64Array.from(features) }, D); // prettier-ignore
  const time = full(w, "t_embedder.mlp.2", silu(first), D);
  const table = w("y_embedder.embedding_table.weight", classes + 1, D);
  const c = map(time, (v, i) => v + table.data[input.labels[Math.floor(i / D)]! * D + (i % D)]!);
  const isLora = (config.modulation ?? "lora") === "lora";
  const shared = isLora ? full(w, "global_adaLN_modulation.1", silu(c), 6 * D, config.modulationBias) : undefined; // prettier-ignore
  let x = full(w, "x_embedder.proj", input.tokens, D);
  const modulated = (name: string, y: Plain, vectors: Plain, at: number, count: number): Plain => {
    const [shift, scale] = [vector(vectors, at, D, count), vector(vectors, at + 1, D, count)];
    return eachToken(normed(w, name, norm, y, D), (v, b, col) => v * (1 + scale(b, col)) + shift(b, col)); // prettier-ignore
  };
  for (let n = 0; n < config.layers; ++n) {
    const at = `blocks.${n}`;
    const own = vectorsOf(w, `${at}.adaLN_modulation`, c, config, 6);
    const vectors = shared ? add(own, shared) : own;
    const gate = (branch: Plain, i: number): Plain => {
      const g = vector(vectors, i, D, 6);
      return eachToken(branch, (v, b, col) => v * g(b, col));
    };
    x = add(x, gate(attend(w, `${at}.attn`, modulated(`${at}.norm1`, x, vectors, 0, 6), config, input), 2)); // prettier-ignore
    x = add(x, gate(feedForward(w, `${at}.mlp`, modulated(`${at}.norm2`, x, vectors, 3, 6), config), 5)); // prettier-ignore
  }
  const last = vectorsOf(w, "final_layer.adaLN_modulation", c, config, 2);
  const out = patch * patch * channels * (config.sigma === "learned" ? 2 : 1);
  const y = full(w, "final_layer.linear", modulated("final_layer.norm_final", x, last, 0, 2), out);
  return map(y, (value, i) => (input.mask[Math.floor(i / out)] === 0 ? 0 : value));
}

const small = { patch: 2, channels: 3, width: 16, layers: 2, heads: 2, classes: 4 };

const cases: [string, FitConfig][] = [
  ["FiTv2", small],
  ["FiT", { ...small, mlp: "wideSwiglu", sigma: "learned", modulation: "linear", queryNorm: "none", keyNorm: "none" }], // prettier-ignore
  ["scaled norms, turned values and no biases", { ...small, queryNorm: "scaledRms", keyNorm: "scaledLayer", rotary: { values: true, theta: 100 }, qkvBias: false, mlpBias: false, modulationBias: false, modulationRank: 3, mlpRatio: 2.5 }], // prettier-ignore
  ["a gated modulation, a plain network and shifted times", { ...small, modulation: "swiglu", mlp: "gelu", queryNorm: "rms" as HeadNorm, timeShift: 3 }], // prettier-ignore
  ["scaled layer norms of the blocks", { ...small, norm: "scaledLayer" }],
  ["scaled root mean squares", { ...small, norm: "scaledRms", modulation: "linear" }],
  ["no norm", { ...small, norm: "none" }],
];

describe("FiT against plain loops", () => {
  it.each(cases)("%s", async (_, config) => {
    const weights = new Map<string, Plain>();
    const get: Weights = (name, ...shape) => {
      if (!weights.has(name)) weights.set(name, draw(name, shape, 0.3, /norm/.test(name) ? 1 : 0));
      return weights.get(name)!;
    };
    const N = 7;
    const input: Input = {
      tokens: draw("tokens", [2, N, 12]),
      // two pictures and padding; one of another shape and padding
      rows: [0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1, 0],
      columns: [0, 1, 0, 1, 0, 0, 0, 0, 1, 2, 0, 1, 2, 0],
      mask: [1, 1, 1, 1, 2, 2, 0, 1, 1, 1, 1, 1, 1, 0],
      times: [0.125, 0.75],
      labels: [3, 4],
    };
    const expected = plainFit(config, get, input);
    const model = fit(config);
    const parameters = new Map<string, Given>();
    for (const [name, { shape, data }] of weights) {
      const match = mapKey(fitKeys, name, shape);
      if (typeof match !== "object") throw new Error(`no place for ${name}`);
      const values = toLayout(Float32Array.from(data), shape, match.layout);
      parameters.set(match.name, { shape: [], data: Float64Array.from(values) });
    }
    expect([...parameters.keys()].sort()).toEqual(model.parameters.map(({ name }) => name).sort());
    for (const { name, shape } of model.parameters) parameters.get(name)!.shape = shape;
    const { y } = await evaluate(
      (_t, x) => ({
        y: model.forwardTokens({ tokens: x["tokens"]!, rows: x["rows"]!, columns: x["columns"]!, mask: x["mask"]!, times: x["times"]!, labels: x["labels"]! }), // prettier-ignore
      }),
      {
        tokens: input.tokens,
        rows: i32([2, N], input.rows),
        columns: i32([2, N], input.columns),
        mask: { shape: [2, N], data: input.mask },
        times: { shape: [2], data: input.times },
        labels: i32([2], input.labels),
      },
      parameters,
    );
    const furthest = Math.max(...y!.map((value, i) => Math.abs(value - expected.data[i]!)));
    expect(furthest).toBeLessThan(1e-12 * Math.max(100, ...expected.data.map(Math.abs)));
  });
});
