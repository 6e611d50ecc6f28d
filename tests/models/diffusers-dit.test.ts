// DiTTransformer2DModel of huggingface/diffusers in plain float64 loops over tensors of its names: parts of one projection,
// one modulation a block, the position table, and the constants in which its code differs from the original.
import { existsSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../lib/checkpoint/open-checkpoint.js";
import { writeSafetensors } from "../../lib/checkpoint/safetensors.js";
import { dit, type DitConfig } from "../../lib/models/dit.js";
import { ditFamilies } from "../../lib/models/dit.family.js";
import { ShapeView } from "../../lib/models/family.js";
import { mapKey, placePart, toLayout } from "../../lib/nn/key-map.js";
import { convertModels, identify } from "../../lib/pipelines/import-checkpoint.js";
import { evaluate, i32, type Given } from "../formulas/evaluate.js";
import { add, attention, conv, draw, layerNorm, linear, map, silu, tokens, type Plain } from "./plain-ops.js"; // prettier-ignore

const family = ditFamilies.find(({ name }) => name === "diffusers-dit")!;

type Weights = (name: string, ...shape: number[]) => Plain;

const full = (w: Weights, name: string, x: Plain, out: number): Plain =>
  linear(x, w(`${name}.weight`, out, x.shape.at(-1)!), w(`${name}.bias`, out));

const geluTanh = (x: Plain): Plain =>
  map(x, (v) => 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3))));

/** x (B, N, D) (1 + scale) + shift with vectors n and n + 1 of `count`. */
const modulate = (x: Plain, vectors: Plain, n: number, count: number): Plain => {
  const [, N, D] = x.shape as [number, number, number];
  const at = (i: number, m: number): number => vectors.data[(Math.floor(i / (N * D)) * count + m) * D + (i % D)]!; // prettier-ignore
  return map(x, (v, i) => v * (1 + at(i, n + 1)) + at(i, n));
};

function plainDit(
  config: DitConfig,
  w: Weights,
  x: Plain,
  times: number[],
  labels: number[],
): Plain {
  const { patch: p, width: D, heads, channels: C = 4, classes, trainedBy } = config;
  const isDiffusers = trainedBy === "diffusers";
  const map0 = conv(
    unfolded(x, p),
    reshaped(w("pos_embed.proj.weight", D, C, p, p), [D, C * p * p, 1, 1]),
    w("pos_embed.proj.bias", D),
  );
  const [B, , h, wide] = map0.shape as [number, number, number, number];
  // the column in the first half of the features, each half sines before cosines
  let y = map(tokens(map0), (value, i) => {
    const [feature, token] = [i % D, Math.floor(i / D) % (h * wide)];
    const place = feature < D / 2 ? token % wide : Math.floor(token / wide);
    const k = feature % (D / 4);
    const angle = place * 10000 ** (-k / (D / 4));
    return value + (feature % (D / 2) < D / 4 ? Math.sin(angle) : Math.cos(angle));
  });
  const features = times.flatMap((t) => {
    const angles = Array.from({ length: 128 }, (_, i) => t * 10000 ** (-i / (isDiffusers ? 127 : 128))); // prettier-ignore
    return [...angles.map(Math.cos), ...angles.map(Math.sin)];
  });
  /** What a block is told; in networks that diffusers trained by weights of its own. */
  const told = (n: number): Plain => {
    const emb = `transformer_blocks.${isDiffusers ? n : 0}.norm1.emb`;
    const first = full(w, `${emb}.timestep_embedder.linear_1`, { shape: [B, 256], data: Float64Array.from(features) }, D); // prettier-ignore
    const time = full(w, `${emb}.timestep_embedder.linear_2`, silu(first), D);
    const table = w(`${emb}.class_embedder.embedding_table.weight`, classes + 1, D);
    return map(time, (v, i) => v + table.data[labels[Math.floor(i / D)]! * D + (i % D)]!);
  };
  for (let n = 0; n < config.layers; ++n) {
    const at = `transformer_blocks.${n}`;
    const vectors = full(w, `${at}.norm1.linear`, silu(told(n)), 6 * D);
    const gated = (branch: Plain, m: number): Plain =>
      map(branch, (v, i) => v * vectors.data[(Math.floor(i / (h * wide * D)) * 6 + m) * D + (i % D)]!); // prettier-ignore
    const seen = modulate(layerNorm(y, 1e-6), vectors, 0, 6);
    const [q, k, v] = ["q", "k", "v"].map((name) => full(w, `${at}.attn1.to_${name}`, seen, D)) as [Plain, Plain, Plain]; // prettier-ignore
    const mixed = attention(q, k, v, { heads, scale: 1 / Math.sqrt(D / heads) });
    y = add(y, gated(full(w, `${at}.attn1.to_out.0`, mixed, D), 2));
    const normed = modulate(layerNorm(y, isDiffusers ? 1e-5 : 1e-6), vectors, 3, 6);
    const hidden = geluTanh(full(w, `${at}.ff.net.0.proj`, normed, 4 * D));
    y = add(y, gated(full(w, `${at}.ff.net.2`, hidden, D), 5));
  }
  const vectors = full(w, "proj_out_1", silu(told(0)), 2 * D);
  return full(w, "proj_out_2", modulate(layerNorm(y, 1e-6), vectors, 0, 2), 2 * C * p * p);
}

const reshaped = ({ data }: Plain, shape: number[]): Plain => ({ shape, data });

/** (B, C, H, W) -> (B, C p p, H / p, W / p). */
function unfolded(x: Plain, p: number): Plain {
  const [B, C, H, W] = x.shape as [number, number, number, number];
  const [h, w] = [H / p, W / p];
  const data = new Float64Array(x.data.length);
  let at = 0;
  for (let b = 0; b < B; ++b)
    for (let c = 0; c < C; ++c)
      for (let u = 0; u < p; ++u)
        for (let v = 0; v < p; ++v)
          for (let i = 0; i < h; ++i)
            for (let j = 0; j < w; ++j)
              data[at++] = x.data[((b * C + c) * H + i * p + u) * W + j * p + v]!;
  return { shape: [B, C * p * p, h, w], data };
}

/** All tensors of a small network by their names, drawn as they are asked for. */
function drawn(): { weights: Map<string, Plain>; get: Weights } {
  const weights = new Map<string, Plain>();
  const get: Weights = (name, ...shape) => {
    if (!weights.has(name)) weights.set(name, draw(name, shape, 0.3));
    return weights.get(name)!;
  };
  return { weights, get };
}

const small: DitConfig = { size: [4, 6], patch: 2, channels: 3, width: 16, layers: 2, heads: 2, classes: 4 }; // prettier-ignore

describe("DiT of diffusers against plain loops", () => {
  it.each([small, { ...small, trainedBy: "diffusers" as const }])("%o", async (config) => {
    const { weights, get } = drawn();
    const [H, W] = config.size;
    const x = draw("x", [2, 3, H, W]);
    const expected = plainDit(config, get, x, [17, 803.5], [3, 4]);

    const view = new ShapeView("test", new Map([...weights].map(([name, { shape }]) => [name, shape]))); // prettier-ignore
    const facts = { heads: 2, nullClass: true, size: [H, W], trainedBy: config.trainedBy ?? "original" }; // prettier-ignore
    const configured = family.configure(view, facts) as DitConfig;
    expect(configured).toMatchObject(config);
    const model = dit(configured);
    const specs = new Map(model.parameters.map((spec) => [spec.name, spec.shape]));
    const parameters = new Map<string, Given & { data: Float64Array }>();
    for (const [name, { shape, data }] of weights) {
      const match = mapKey(family.keys(configured, view), name, shape);
      if (typeof match !== "object") throw new Error(`no place for ${name}`);
      const ours = specs.get(match.name)!;
      const size = ours.reduce((a, b) => a * b, 1);
      const whole = Float32Array.from(parameters.get(match.name)?.data ?? new Float32Array(size));
      const values = toLayout(Float32Array.from(data), shape, match.layout);
      if (match.part) placePart(whole, ours.at(-1)!, values, match.part);
      else whole.set(values);
      parameters.set(match.name, { shape: ours, data: Float64Array.from(whole) });
    }
    expect(parameters.size).toBe(specs.size);
    const { y } = await evaluate(
      (_t, inputs) => ({
        y: model.forward({ x: inputs["x"]!.transpose([0, 2, 3, 1]), times: inputs["times"]!, labels: inputs["labels"]! }), // prettier-ignore
      }),
      { x, times: { shape: [2], data: [17, 803.5] }, labels: i32([2], [3, 4]) },
      parameters,
    );
    // our map (B, H, W, 2 C) from tokens of values (p, q, 2 C)
    const [p, out] = [config.patch, 6];
    const wanted = (i: number): number => {
      const [c, column, row, b] = [i % out, Math.floor(i / out) % W, Math.floor(i / (out * W)) % H, Math.floor(i / (out * W * H))]; // prettier-ignore
      const token = Math.floor(row / p) * (W / p) + Math.floor(column / p);
      const within = ((row % p) * p + (column % p)) * out + c;
      return expected.data[(b * ((H * W) / (p * p)) + token) * p * p * out + within]!;
    };
    const furthest = Math.max(...y!.map((value, i) => Math.abs(value - wanted(i))));
    expect(furthest).toBeLessThan(1e-10);
  });
});

describe("the embedding that every block has of its own", () => {
  const facts = { heads: 2, nullClass: true, size: [4, 6] };

  /** Converts a network whose second block's copy of the label table is moved by `change` in one place. */
  async function converted(change: number): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), "smalti-dit-"));
    const { weights, get } = drawn();
    plainDit(small, get, draw("x", [1, 3, 4, 6]), [1], [1]);
    const emb = [...weights].filter(([name]) => name.startsWith("transformer_blocks.0.norm1.emb."));
    for (const [name, { shape, data }] of emb) {
      const isTable = name.endsWith("embedding_table.weight");
      const own = data.map((value, i) => value + (isTable && i === 0 ? change : 0));
      weights.set(name.replace(".0.", ".1."), { shape, data: own });
    }
    const file = join(folder, "model.safetensors");
    await writeSafetensors(file, [...weights].map(([name, { shape, data }]) => ({ name, shape, data: Float32Array.from(data) }))); // prettier-ignore
    using checkpoint = await openCheckpoint(file);
    const out = join(folder, "out");
    await convertModels(out, "dit", identify(checkpoint, { facts }));
    return out;
  }

  it("is read once where all are the same", async () => {
    expect(existsSync(join(await converted(0), "pipeline.json"))).toBe(true);
  });

  it("is refused where one differs", async () => {
    await expect(converted(0.5)).rejects.toThrow(
      /expected transformer_blocks\.1\.norm1\.emb\.class_embedder\.embedding_table\.weight to hold the values of transformer_blocks\.0\..*; if diffusers trained this network, say --set trainedBy=diffusers/,
    );
  });
});
