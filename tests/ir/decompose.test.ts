// Decompositions against the definitions of their ops, written out on arrays, and against published numbers.
import { describe, expect, it } from "vitest";
import { opTable } from "../../lib/ir/op-table.js";
import { verify } from "../../lib/ir/verify.js";
import { hasDecomposition } from "../../lib/trace/decompose.js";
import * as f from "../../lib/trace/functions.js";
import { lower } from "../../lib/trace/lower.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace } from "../../lib/trace/trace.js";
import type { Trace } from "../../lib/trace/trace.js";
import { interpret } from "../ops/interpreter.js";

const wave = (count: number, phase = 0): number[] =>
  Array.from({ length: count }, (_, i) => Math.sin(1.7 * i + phase));

function run(
  feeds: Record<string, readonly number[]>,
  fn: (t: Trace) => Record<string, Tensor>,
): Record<string, number[]> {
  const graph = trace((t) => Object.entries(fn(t)).forEach(([name, x]) => t.output(name, x)));
  const plain = lower(graph, new Set());
  verify(graph);
  verify(plain);
  return interpret(plain, feeds);
}

const expectClose = (got: readonly number[], want: readonly number[], tolerance = 1e-9): void => {
  expect(got.length).toBe(want.length);
  got.forEach((x, i) =>
    expect(Math.abs(x - want[i]!)).toBeLessThanOrEqual(tolerance * (1 + Math.abs(want[i]!))),
  );
};

/** Central differences of sum(weights * fn(x)). */
function slopes(fn: (x: number[]) => number[], x: number[], weights: readonly number[]): number[] {
  const step = 1e-5;
  const value = (i: number, delta: number): number =>
    fn(x.with(i, x[i]! + delta)).reduce((sum, y, j) => sum + y * weights[j]!, 0);
  return x.map((_, i) => (value(i, step) - value(i, -step)) / (2 * step));
}

describe("decompositions", () => {
  it("exist for exactly the ops with the trait", () => {
    for (const [name, { traits }] of opTable)
      expect([name, hasDecomposition(name)]).toEqual([name, traits.has("fused")]);
  });

  it("softmax and log-softmax", () => {
    const x = wave(6);
    const got = run({ x }, (t) => {
      const a = t.input("x", { shape: [2, 3] });
      return { y: f.softmax(a), log: f.logSoftmax(a) };
    });
    const want = [0, 1].flatMap((r) => {
      const e = x.slice(3 * r, 3 * r + 3).map(Math.exp);
      return e.map((v) => v / (e[0]! + e[1]! + e[2]!));
    });
    expectClose(got.y!, want);
    expectClose(got.log!, want.map(Math.log));
  });

  it("softmax of large numbers stays finite", () => {
    const got = run({ x: [1e4, 0] }, (t) => ({ y: f.softmax(t.input("x", { shape: [2] })) }));
    expectClose(got.y!, [1, 0]);
  });

  it("group norm", () => {
    const [B, S, C, G] = [2, 3, 4, 2];
    const x = wave(B * S * C);
    const [gamma, beta] = [wave(C, 1), wave(C, 2)];
    const got = run({ x, gamma, beta }, (t) => ({
      y: f.groupNorm(
        t.input("x", { shape: [B, S, C] }),
        t.input("gamma", { shape: [C] }),
        t.input("beta", { shape: [C] }),
        {
          groups: G,
          eps: 1e-3,
        },
      ),
    }));
    const want = x.map((value, i) => {
      const b = Math.floor(i / (S * C));
      const c = i % C;
      const isMember = (j: number): boolean =>
        Math.floor(j / (S * C)) === b && Math.floor((j % C) / 2) === Math.floor(c / 2);
      const members = x.filter((_, j) => isMember(j));
      const mean = members.reduce((a, v) => a + v, 0) / members.length;
      const variance = members.reduce((a, v) => a + (v - mean) ** 2, 0) / members.length;
      return ((value - mean) / Math.sqrt(variance + 1e-3)) * gamma[c]! + beta[c]!;
    });
    expectClose(got.y!, want);
  });

  it.each(["none", "silu"] as const)("group norm gradient, activation %s", (activation) => {
    const [shape, C] = [[2, 2, 2, 6], 6];
    const feeds = { x: wave(48), gamma: wave(C, 1), beta: wave(C, 2), dy: wave(48, 3) };
    const options = { groups: 3, eps: 1e-2, activation };
    const inputs = (t: Trace) => ({
      x: t.input("x", { shape }),
      gamma: t.input("gamma", { shape: [C] }),
      beta: t.input("beta", { shape: [C] }),
    });
    const forward =
      (name: keyof typeof feeds) =>
      (values: number[]): number[] =>
        run({ ...feeds, [name]: values }, (t) => {
          const { x, gamma, beta } = inputs(t);
          return { y: f.groupNorm(x, gamma, beta, options) };
        }).y!;
    const got = run(feeds, (t) => {
      const { x, gamma, beta } = inputs(t);
      const [dx, dgamma, dbeta] = f.groupNormGrad(
        x,
        gamma,
        beta,
        t.input("dy", { shape }),
        options,
      );
      return { x: dx, gamma: dgamma, beta: dbeta };
    });
    for (const name of ["x", "gamma", "beta"] as const) {
      expectClose(got[name]!, slopes(forward(name), feeds[name], feeds.dy), 1e-6);
    }
  });

  it.each(["none", "shared", "modulate"] as const)(
    "layer norm and its gradient, affine %s",
    (affine) => {
      const shape = [2, 3, 5];
      const vector = affine === "modulate" ? [2, 5] : [5];
      const size = affine === "modulate" ? 10 : 5;
      const feeds = { x: wave(30), scale: wave(size, 1), shift: wave(size, 2), dy: wave(30, 3) };
      const options = { eps: 1e-2, affine };
      const names = affine === "none" ? (["x"] as const) : (["x", "scale", "shift"] as const);
      const forward =
        (name: keyof typeof feeds) =>
        (values: number[]): number[] =>
          run({ ...feeds, [name]: values }, (t) => {
            const x = t.input("x", { shape });
            if (affine === "none") return { y: f.layerNorm(x, options) };
            const [scale, shift] = [
              t.input("scale", { shape: vector }),
              t.input("shift", { shape: vector }),
            ];
            return { y: f.layerNorm(x, { ...options, scale, shift }) };
          }).y!;
      const got = run(feeds, (t) => {
        const scale = affine === "none" ? undefined : t.input("scale", { shape: vector });
        const grads = f.layerNormGrad(
          t.input("x", { shape }),
          scale,
          t.input("dy", { shape }),
          options,
        );
        return Object.fromEntries(names.map((name, i) => [name, grads[i]!]));
      });
      for (const name of names)
        expectClose(got[name]!, slopes(forward(name), feeds[name], feeds.dy), 1e-6);
      const row = forward("x")(feeds.x).slice(0, 5);
      if (affine === "none") expectClose([row.reduce((a, b) => a + b, 0)], [0]);
    },
  );

  it.each([false, true])("attention and its gradient, causal %s", (causal) => {
    const [B, N, M, H, D, E] = [2, 2, 3, 2, 3, 4];
    const shapes = { q: [B, N, H, D], k: [B, M, H, D], v: [B, M, H, E], mask: [1, H, 1, M] };
    const count = (shape: number[]): number => shape.reduce((a, b) => a * b, 1);
    const feeds = {
      q: wave(count(shapes.q)),
      k: wave(count(shapes.k), 1),
      v: wave(count(shapes.v), 2),
      mask: wave(count(shapes.mask), 3),
      dout: wave(B * N * H * E, 4),
    };
    const inputs = (t: Trace): [Tensor, Tensor, Tensor, Tensor] => [
      t.input("q", { shape: shapes.q }),
      t.input("k", { shape: shapes.k }),
      t.input("v", { shape: shapes.v }),
      t.input("mask", { shape: shapes.mask }),
    ];
    const forward = (values: Partial<typeof feeds>) =>
      run({ ...feeds, ...values }, (t) => {
        const [q, k, v, mask] = inputs(t);
        return { ...f.attention(q, k, v, { mask, causal, scale: 0.7 }) };
      });
    const want: number[] = [];
    for (let b = 0; b < B; b++)
      for (let n = 0; n < N; n++)
        for (let h = 0; h < H; h++) {
          const s = Array.from({ length: M }, (_, m) => {
            if (causal && m > n + M - N) return -Infinity;
            let dot = 0;
            for (let d = 0; d < D; d++)
              dot +=
                feeds.q[((b * N + n) * H + h) * D + d]! * feeds.k[((b * M + m) * H + h) * D + d]!;
            return 0.7 * dot + feeds.mask[h * M + m]!;
          });
          const total = s.reduce((a, v) => a + Math.exp(v), 0);
          for (let e = 0; e < E; e++)
            want.push(
              s.reduce(
                (a, v, m) => a + (Math.exp(v) / total) * feeds.v[((b * M + m) * H + h) * E + e]!,
                0,
              ),
            );
        }
    expectClose(forward({}).out!, want);

    const got = run(feeds, (t) => {
      const [q, k, v, mask] = inputs(t);
      const dout = t.input("dout", { shape: [B, N, H, E] });
      const forwarded = f.attention(q, k, v, { mask, causal, scale: 0.7 });
      return f.attentionGrad(
        { q, k, v, ...forwarded, dout },
        { mask, causal, scale: 0.7 },
      ) as unknown as Record<string, Tensor>;
    });
    for (const name of ["q", "k", "v"] as const) {
      expectClose(
        got[`d${name}`]!,
        slopes((x) => forward({ [name]: x }).out!, feeds[name], feeds.dout),
        1e-6,
      );
    }
  });

  it("nearest codes by both metrics", () => {
    const feeds = { z: [2, 0.1, 0, 3], e: [1, 0, 9, 0, 0, 1] };
    const got = run(feeds, (t) => {
      const [z, e] = [t.input("z", { shape: [2, 2] }), t.input("e", { shape: [3, 2] })];
      return { near: f.nearestCodes(z, e), angle: f.nearestCodes(z, e, { metric: "cosine" }) };
    });
    expect(got).toEqual({ near: [0, 2], angle: [0, 2] });
  });
});

interface Preset {
  cT: number;
  aT: number;
}

/** Coefficient row of the linear schedules of microsoft/VQ-Diffusion, K codes, T = 100. */
function coefficientRow({ cT, aT }: Preset, K: number, t: number, s: number): number[] {
  const abar = (i: number): number => (i < 0 ? 1 : 0.99999 + (i / 99) * (aT - 0.99999));
  const cbar = (i: number): number => (i < 0 ? 0 : 9e-6 + (i / 99) * (cT - 9e-6));
  const bbar = (i: number): number => (1 - abar(i) - cbar(i)) / K;
  const a = abar(t) / abar(s);
  const c = 1 - (1 - cbar(t)) / (1 - cbar(s));
  return [abar(t), bbar(t), cbar(t), abar(s), bbar(s), cbar(s), a, (1 - a - c) / K, c];
}

const released: Preset = { aT: 9e-6, cT: 0.99999 };
const paper90: Preset = { aT: 9e-6, cT: 0.9 };

function loss(
  logits: number[],
  x0: number[],
  xt: number[],
  coeffs: number[],
): Record<string, number[]> {
  const B = coeffs.length / 9;
  const N = x0.length / B;
  const K = logits.length / x0.length;
  return run({ logits, x0, xt, coeffs }, (t) => {
    const tokens = { shape: [B, N], dtype: "i32" } as const;
    const { kl, nll } = f.maskReplaceLoss(
      t.input("logits", { shape: [B, N, K] }),
      t.input("x0", tokens),
      t.input("xt", tokens),
      t.input("coeffs", { shape: [B, 9] }),
    );
    return { kl, nll };
  });
}

describe("loss of mask-and-replace diffusion", () => {
  const logits = [0.1, 0.2, 0.3, 0.4].map(Math.log);
  const [K, MASK] = [4, 4];

  // Golden values: KL over K + 1 classes by explicit transition matrices in float64.
  it.each([
    ["released", released, 50, MASK, 0.0240785847],
    ["released", released, 50, 2, 0.0140986643],
    ["released", released, 50, 1, 0.0200869331],
    ["released", released, 99, MASK, 0.0121530051],
    ["paper90", paper90, 50, MASK, 0.0184673576],
    ["paper90", paper90, 50, 2, 0.027039364],
    ["paper90", paper90, 50, 1, 0.0314162492],
    ["paper90", paper90, 99, MASK, 0.000113906244],
  ] as const)("%s t = %3$s, x_t = %4$s", (_, preset, t, xt, want) => {
    const got = loss(logits, [2], [xt], coefficientRow(preset, K, t, t - 1));
    expect(Math.abs(got.kl![0]! / want - 1)).toBeLessThan(1e-7);
    expectClose(got.nll!, [-Math.log(0.3)]);
  });

  it("is -log p(x0) for the step to clean data", () => {
    for (const xt of [0, 2, MASK]) {
      const got = loss(logits, [2], [xt], coefficientRow(paper90, K, 40, -1));
      expectClose(got.kl!, [-Math.log(0.3)], 1e-9);
    }
  });

  it("keeps visible tokens when nothing is replaced at random", () => {
    const absorbing = [0.5, 0, 0.5, 0.6, 0, 0.4, 0.5 / 0.6, 0, 1 - 0.5 / 0.6];
    expectClose(loss(logits, [2], [2], absorbing).kl!, [0]);
    const weight = (1 - 0.5 / 0.6) / 0.5; // c_ts / cbar_t
    expectClose(loss(logits, [2], [MASK], absorbing).kl!, [-Math.log(0.3) * weight * 0.6]);
  });

  it("has the gradient of finite differences", () => {
    const [x0, xt] = [
      [2, 1, 0, 3, 3, 1],
      [2, 0, 5, 5, 1, 1],
    ]; // K = 5
    const coeffs = [
      ...coefficientRow(paper90, 5, 60, 55),
      ...coefficientRow(released, 5, 30, 29),
      ...coefficientRow(paper90, 5, 3, -1),
    ];
    const start = wave(30, 0.3).map((v) => 2 * v);
    const [dkl, dnll] = [wave(6, 1), wave(6, 2)];
    const got = run({ logits: start, x0, xt, coeffs, dkl, dnll }, (t) => {
      const tokens = { shape: [3, 2], dtype: "i32" } as const;
      return {
        dlogits: f.maskReplaceLossGrad(
          t.input("logits", { shape: [3, 2, 5] }),
          t.input("x0", tokens),
          t.input("xt", tokens),
          t.input("coeffs", { shape: [3, 9] }),
          t.input("dkl", { shape: [3, 2] }),
          t.input("dnll", { shape: [3, 2] }),
        ),
      };
    });
    const both = (values: number[]): number[] => {
      const { kl, nll } = loss(values, x0, xt, coeffs);
      return [...kl!, ...nll!];
    };
    expectClose(got.dlogits!, slopes(both, start, [...dkl, ...dnll]), 1e-6);
  });
});

describe("lower", () => {
  const graph = trace((t) => {
    const x = t.input("x", { shape: [2, 3, 8] });
    const gamma = t.parameter({ name: "gamma", shape: [8], init: { kind: "ones" } });
    const y = t.scoped("block", () => f.rmsNorm(x, gamma).add(f.stopGradient(f.softmax(x))));
    t.output("nll", f.crossEntropy(y, t.input("target", { shape: [2, 3], dtype: "i32" })));
  });

  it("keeps ops with kernels and replaces the others, again and again", () => {
    const ops = lower(graph, new Set(["softmax"])).nodes.map(({ op }) => op);
    expect(ops).toContain("softmax");
    for (const gone of ["rmsNorm", "crossEntropy", "logSoftmax", "stopGradient"])
      expect(ops).not.toContain(gone);
    verify(lower(graph, new Set(["softmax"])));
  });

  it("keeps scopes, inputs, outputs and updates", () => {
    const training = trace(
      (t) => {
        const w = t.parameter({ name: "w", shape: [4], init: { kind: "zeros" } });
        t.update(
          "w",
          t.scoped("step", () => f.stopGradient(w).sub(1)),
        );
        t.output("loss", w.sum());
      },
      { parameters: "state" },
    );
    const lowered = lower(training, new Set());
    expect(lowered.inputs.map(({ name, role }) => [name, role])).toEqual([["w", "state"]]);
    expect(lowered.outputs.map(({ name, updates }) => [name, updates])).toEqual([
      ["w", "w"],
      ["loss", undefined],
    ]);
    expect(lowered.nodes.find(({ op }) => op === "sub")?.scope).toBe("step");
  });

  it("leaves no decomposable op in the decomposed graph", () => {
    expect(lower(graph, new Set()).nodes.filter(({ op }) => hasDecomposition(op))).toEqual([]);
  });
});
