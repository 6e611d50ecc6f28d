// ADM networks: published sizes, names of checkpoints, what they refuse, and the parts that no golden case covers.
import { describe, expect, it } from "vitest";
import type { Values } from "../../lib/golden/case.js";
import {
  admClassifierConfigs,
  admUnetConfigs,
  admUpsamplerConfigs,
} from "../../lib/models/adm-configs.js";
import { admEncoderUnet } from "../../lib/models/adm-encoder-unet.js";
import type { AdmEncoderUnetConfig } from "../../lib/models/adm-encoder-unet.js";
import { admUnet } from "../../lib/models/adm-unet.js";
import type { AdmUnetConfig } from "../../lib/models/adm-unet.js";
import { admEncoderUnetKeys, admUnetKeys } from "../../lib/models/adm.keys.js";
import { initialValues } from "../../lib/nn/init.js";
import { mapKey } from "../../lib/nn/key-map.js";
import type { KeyMap } from "../../lib/nn/key-map.js";
import { parameterCount } from "../../lib/nn/module.js";
import type { ParamSpec } from "../../lib/ir/param.js";
import { trace } from "../../lib/trace/trace.js";
import { drawn, drawnParameters, integers, run } from "./run-model.js";

const tiny: AdmUnetConfig = {
  resolution: 8,
  channels: 8,
  multipliers: [1, 2],
  residualBlocks: 1,
  attentionFactors: [2],
  groups: 4,
  heads: 2,
};

const tinyEncoder: AdmEncoderUnetConfig = { ...tiny, outputs: 5, headChannels: 4 };

describe("published sizes", () => {
  // parameters, tensors, and millions as published
  const denoisers: [keyof typeof admUnetConfigs, number, number, number][] = [
    ["imagenet-64", 295_904_454, 541, 295.9],
    ["imagenet-128", 421_529_606, 493, 421.5],
    ["imagenet-256", 553_838_086, 567, 553.8],
    ["imagenet-256-unconditional", 552_814_086, 566, 552.8],
    ["imagenet-512", 558_997_638, 645, 559.0],
    ["lsun-256", 552_814_086, 566, 552.8],
    ["improved-cifar10", 52_546_438, 446, 52.5],
    ["improved-imagenet-64", 121_063_942, 450, 121.1],
    ["improved-imagenet-64-class", 273_049_350, 451, 273.0],
  ];

  it.each(denoisers)("%s", (name, count, tensors, millions) => {
    const { parameters } = admUnet(admUnetConfigs[name]);
    expect(parameterCount(parameters)).toBe(count);
    expect(parameters).toHaveLength(tensors);
    expect(Math.round(count / 1e5) / 10).toBe(millions);
  });

  it.each([
    ["imagenet-64-256", 311_795_910, 567, 311.8],
    ["imagenet-128-512", 308_835_270, 537, 308.8],
  ] as [keyof typeof admUpsamplerConfigs, number, number, number][])(
    "upsampler %s",
    (name, count, tensors, millions) => {
      const { parameters } = admUnet(admUpsamplerConfigs[name]);
      expect(parameterCount(parameters)).toBe(count);
      expect(parameters).toHaveLength(tensors);
      expect(Math.round(count / 1e5) / 10).toBe(millions);
    },
  );

  it.each([
    ["imagenet-64", 65_438_568],
    ["imagenet-128", 42_568_040],
    ["imagenet-256", 54_096_360],
    ["imagenet-512", 54_448_360],
  ] as [keyof typeof admClassifierConfigs, number][])("classifier %s", (name, count) => {
    const { parameters } = admEncoderUnet(admClassifierConfigs[name]);
    expect(parameterCount(parameters)).toBe(count);
  });

  it("learns variances with twice the image's channels", () => {
    for (const config of Object.values(admUnetConfigs)) expect(config.outChannels).toBe(6);
  });
});

/** Every parameter has the name of the reference, and weights of at least two axes change their layout. */
function expectOwnNames(parameters: readonly ParamSpec[], map: KeyMap, foreignRank = 4): void {
  for (const { name, shape } of parameters) {
    const foreign = shape.length === 2 && foreignRank === 4 && !/time_embed|emb/.test(name) ? [0, 0, 1, 1] : shape;
    const match = mapKey(map, name, foreign);
    expect(match, name).toMatchObject({ name });
    const layouts: Record<number, readonly string[]> = { 1: ["same"], 2: ["linear", "pointwise"], 4: ["conv"] };
    if (name === "label_emb.weight") continue;
    expect(layouts[shape.length], name).toContain((match as { layout: string }).layout);
  }
} // prettier-ignore

describe("checkpoints", () => {
  it("have our names", () => {
    expectOwnNames(admUnet({ ...tiny, classes: 3, residualResample: true }).parameters, admUnetKeys);
    expectOwnNames(admUnet(tiny).parameters, admUnetKeys);
    for (const pool of ["adaptive", "attention"] as const)
      expectOwnNames(admEncoderUnet({ ...tinyEncoder, pool }).parameters, admEncoderUnetKeys);
    for (const pool of ["spatial", "spatial-v2"] as const) {
      const { parameters } = admEncoderUnet({ ...tinyEncoder, pool });
      const head = parameters.filter(({ name }) => name.startsWith("out."));
      expectOwnNames(head, admEncoderUnetKeys, 2);
    }
  });
}); // prettier-ignore

describe("refusals", () => {
  const broken = (change: object) => () => admUnet({ ...tiny, ...change });

  it("names options that do not exist or do not fit", () => {
    expect(broken({ attentionResolutions: [16] })).toThrow(/got "attentionResolutions"/);
    expect(broken({ groups: 5 })).toThrow(/divisible by 5 groups, got 8/);
    expect(broken({ heads: 3 })).toThrow(/divisible by heads 3, got 16/);
    expect(broken({ headChannels: 5 })).toThrow(/divisible by headChannels 5, got 16/);
    expect(broken({ dropout: 1 })).toThrow(/dropout/);
    expect(broken({ attentionOrder: "new" })).toThrow(/heads-first, qkv-first/);
    expect(() =>
      admEncoderUnet({ ...tiny, outputs: 5, pool: "attention" }),
    ).toThrow(/expected headChannels for attention pooling/);
  });

  it("says which input is missing or does not fit", () => {
    trace((t) => {
      const x = t.input("x", { shape: [1, 8, 8, 3] });
      const odd = t.input("odd", { shape: [1, 9, 8, 3] });
      const times = t.input("times", { shape: [1] });
      const labels = t.input("labels", { shape: [1], dtype: "i32" });
      const model = admUnet(tiny);
      expect(() => model.forward({ x: odd, times })).toThrow(/sides divisible by 2, got \[1, 9, 8, 3\]/);
      expect(() => model.forward({ x, times, labels })).toThrow(/expected no labels for this model/);
      expect(() => admUnet({ ...tiny, classes: 3 }).forward({ x, times })).toThrow(/expected labels for this model, got none/);
      expect(() => admUnet({ ...tiny, superResolution: true }).forward({ x, times })).toThrow(/expected lowRes for this model, got none/);
      t.output("y", model.forward({ x, times }));
    });
  });
}); // prettier-ignore

const x = drawn("x", [2, 8, 8, 3]);
const t = integers(3, 700);

describe("numbers", () => {
  it("starts by predicting zero", async () => {
    const model = admUnet({ ...tiny, outChannels: 6 });
    const start = new Map(
      [...initialValues(model.parameters, 1)].map(([name, data]): [string, Values] => {
        const { shape } = model.parameters.find((spec) => spec.name === name)!;
        return [name, { shape, data }];
      }),
    );
    const { y } = await run(start, { x, t }, (_, given) => ({
      y: model.forward({ x: given["x"]!, times: given["t"]! }),
    }));
    expect(y!.shape).toEqual([2, 8, 8, 6]);
    expect(y!.data.every((value) => value === 0)).toBe(true);
  });

  it("agrees between the two attention orders once the projections' outputs are reordered", async () => {
    const heads = 2;
    const both = (["heads-first", "qkv-first"] as const).map((attentionOrder) =>
      admUnet({ ...tiny, heads, attentionOrder }),
    );
    const legacy = drawnParameters(both[0]!.parameters);
    const reordered = new Map(
      [...legacy].map(([name, values]): [string, Values] =>
        name.includes(".qkv.") ? [name, headsToQkv(values, heads)] : [name, values],
      ),
    );
    const results = await Promise.all(
      [legacy, reordered].map((parameters, i) =>
        run(parameters, { x, t }, (_, given) => ({
          y: both[i]!.forward({ x: given["x"]!, times: given["t"]! }),
        })),
      ),
    );
    expectClose(results[1]!["y"]!.data, results[0]!["y"]!.data);
  });

  it("drops with a key, the same with the same key, and not without one", async () => {
    const model = admUnet({ ...tiny, dropout: 0.5 });
    const plain = admUnet(tiny);
    const keys = { shape: [2, 4], data: Int32Array.of(1, 2, 0, 0, 1, 2, 0, 0) };
    const parameters = drawnParameters(model.parameters);
    const { dropped, again, evaluated, without } = await run(
      parameters,
      { x, t, keys },
      (_, given) => {
        const input = { x: given["x"]!, times: given["t"]! };
        return {
          dropped: model.forward({ ...input, dropoutKey: given["keys"]! }),
          again: model.forward({ ...input, dropoutKey: given["keys"]!.add(0) }),
          evaluated: model.forward(input),
          without: plain.forward({ ...input, dropoutKey: given["keys"]! }),
        };
      },
    );
    expect(dropped!.data).toEqual(again!.data);
    expect(evaluated!.data).toEqual(without!.data);
    expect(dropped!.data).not.toEqual(evaluated!.data);
  });
});

/** Moves columns of a projection from (heads, 3, D) to (3, heads, D). */
function headsToQkv({ shape, data }: Values, heads: number): Values {
  const width = shape.at(-1)!;
  const D = width / (3 * heads);
  const out = new Float32Array(data.length);
  data.forEach((value, at) => {
    const column = at % width;
    const [head, part, d] = [Math.floor(column / (3 * D)), Math.floor(column / D) % 3, column % D];
    out[at - column + (part * heads + head) * D + d] = value;
  });
  return { shape, data: out };
}

function expectClose(actual: Values["data"], expected: ArrayLike<number>, tolerance = 1e-5): void {
  expect(actual).toHaveLength(expected.length);
  for (let i = 0; i < expected.length; ++i) {
    const allowed = tolerance * (1 + Math.abs(expected[i]!));
    expect(Math.abs(actual[i]! - expected[i]!), `element ${i}`).toBeLessThanOrEqual(allowed);
  }
}

/** x W + b for rows of x. */
function linearRows(rows: number[][], weight: Values, bias: Values): number[][] {
  const out = weight.shape[1]!;
  return rows.map((row) =>
    Array.from({ length: out }, (_, o) =>
      row.reduce((sum, value, i) => sum + value * weight.data[i * out + o]!, bias.data[o]!),
    ),
  );
}

/** Mean over the pixels of (B, H, W, C), a row a sample. */
function pixelMeans({ shape, data }: Values): number[][] {
  const [B, H, W, C] = shape as [number, number, number, number];
  return Array.from({ length: B }, (_, b) =>
    Array.from({ length: C }, (_, c) => {
      let sum = 0;
      for (let p = 0; p < H * W; ++p) sum += data[(b * H * W + p) * C + c]!;
      return sum / (H * W);
    }),
  );
}

const silu = (value: number): number => value / (1 + Math.exp(-value));

/** Groups of a row to mean 0 and variance 1, scaled and shifted. */
function normRow(row: number[], groups: number, gamma: Values, beta: Values): number[] {
  const size = row.length / groups;
  return row.map((value, i) => {
    const start = Math.floor(i / size) * size;
    const group = row.slice(start, start + size);
    const mean = group.reduce((a, b) => a + b, 0) / size;
    const variance = group.reduce((a, b) => a + (b - mean) ** 2, 0) / size;
    return ((value - mean) / Math.sqrt(variance + 1e-5)) * gamma.data[i]! + beta.data[i]!;
  });
}

describe("heads of the half U-Net", () => {
  async function evaluate(config: AdmEncoderUnetConfig) {
    const model = admEncoderUnet(config);
    const parameters = drawnParameters(model.parameters);
    const names = ["input_blocks.0", "input_blocks.1", "input_blocks.2", "input_blocks.3"];
    const taps = [...names, "middle_block", ...(config.pool === "adaptive" ? ["out.0"] : [])];
    const results = await run(parameters, { x, t }, (trace, given) => {
      const logits = model.forward({ x: given["x"]!, times: given["t"]! });
      const tapped = taps.map((name) => [name, trace.recorded.get(name)!] as const);
      return { logits, ...Object.fromEntries(tapped) };
    });
    const means = [...names, "middle_block"].map((name) => pixelMeans(results[name]!));
    const features = [0, 1].map((b) => means.flatMap((rows) => rows[b]!));
    const parameter = (name: string): Values => parameters.get(`out.${name}`)!;
    const layer = (rows: number[][], i: number): number[][] =>
      linearRows(rows, parameter(`${i}.weight`), parameter(`${i}.bias`));
    return { results, logits: results["logits"]!.data, features, parameter, layer };
  }

  it("adaptive", async () => {
    const { results, logits, layer } = await evaluate({ ...tinyEncoder, pool: "adaptive" });
    const { shape, data } = results["out.0"]!;
    const active = { shape, data: Float32Array.from(data, silu) };
    expectClose(logits, layer(pixelMeans(active), 3).flat(), 1e-4);
  });

  it("spatial", async () => {
    const { logits, features, layer } = await evaluate({ ...tinyEncoder, pool: "spatial" });
    const hidden = layer(features, 0).map((row) => row.map((value) => Math.max(0, value)));
    expectClose(logits, layer(hidden, 2).flat(), 1e-4);
  });

  it("spatial-v2", async () => {
    const { logits, features, layer, parameter } = await evaluate({
      ...tinyEncoder,
      pool: "spatial-v2",
    });
    const hidden = layer(features, 0).map((row) =>
      normRow(row, 4, parameter("1.weight"), parameter("1.bias")).map(silu),
    );
    expectClose(logits, layer(hidden, 3).flat(), 1e-4);
  });
});
