// DiT, SiT and FiT: published sizes, names of checkpoints, guidance, symmetries, and what they refuse.
import { describe, expect, it } from "vitest";
import type { Values } from "../../lib/golden/case.js";
import type { Build, Given } from "../../lib/golden/evaluate.js";
import { dit, ditConfigs, publishedDit } from "../../lib/models/dit.js";
import type { DitConfig } from "../../lib/models/dit.js";
import { diffusersDitKeys, facebookDitKeys } from "../../lib/models/dit.keys.js";
import { fit, fitConfigs } from "../../lib/models/fit.js";
import type { FitConfig } from "../../lib/models/fit.js";
import { fitKeys } from "../../lib/models/fit.keys.js";
import { guideHalves, powerCosineScale } from "../../lib/models/class-guidance.js";
import { sit, sitConfigs } from "../../lib/models/sit.js";
import { initialValues } from "../../lib/nn/init.js";
import { mapKey, placePart, shapeInLayout } from "../../lib/nn/key-map.js";
import { parameterCount } from "../../lib/nn/module.js";
import { gridSinusoids } from "../../lib/nn/positions.js";
import { trace } from "../../lib/trace/trace.js";
import { drawn, drawnParameters, integers, run as runOn } from "./run-model.js";

const tiny: DitConfig = {
  size: [4, 6],
  patch: 2,
  channels: 4,
  width: 16,
  layers: 2,
  heads: 2,
  classes: 5,
};
const tinyFit: FitConfig = { patch: 2, width: 24, layers: 2, heads: 2, classes: 5 };

const run = (build: Build, { inputs = {}, parameters = new Map<string, Values>() }: Given) =>
  runOn(parameters, inputs, build);

describe("published sizes", () => {
  const counts: [keyof typeof ditConfigs, number][] = [
    ["S/2", 32_865_056],
    ["B/2", 130_315_808],
    ["L/2", 457_840_672],
    ["XL/2", 674_834_720],
  ];

  it.each(counts)("DiT-%s and its larger patches", (name, count) => {
    const [size] = name.split("/") as [keyof typeof counts];
    const { width } = ditConfigs[name];
    for (const patch of [2, 4, 8] as const) {
      // a patch has 4 values going in and 8 coming out for each pixel
      const more = patch ** 2 - 4;
      const expected = count + more * 4 * width + more * 8 * (width + 1);
      const { parameters } = dit(ditConfigs[`${size as "S"}/${patch}`]);
      expect(parameterCount(parameters)).toBe(expected);
    }
    expect(parameterCount(sit(sitConfigs[name]).parameters)).toBe(count);
  });

  it("DiT-XL/2 for 512 pixels has the same", () => {
    expect(parameterCount(dit(publishedDit("XL", 2, 64)).parameters)).toBe(674_834_720);
  });

  it.each([
    ["FiT-XL", 823_599_392, "824M"],
    ["FiTv2-B", 128_149_072, "128M"],
    ["FiTv2-XL", 671_045_776, "671M"],
    ["FiTv2-3B", 2_971_928_080, "2972M"],
  ] as const)("%s", (name, count, millions) => {
    expect(parameterCount(fit(fitConfigs[name]).parameters)).toBe(count);
    expect(`${Math.round(count / 1e6)}M`).toBe(millions);
  });
});

describe("position table", () => {
  // He et al. 2022: the column in the first half, the row in the second, sines before cosines
  it("has the published values", async () => {
    const { table } = await run(
      (t) => ({ table: gridSinusoids(t, { grid: [2, 2], width: 1152 }) }),
      {},
    );
    const at = (token: number, feature: number): number => table!.data[token * 1152 + feature]!;
    const column = [0.8414709848, 0.8240513478, 0.5403023059, 0, 1];
    expect([0, 1, 288, 576, 864].map((i) => at(1, i))).toEqual(
      column.map((v) => expect.closeTo(v, 6)),
    );
    const row = [0, 1, 0.8414709848, 0.8240513478, 0.5403023059];
    expect([0, 288, 576, 577, 864].map((i) => at(2, i))).toEqual(
      row.map((v) => expect.closeTo(v, 6)),
    );
  });
});

const latent = (shape: readonly number[]): Record<string, Values> => ({
  x: drawn("x", shape),
  times: {
    shape: [shape[0]!],
    data: Float32Array.from({ length: shape[0]! }, (_, i) => 0.2 + 0.3 * i),
  },
  labels: integers(...[3, 1].slice(0, shape[0])),
});

const close = (values: ArrayLike<number>, digits = 5): unknown[] =>
  Array.from(values, (value) => expect.closeTo(value, digits) as unknown);

describe("class guidance", () => {
  const model = dit(tiny);
  const parameters = drawnParameters(model.parameters);

  it("mixes the first channels of both rows and keeps the others", async () => {
    const { out, all } = await run(
      (_, x) => ({ out: guideHalves(x["y"]!, 3, 1), all: guideHalves(x["y"]!, 3, 2) }),
      { inputs: { y: { shape: [2, 1, 1, 2], data: Float32Array.of(5, 7, 4, 1) } } },
    );
    expect([...out!.data]).toEqual([7, 7, 7, 1]);
    expect([...all!.data]).toEqual([7, 19, 7, 19]);
  });

  it("of scale 1 is the conditional output, of scale 0 the null class on the guided channels", async () => {
    const results = await run(
      (t, x) => {
        const input = { x: x["x"]!, times: x["times"]!, labels: x["labels"]! };
        const isNull = t.constant(1, [2]);
        return {
          plain: model.forward(input),
          none: model.forward({ ...input, isNull }),
          one: model.guided(input, { scale: 1, channels: "all" }),
          zero: model.guided(input, { scale: 0, channels: "all" }),
        };
      },
      { inputs: latent([2, 4, 6, 4]), parameters },
    );
    const { plain, none, one, zero } = results as Record<"plain" | "none" | "one" | "zero", Values>;
    expect(Array.from(one.data)).toEqual(close(plain.data, 4));
    // channels 0 to 3 are the prediction, 4 to 7 the variance of the conditional row
    const mixed = Array.from(none.data, (value, i) => (i % 8 < 4 ? value : plain.data[i]!));
    expect(Array.from(zero.data)).toEqual(close(mixed, 4));
  });

  it("takes a scale for each sample", async () => {
    const { out } = await run((t, x) => ({ out: guideHalves(x["y"]!, t.constant([0, 2]), 1) }), {
      inputs: { y: { shape: [4, 1, 1, 1], data: Float32Array.of(3, 5, 1, 4) } },
    });
    expect([...out!.data]).toEqual([1, 6, 1, 6]);
  });

  it("falls from noise to data as a power of the cosine", async () => {
    const times = { shape: [4], data: Float32Array.of(0, 0.5, 1, 1.2) };
    const { linear, square } = await run(
      (_, x) => ({
        linear: powerCosineScale(x["times"]!, { scale: 5, power: 1 }),
        square: powerCosineScale(x["times"]!, { scale: 5, power: 2 }),
      }),
      { inputs: { times } },
    );
    expect([...linear!.data]).toEqual(close([5, 3, 1, 1]));
    expect([...square!.data]).toEqual(close([5, 1 + 2 * (1 - Math.SQRT1_2), 1, 1]));
  });

  it("needs the null class", () => {
    const bare = dit({ ...tiny, nullClass: false });
    expect(bare.parameters.find(({ name }) => name.startsWith("y_"))?.shape).toEqual([5, 16]);
    trace((t) => {
      const x = t.input("x", { shape: [1, 4, 6, 4] });
      const input = {
        x,
        times: t.input("t", { shape: [1] }),
        labels: t.input("y", { shape: [1], dtype: "i32" }),
      };
      expect(() => bare.guided(input, { scale: 2 })).toThrow(/a model with nullClass/);
      expect(() => bare.forward({ ...input, isNull: t.constant(1, [1]) })).toThrow(/nullClass/);
      t.output("y", bare.forward(input));
    });
  });
});

describe("outputs", () => {
  it("have twice the channels with a variance, and SiT throws it away", async () => {
    const config = { ...tiny, size: [4, 4] as const };
    const parameters = drawnParameters(dit(config).parameters);
    const { whole, part } = await run(
      (_, x) => {
        const input = { x: x["x"]!, times: x["times"]!, labels: x["labels"]! };
        return {
          whole: dit(config).forward(input),
          part: sit({ ...config, sigma: "discarded" }).forward(input),
        };
      },
      { inputs: latent([2, 4, 4, 4]), parameters },
    );
    expect([whole!.shape, part!.shape]).toEqual([
      [2, 4, 4, 8],
      [2, 4, 4, 4],
    ]);
    const first = Array.from(whole!.data).filter((_, i) => i % 8 < 4);
    expect(Array.from(part!.data)).toEqual(close(first, 6));
    expect(sit({ ...tiny, sigma: "none" }).parameters.at(-3)?.shape).not.toEqual(undefined);
  });

  it.each([
    ["DiT", dit(tiny)],
    ["FiT", fit(tinyFit)],
  ] as const)("of a new %s are zero", async (_, model) => {
    const values = initialValues(model.parameters, 1);
    const parameters = new Map(
      model.parameters.map(({ name, shape }) => [name, { shape, data: values.get(name)! }]),
    );
    const { y } = await run(
      (_t, x) => ({ y: model.forward({ x: x["x"]!, times: x["times"]!, labels: x["labels"]! }) }),
      { inputs: latent([1, 4, 6, 4]), parameters },
    );
    expect(y!.data.every((value) => value === 0)).toBe(true);
  });
});

describe("FiT", () => {
  const model = fit(tinyFit);
  const parameters = drawnParameters(model.parameters);

  /** Tokens of a picture (1, 4, 6, 4) at their places, moved and followed by padding. */
  const places = (shift: number) => ({
    rows: {
      shape: [1, 8],
      data: Int32Array.of(0, 0, 0, 1, 1, 1, -shift, -shift).map((row) => row + shift),
    },
    columns: {
      shape: [1, 8],
      data: Int32Array.of(0, 1, 2, 0, 1, 2, -shift, -shift).map((column) => column + shift),
    },
  });

  it("sees how far tokens are apart, not where they are, and no padding", async () => {
    const tokens = drawn("tokens", [1, 8, 16]);
    const { times, labels } = latent([1, 4, 6, 4]) as Record<"times" | "labels", Values>;
    const mask = { shape: [1, 8], data: Float32Array.of(1, 1, 1, 1, 1, 1, 0, 0) };
    const packed = async (shift: number, padding: number): Promise<Float32Array> => {
      const data = Float32Array.from(tokens.data, (value, i) => (i < 96 ? value : padding));
      const { y } = await run(
        (_, x) => ({
          y: model.forwardTokens({
            tokens: x["tokens"]!, rows: x["rows"]!, columns: x["columns"]!, mask: x["mask"]!,
            times: x["times"]!, labels: x["labels"]!,
          }), // prettier-ignore
        }),
        {
          inputs: { tokens: { shape: [1, 8, 16], data }, ...places(shift), mask, times, labels },
          parameters,
        },
      );
      return y!.data as Float32Array;
    };
    const base = await packed(0, 0);
    expect(base.subarray(96).every((value) => value === 0)).toBe(true);
    expect(Array.from(await packed(7, 0))).toEqual(close(base, 3));
    expect((await packed(0, 5)).subarray(0, 96)).toEqual(base.subarray(0, 96));
  });

  it("is the same on a map and on its patches", async () => {
    const inputs = latent([1, 4, 6, 4]);
    const { rows, columns } = places(0);
    const six = ({ data }: Values): Values => ({ shape: [1, 6], data: data.slice(0, 6) });
    const { map, tokens } = await run(
      (t, x) => {
        const condition = { times: x["times"]!, labels: x["labels"]! };
        // (1, 4, 6, 4) -> (1, 2, 3) patches of (4, 2, 2)
        const patches = (y: (typeof x)[string]) =>
          y!.reshape([1, 2, 2, 3, 2, 4]).transpose([0, 1, 3, 5, 2, 4]).reshape([1, 6, 16]);
        return {
          map: patches(model.forward({ x: x["x"]!, ...condition })),
          tokens: model.forwardTokens({
            tokens: patches(x["x"]!), rows: x["rows"]!, columns: x["columns"]!, mask: t.constant(1, [1, 6]), ...condition,
          }), // prettier-ignore
        };
      },
      { inputs: { ...inputs, rows: six(rows), columns: six(columns) }, parameters },
    );
    expect(Array.from(tokens!.data)).toEqual(close(map!.data, 4));
  });

  it("stretches positions only beyond the trained grid", async () => {
    const outputs = async (config: FitConfig): Promise<Values> => {
      const stretched = fit(config);
      const { y } = await run(
        (_, x) => ({
          y: stretched.forward({ x: x["x"]!, times: x["times"]!, labels: x["labels"]! }),
        }),
        { inputs: latent([1, 4, 6, 4]), parameters },
      );
      return y!;
    };
    const base = await outputs(tinyFit);
    for (const stretch of ["linear", "ntk", "ntkByParts", "yarn"] as const) {
      const rotary = { stretch, trainedSide: 16 };
      expect(Array.from((await outputs({ ...tinyFit, rotary })).data)).toEqual(close(base.data, 4));
      const far = await outputs({ ...tinyFit, rotary: { stretch, trainedSide: 2 } });
      expect(far.data.some((value, i) => Math.abs(value - base.data[i]!) > 1e-3)).toBe(true);
    }
  });
});

describe("names of checkpoints", () => {
  it("of facebookresearch/DiT are ours", () => {
    for (const { name } of dit(tiny).parameters) {
      expect(mapKey(facebookDitKeys, `module.${name}`, [1, 1])).toMatchObject({ name });
    }
    expect(mapKey(facebookDitKeys, "pos_embed", [1, 6, 16])).toBe("drop");
    expect(mapKey(facebookDitKeys, "blocks.0.attn.qkv.weight", [48, 16])).toMatchObject({
      layout: "linear",
    });
    expect(mapKey(facebookDitKeys, "y_embedder.embedding_table.weight", [6, 16])).toMatchObject({
      layout: "same",
    });
    expect(mapKey(facebookDitKeys, "x_embedder.proj.weight", [16, 4, 2, 2])).toMatchObject({
      layout: "conv",
    });
  });

  it("of huggingface/diffusers cover every parameter", () => {
    const block = [
      "norm1.linear",
      "attn1.to_q",
      "attn1.to_k",
      "attn1.to_v",
      "attn1.to_out.0",
      "ff.net.0.proj",
      "ff.net.2",
    ];
    const first = ["emb.timestep_embedder.linear_1", "emb.timestep_embedder.linear_2"].map(
      (name) => `norm1.${name}`,
    );
    const layers = [
      "pos_embed.proj", "proj_out_1", "proj_out_2",
      ...[...block, ...first].map((name) => `transformer_blocks.0.${name}`),
      ...block.map((name) => `transformer_blocks.1.${name}`),
    ]; // prettier-ignore
    const names = [
      ...layers.flatMap((name) => [`${name}.weight`, `${name}.bias`]),
      "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight",
    ];
    const mapped = names.map((name) => mapKey(diffusersDitKeys, name, [1, 1]));
    const ours = new Set(mapped.map((match) => (match as { name: string }).name));
    expect([...ours].sort()).toEqual(
      dit(tiny)
        .parameters.map(({ name }) => name)
        .sort(),
    );
    expect(mapKey(diffusersDitKeys, "transformer_blocks.3.attn1.to_v.bias", [16])).toEqual({
      name: "blocks.3.attn.qkv.bias",
      layout: "same",
      part: { index: 2, of: 3 },
    });
    const copy = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.weight";
    expect(mapKey(diffusersDitKeys, copy, [1, 1])).toBe("drop");
  });

  it("of whlzy/FiT are ours", () => {
    for (const { name, shape } of fit(tinyFit).parameters) {
      const isTable = name.includes("embedding_table");
      const layout = shape.length === 2 && !isTable ? "linear" : "same";
      expect(mapKey(fitKeys, name, shape)).toMatchObject({ name, layout });
    }
    expect(mapKey(fitKeys, "rel_pos_embed.freqs_h", [4])).toBe("drop");
  });

  it("put parts side by side", () => {
    const part = { index: 1, of: 3 };
    expect(shapeInLayout([2, 4], "linear", part)).toEqual([4, 6]);
    const whole = new Float32Array(12);
    placePart(whole, 6, Float32Array.of(1, 2, 3, 4), part);
    expect([...whole]).toEqual([0, 0, 1, 2, 0, 0, 0, 0, 3, 4, 0, 0]);
  });
});

describe("refusals", () => {
  it.each([
    [{ ...tiny, patch: 3 }, /size divisible by patch 3, got 4 x 6/],
    [{ ...tiny, width: 18 }, /divisible by 4 and by 2 heads, got 18/],
    [{ ...tiny, sigma: "leaned" }, /sigma to be one of learned, discarded, none, got "leaned"/],
    [{ ...tiny, learnSigma: true }, /dit: expected .*learnSigma/],
  ])("DiT %#", (config, message) => {
    expect(() => dit(config as unknown as DitConfig)).toThrow(message);
  });

  it.each([
    [{ ...tinyFit, heads: 5 }, /5 heads with a width divisible by 4/],
    [{ ...tinyFit, rotary: { stretch: "yarn" } }, /trainedSide with stretch yarn/],
    [{ ...tinyFit, rotary: { streching: 1 } }, /rotary.*streching/],
  ])("FiT %#", (config, message) => {
    expect(() => fit(config as unknown as FitConfig)).toThrow(message);
  });

  it("inputs of another shape", () => {
    expect(() => sit({ ...tiny, sigma: "learned" } as never)).toThrow(
      /discarded, none, got "learned"/,
    );
    trace((t) => {
      const x = t.input("x", { shape: [2, 4, 4, 4] });
      const times = t.input("times", { shape: [2] });
      const labels = t.input("labels", { shape: [1], dtype: "i32" });
      expect(() => dit(tiny).forward({ x, times, labels })).toThrow(
        /x \(B, 4, 6, 4\), got \[2, 4, 4, 4\]/,
      );
      const square = dit({ ...tiny, size: [4, 4] });
      expect(() => square.forward({ x, times, labels })).toThrow(/labels \(2\), got \[1\]/);
      expect(() => fit({ ...tinyFit, patch: 3 }).forward({ x, times, labels })).toThrow(
        /divisible by 3/,
      );
      t.output("y", x);
    });
  });
});
