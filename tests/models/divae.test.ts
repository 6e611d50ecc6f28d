// Tokenizers with diffusion decoders: sizes, names of checkpoints, the codebook, what hidden places mean, and what is
// refused. No reference numbers exist, so parts are compared with plain loops.
import { describe, expect, it } from "vitest";
import type { Values } from "../../lib/golden/case.js";
import { admUnet } from "../../lib/models/adm-unet.js";
import { divae } from "../../lib/models/divae.js";
import type { DivaeConfig, DivaeDecoderConfig } from "../../lib/models/divae.js";
import { divaeConfigs, uvitDecoders } from "../../lib/models/divae-configs.js";
import { divaeFamilies } from "../../lib/models/divae.family.js";
import { divaeKeys } from "../../lib/models/divae.keys.js";
import { recognise } from "../../lib/models/families.js";
import { patchedUnet } from "../../lib/models/patched-unet.js";
import { sphericalCodebook } from "../../lib/models/spherical-codebook.js";
import { uvit } from "../../lib/models/uvit.js";
import type { UvitConfig } from "../../lib/models/uvit-config.js";
import { resizedPositions } from "../../lib/models/vit-encoder.js";
import { mapKey, shapeInLayout } from "../../lib/nn/key-map.js";
import { ParamScope, parameterCount } from "../../lib/nn/module.js";
import { trace } from "../../lib/trace/trace.js";
import { drawn, drawnParameters, integers, run } from "./run-model.js";

const unet: DivaeDecoderConfig = {
  kind: "unet",
  patch: 2,
  channels: 8,
  multipliers: [1, 2],
  residualBlocks: 1,
  attentionFactors: [2],
  groups: 4,
};

const tinyUvit: DivaeDecoderConfig = {
  kind: "uvit",
  patch: 2,
  widths: [8, 16],
  residualBlocks: 1,
  middleDownsample: true,
  width: 16,
  layers: 3,
  heads: 2,
  longSkip: true,
  groups: 4,
  positionSide: 4,
};

const tiny: DivaeConfig = {
  encoder: { resolution: 16, patch: 8, width: 16, layers: 1, heads: 2, postMlp: true },
  quantizer: { codes: 10, width: 4 },
  decoder: unet,
};

describe("sizes", () => {
  const counted = (config: DivaeConfig, prefix: string): number =>
    parameterCount(divae(config).parameters.filter(({ name }) => name.startsWith(prefix)));
  const D = 768;
  const block = 12 * D * D + 13 * D;
  const postMlp = 2 * D + 8 * D * D + 5 * D;

  it.each([["rgb-16k-224", 3], ["depth-8k-224", 1]] as const)("%s encoder", (name, channels) => {
    const patches = 16 * 16 * channels * D + D;
    expect(counted(divaeConfigs[name], "encoder.")).toBe(patches + 12 * block + postMlp);
    expect(counted(divaeConfigs[name], "quant_proj.")).toBe(D * 32 + 32);
  }); // prettier-ignore

  it.each([["rgb-16k-224", 3], ["depth-8k-224", 1]] as const)("%s decoder", (name, channels) => {
    const { decoder } = divaeConfigs[name];
    const { kind, patch, ...paths } = decoder as Extract<DivaeDecoderConfig, { kind: "unet" }>;
    const pixels = channels * patch ** 2;
    const same = admUnet({ ...paths, resolution: 56, imageChannels: pixels + 32, outChannels: pixels });
    expect(kind).toBe("unet");
    expect(counted(divaeConfigs[name], "decoder.")).toBe(parameterCount(same.parameters));
  }); // prettier-ignore

  it("rgb-1k-uvit-448 decoder", () => {
    const conv = (from: number, to: number): number => 9 * from * to + to;
    const full = (from: number, to: number): number => from * to + to;
    const residual = (from: number, to: number): number =>
      2 * from + conv(from, to) + full(512, to) + 2 * to + conv(to, to) + (from === to ? 0 : full(from, to));
    const down = 16 * 3 * 128 + 128 + 2 * residual(128, 128) + conv(128, 128) + residual(128, 256) + residual(256, 256);
    const up = 2 * residual(512, 256) + residual(384, 256) + conv(256, 256) + residual(384, 128) + 2 * residual(256, 128);
    const middle = 12 * (block + 513 * 6 * D) + full(32, D) + full(256, D) + full(D, 256) + D;
    const time = full(128, 512) + full(512, 512);
    const out = 2 * 128 + 128 * 48 + 3;
    expect(counted(divaeConfigs["rgb-1k-uvit-448"], "decoder.")).toBe(
      time + down + conv(256, 256) + middle + conv(256, 256) + up + out,
    );
  }); // prettier-ignore

  // the encoder by its formula above, and the decoders that are counted above
  it.each([
    ["rgb-16k", 286_743_888, 16_384],
    ["depth-8k", 286_203_184, 8_192],
    ["normal-8k", 286_743_888, 8_192],
    ["canny-8k", 286_203_184, 8_192],
    ["rgb-1k-uvit", 217_144_611, 1_024],
  ] as const)("%s, all of it", (name, count, codes) => {
    const names = Object.keys(divaeConfigs).filter((key) => key.startsWith(`${name}-`));
    expect(names.length).toBeGreaterThan(0);
    for (const key of names as (keyof typeof divaeConfigs)[]) {
      const config: DivaeConfig = divaeConfigs[key];
      const patches = 256 * (config.imageChannels ?? 3) * D + D;
      const tokens = patches + 12 * block + postMlp + D * 32 + 32;
      expect(tokens + counted(config, "decoder.")).toBe(count);
      expect(parameterCount(divae(config).parameters)).toBe(count);
      expect(parameterCount(divae(config).states)).toBe(codes * (32 + 1));
    }
  });

  it("transformer blocks of the U-ViT", () => {
    for (const [name, width] of [["b-f16", 768], ["h-f16", 1280]] as const) {
      const config = { ...divaeConfigs["rgb-1k-uvit-448"], decoder: uvitDecoders[name] };
      const time = (512 + 1) * 6 * width;
      expect(counted(config, "decoder.mid_block.mid_block.0.")).toBe(12 * width ** 2 + 13 * width + time);
    }
  }); // prettier-ignore

  it("codebooks are state", () => {
    const { states } = divae(divaeConfigs["rgb-16k-224"]);
    expect(states.map(({ name, shape }) => [name, shape])).toEqual([
      ["quantize.cluster_size", [16384]],
      ["quantize.embed", [16384, 32]],
    ]);
  });
});

/** The reference's name of one of ours. */
const foreignName = (name: string): string =>
  name
    .replace(/^quantize\./, "quantize._codebook.")
    .replace(/^(decoder\.(?:down|up)_blocks\..*)\.temb_proj\./, "$1.time_emb_proj.")
    .replace(/^(decoder\.(?:down|up)_blocks\..*)\.nin_shortcut\./, "$1.conv_shortcut.");

describe("checkpoints", () => {
  const uvits = (["add", "attention"] as const).map((conditionKind) => ({
    ...tiny,
    decoder: { ...tinyUvit, conditionKind } as DivaeDecoderConfig,
  }));

  it.each([tiny, ...uvits].map((config) => [config.decoder.kind, config] as const))(
    "have our names, %s",
    (_, config) => {
      const model = divae({ ...config, labels: 5 });
      for (const { name, shape } of [...model.parameters, ...model.states]) {
        const rank1d = shape.length === 2 && /(?:qkv|proj_out|skip_connection)\.weight$/.test(name) && name.includes("_block"); // prettier-ignore
        const foreign = rank1d && config.decoder.kind === "unet" ? [...shape].reverse().concat(1) : shape; // prettier-ignore
        const match = mapKey(divaeKeys, foreignName(name), foreign);
        expect(match, name).toMatchObject({ name });
        const { layout } = match as { layout: string };
        const wanted = { 1: ["same"], 2: ["linear", "pointwise", "flatten"], 4: ["conv"] }[shape.length]!; // prettier-ignore
        if (!/^(?:cls_emb|quantize)\.|mask_token$/.test(name)) expect(wanted, name).toContain(layout);
      }
    },
  ); // prettier-ignore

  it("leave out tables of positions and doubled layers", () => {
    for (const name of ["encoder.pos_emb", "decoder.mid_block.mid_pos_emb", "decoder.downsample_mid.Conv2d_0.weight", "quantize._codebook.initted"])
      expect(mapKey(divaeKeys, name, [1])).toBe("drop");
    expect(shapeInLayout([128, 3, 4, 4], "flatten")).toEqual([128, 48]);
  }); // prettier-ignore
});

/** The foreign shape whose layout gives ours. */
function foreignShape(name: string, shape: readonly number[]): number[] {
  const [a = 1, b = 1, c = 1, d = 1] = shape;
  const candidates = [[...shape], [b, a], [b, a, 1], [b, a, 1, 1], [d, c, a, b], [a, b / 16, 4, 4]];
  return candidates.find((candidate) => {
    const match = mapKey(divaeKeys, name, candidate);
    return typeof match === "object" && shapeInLayout(candidate, match.layout).join() === shape.join();
  })!;
} // prettier-ignore

describe("published configurations come back from names and shapes", () => {
  it.each(Object.entries<DivaeConfig>(divaeConfigs))("%s", (_, config) => {
    const model = divae(config);
    const side = config.encoder.resolution / config.encoder.patch;
    const shapes = new Map([
      ...[...model.parameters, ...model.states].map(({ name, shape }): [string, number[]] => {
        const foreign = foreignName(name);
        return [foreign, foreignShape(foreign, shape)];
      }),
      ["encoder.pos_emb", [1, config.encoder.width, side, side]],
      ["decoder.mid_block.mid_pos_emb", [1, config.encoder.width, 32, 32]],
    ]);
    const [found, ...others] = recognise("test", shapes, divaeFamilies);
    expect(others).toEqual([]);
    expect(found!.family.name).toBe(`4m-divae-${config.decoder.kind}`);
    const facts = Object.fromEntries(
      Object.entries(found!.family.facts).map(([key, { fixed }]) => [key, fixed ?? 12]),
    );
    const { dropout, ...decoder } = config.decoder;
    void dropout;
    const { encoder, quantizer } = config;
    expect(found!.family.configure(found!.shapes, facts)).toMatchObject({ encoder, quantizer, decoder });
  }); // prettier-ignore
});

describe("positions", () => {
  it("say the row first, as sines and then cosines", async () => {
    const { table } = await run(new Map(), { one: integers(0) }, (t) => ({
      table: resizedPositions(t, { side: 3, grid: [3, 3], width: 8 }, "bicubic"),
    }));
    const rates = [1, 0.01];
    for (const [row, column] of [[1, 0], [2, 1], [0, 2]] as const) {
      const expected = [row, column].flatMap((at) => [
        ...rates.map((f) => Math.sin(at * f)),
        ...rates.map((f) => Math.cos(at * f)),
      ]);
      const found = table!.data.slice((row * 3 + column) * 8, (row * 3 + column + 1) * 8);
      expected.forEach((value, i) => expect(found[i]).toBeCloseTo(value, 6));
    }
  }); // prettier-ignore
});

describe("codebook", () => {
  const book: Values = { shape: [3, 2], data: Float32Array.of(2, 0, 0, 0.5, -1, -1) };
  const counts: Values = { shape: [3], data: Float32Array.of(1, 2, 3) };
  const state = new Map([["q.embed", book], ["q.cluster_size", counts]]); // prettier-ignore
  const z: Values = { shape: [1, 3, 2], data: Float32Array.of(3, 1, 0.1, 4, 5, 0) };

  it("compares directions, returns codes as stored and averages unit vectors", async () => {
    const model = sphericalCodebook(new ParamScope("q"), { codes: 3, width: 2, decay: 0.9 });
    const results = await run(state, { z }, (_, x) => {
      const { indices, quantised, loss } = model.quantise(x["z"]!);
      const next = model.updates(x["z"]!, indices);
      return { indices, quantised, loss, embed: next["q.embed"]!, counts: next["q.cluster_size"]! };
    });
    expect([...results["indices"]!.data]).toEqual([0, 1, 0]);
    const near = (name: string, expected: number[]): void =>
      expected.forEach((value, i) => expect(results[name]!.data[i]).toBeCloseTo(value, 5));
    near("quantised", [2, 0, 0, 0.5, 2, 0]);
    // squared distances to the codes, over 6 elements
    near("loss", [(1 + 1 + 0.01 + 3.5 ** 2 + 9) / 6]);
    const [x1, y1] = [3 / Math.sqrt(10) + 1, 1 / Math.sqrt(10)];
    const norm = Math.hypot(x1, y1);
    const [x2, y2] = [0.1 / Math.hypot(0.1, 4), 4 / Math.hypot(0.1, 4)];
    const half = Math.SQRT1_2;
    near("embed", [1.8 + (0.1 * x1) / norm, (0.1 * y1) / norm, 0.1 * x2, 0.45 + 0.1 * y2, -0.9 - 0.1 * half, -0.9 - 0.1 * half]);
    near("counts", [0.9 + 0.2, 1.8 + 0.1, 2.7]);
  }); // prettier-ignore
});

const grid = drawn("condition", [2, 2, 2, 4]);
const other = drawn("other", [2, 2, 2, 4]);
const x = drawn("x", [2, 16, 16, 3]);
const t = integers(3, 700);
/** One place of the first picture, and all of the second. */
const hidden: Values = { shape: [2, 2, 2], data: Float32Array.of(0, 1, 0, 0, 1, 1, 1, 1) };
/** Values of `a`, and those of `b` where they are hidden. */
const mixed: Values = {
  shape: grid.shape,
  data: Float32Array.from(grid.data, (value, i) =>
    hidden.data[Math.floor(i / 4)] === 1 ? other.data[i]! : value,
  ),
};

const close = (a: Values, b: Values, tolerance = 1e-4): void => {
  expect(a.shape).toEqual(b.shape);
  a.data.forEach((value, i) => {
    expect(Math.abs(value - b.data[i]!)).toBeLessThan(tolerance * (1 + Math.abs(value)));
  });
};

describe("decoders", () => {
  const size = { conditionWidth: 4 };

  it("patched U-Net: hidden places are zeros", async () => {
    const { kind, ...config } = unet as Extract<DivaeDecoderConfig, { kind: "unet" }>;
    void kind;
    const model = patchedUnet({ ...config, ...size });
    const zeroed = { ...grid, data: Float32Array.from(grid.data, (v, i) => (hidden.data[Math.floor(i / 4)] === 1 ? 0 : v)) }; // prettier-ignore
    const inputs = { x, t, grid, mixed, zeroed, hidden };
    const { a, b, c, d } = await run(drawnParameters(model.parameters), inputs, (_, g) => {
      const call = { x: g["x"]!, times: g["t"]! };
      return {
        a: model.forward({ ...call, condition: g["grid"]!, hidden: g["hidden"]! }),
        b: model.forward({ ...call, condition: g["mixed"]!, hidden: g["hidden"]! }),
        c: model.forward({ ...call, condition: g["zeroed"]! }),
        d: model.forward({ ...call, condition: g["grid"]! }),
      };
    });
    expect(a!.shape).toEqual([2, 16, 16, 3]);
    close(a!, b!);
    close(a!, c!);
    expect(a!.data).not.toEqual(d!.data);
  });

  const { kind: _kind, ...small } = tinyUvit as Extract<DivaeDecoderConfig, { kind: "uvit" }>;
  void _kind;
  const config: UvitConfig = { ...small, ...size };

  it.each(["add", "attention"] as const)(
    "U-ViT, condition by %s: hidden places do not matter",
    async (conditionKind) => {
      const model = uvit({ ...config, conditionKind });
      // of the second picture all is hidden, which attention has no meaning for: keep one place
      const seen = { ...hidden, data: Float32Array.from(hidden.data, (v, i) => (i === 4 ? 0 : v)) };
      const swapped = { ...mixed, data: Float32Array.from(mixed.data, (v, i) => (i >> 2 === 4 ? grid.data[i]! : v)) }; // prettier-ignore
      const inputs = { x, t, grid, swapped, seen };
      const { a, b, c } = await run(drawnParameters(model.parameters), inputs, (_, g) => {
        const call = { x: g["x"]!, times: g["t"]! };
        return {
          a: model.forward({ ...call, condition: g["grid"]!, hidden: g["seen"]! }),
          b: model.forward({ ...call, condition: g["swapped"]!, hidden: g["seen"]! }),
          c: model.forward({ ...call, condition: g["swapped"]! }),
        };
      });
      expect(a!.shape).toEqual([2, 16, 16, 3]);
      close(a!, b!);
      expect(a!.data).not.toEqual(c!.data);
    },
  );

  it("U-ViT: each pixel of the last map becomes a patch", async () => {
    const model = uvit({ ...config, outChannels: 5 });
    const parameters = drawnParameters(model.parameters);
    const { y, norm } = await run(parameters, { x, t, grid }, (trace, g) => ({
      y: model.forward({ x: g["x"]!, times: g["t"]!, condition: g["grid"]! }),
      norm: trace.recorded.get("conv_norm_out")!,
    }));
    const weight = parameters.get("conv_out.weight")!.data;
    const bias = parameters.get("conv_out.bias")!.data;
    const silu = (v: number): number => v / (1 + Math.exp(-v));
    for (const [row, column, o] of [[0, 0, 0], [3, 6, 4], [15, 15, 2], [8, 5, 1]] as const) {
      let expected = bias[o]!;
      const at = (Math.floor(row / 2) * 8 + Math.floor(column / 2)) * 8;
      for (let c = 0; c < 8; ++c)
        expected += silu(norm!.data[at + c]!) * weight[c * 20 + o * 4 + (row % 2) * 2 + (column % 2)]!;
      expect(y!.data[(row * 16 + column) * 5 + o]).toBeCloseTo(expected, 3);
    }
  }); // prettier-ignore
});

describe("tokenizer", () => {
  it("turns pictures and maps of classes into a grid of tokens", async () => {
    for (const labels of [undefined, 5]) {
      const model = divae({ ...tiny, ...(labels && { labels }) });
      const image = labels
        ? { shape: [2, 16, 24], data: Int32Array.from({ length: 768 }, (_, i) => i % 5) }
        : drawn("image", [2, 16, 24, 3]);
      const all = drawnParameters([...model.parameters, ...model.states]);
      const { tokens } = await run(all, { image }, (_, g) => ({
        tokens: model.tokenize(g["image"]!),
      }));
      expect(tokens!.shape).toEqual([2, 2, 3]);
      expect(tokens!.data.every((id) => id >= 0 && id < 10)).toBe(true);
    }
  });

  it("refuses what cannot be", () => {
    const build = (change: object) => () => divae({ ...tiny, ...change });
    expect(build({ decoder: { kind: "vae" } })).toThrow(/kind to be one of unet, uvit/);
    expect(build({ decoder: { ...unet, widths: [8] } })).toThrow(/patchedUnet: .*got "widths"/);
    expect(build({ decoder: { ...tinyUvit, layers: 2 } })).toThrow(/odd number of layers/);
    expect(build({ decoder: { ...tinyUvit, widths: [6] } })).toThrow(/divisible by 4 groups, got 6/);
    expect(build({ encoder: { ...tiny.encoder, heads: 3 } })).toThrow(/divisible by 4 and by heads 3/);
    expect(build({ encoder: { ...tiny.encoder, imageChannels: 3 } })).toThrow(/got "imageChannels"/);
    expect(build({ quantizer: { codes: 10, width: 4, metrc: "cosine" } })).toThrow(/did you mean "metric"/);
    trace((tr) => {
      const model = divae(tiny);
      const image = tr.input("image", { shape: [1, 12, 16, 3] });
      expect(() => model.encode(image)).toThrow(/sides divisible by 8, got \[1, 12, 16, 3\]/);
      const times = tr.input("times", { shape: [1] });
      const condition = tr.input("condition", { shape: [1, 2, 2, 5] });
      const noisy = tr.input("noisy", { shape: [1, 16, 16, 3] });
      expect(() => model.denoise({ x: noisy, times, condition })).toThrow(/condition \[1, h, w, 4\]/);
      tr.output("y", image);
    });
  }); // prettier-ignore
});
