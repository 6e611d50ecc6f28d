// U-Nets of huggingface/diffusers: published config.json files are recognised at their size from names and shapes, and small
// ones compute what plain loops over the originals' tensors say, in float64. This is also the check of the DDPM U-Net, which
// no original numbers cover.
import { mkdir, mkdtemp, rename, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { describe, expect, it } from "vitest";
import { writeSafetensors } from "../../lib/checkpoint/safetensors.js";
import type { DdpmUnet } from "../../lib/models/ddpm-unet.js";
import { recognise } from "../../lib/models/families.js";
import type { LatentDiffusionUnet } from "../../lib/models/latent-diffusion-unet.js";
import { mapKey, toLayout } from "../../lib/nn/key-map.js";
import { parameterCount } from "../../lib/nn/module.js";
import { identify } from "../../lib/pipelines/import-checkpoint.js";
import { runCli } from "../cli/run-cli.js";
import { evaluate, i32, type Given } from "../formulas/evaluate.js";
import {
  attentionNames,
  plainDiffusersUnet,
  type DiffusersUnetConfig,
} from "./plain-diffusers-unet.js";
import { draw, sizeOf, type Plain } from "./plain-ops.js";

const levels = (attended: string, plain: string, marks: readonly (0 | 1)[]): string[] =>
  marks.map((mark) => (mark ? attended : plain));

const trained = { flip_sin_to_cos: true, freq_shift: 0, downsample_padding: 1, norm_eps: 1e-5 };
const google = { flip_sin_to_cos: false, freq_shift: 1, downsample_padding: 0, norm_eps: 1e-6, attention_head_dim: null }; // prettier-ignore

/** config.json of a UNet2DModel; `marks` says which levels have attention, the finest first. */
const pixelUnet = (
  marks: readonly (0 | 1)[],
  rest: Partial<DiffusersUnetConfig>,
): DiffusersUnetConfig => ({
  _class_name: "UNet2DModel",
  sample_size: 32,
  in_channels: 3,
  out_channels: 3,
  block_out_channels: [128, 256, 256, 256],
  down_block_types: levels("AttnDownBlock2D", "DownBlock2D", marks),
  up_block_types: levels("AttnUpBlock2D", "UpBlock2D", [...marks].reverse()),
  layers_per_block: 2,
  norm_num_groups: 32,
  attention_head_dim: 8,
  ...trained,
  ...rest,
});

const conditionUnet = (
  marks: readonly (0 | 1)[],
  rest: Partial<DiffusersUnetConfig>,
): DiffusersUnetConfig => ({
  ...pixelUnet(marks, {}),
  _class_name: "UNet2DConditionModel",
  sample_size: 64,
  in_channels: 4,
  out_channels: 4,
  block_out_channels: [320, 640, 1280, 1280],
  down_block_types: levels("CrossAttnDownBlock2D", "DownBlock2D", marks),
  up_block_types: levels("CrossAttnUpBlock2D", "UpBlock2D", [...marks].reverse()),
  cross_attention_dim: 768,
  ...rest,
});

type Tensors = ReadonlyMap<string, readonly number[]>;

/** Names and shapes of the checkpoint of a configuration, without values. */
function tensorsOf(
  config: DiffusersUnetConfig,
  names?: (typeof attentionNames)["old" | "new"],
): Tensors {
  const shapes = new Map<string, readonly number[]>();
  const empty = (...shape: number[]): Plain => ({ shape, data: new Float64Array(0) });
  const get = (name: string, shape: readonly number[]): Plain => {
    shapes.set(name, shape);
    return empty(...shape);
  };
  const context = empty(0, 1, config.cross_attention_dim ?? 1);
  plainDiffusersUnet(config, get, { sample: empty(0, config.in_channels, 0, 0), times: [], context }, names); // prettier-ignore
  return shapes;
}

/** What is made of names, shapes and a config.json. */
function identified(shapes: Tensors, config?: object, as?: string) {
  const tensors = new Map([...shapes].map(([name, shape]) => [name, { name, dtype: "F32" as const, shape, elements: 0, bytes: 0, offset: 0 }])); // prettier-ignore
  const configs = config ? [{ where: "unet/config.json", value: config }] : [];
  const checkpoint = { path: "file", tensors, configs } as unknown as Parameters<typeof identify>[0]; // prettier-ignore
  return identify(checkpoint, as === undefined ? {} : { as });
}

const published: [string, DiffusersUnetConfig, number, string | undefined][] = [
  ["google/ddpm-cifar10-32", pixelUnet([0, 1, 0, 0], google), 35_746_307, "cifar10"],
  [
    "google/ddpm-church-256",
    pixelUnet([0, 0, 0, 0, 1, 0], { ...google, sample_size: 256, block_out_channels: [128, 128, 256, 256, 512, 512] }), // prettier-ignore
    113_673_219,
    "lsun-celebahq-256",
  ],
  [
    "CompVis/ldm-celebahq-256",
    pixelUnet([0, 1, 1, 1], { sample_size: 64, attention_head_dim: 32, block_out_channels: [224, 448, 672, 896] }), // prettier-ignore
    274_056_163,
    "ldm-celebahq-256",
  ],
  ["stable-diffusion-v1", conditionUnet([1, 1, 1, 0], {}), 859_520_964, "stable-diffusion-1"],
  [
    "stable-diffusion-2",
    conditionUnet([1, 1, 1, 0], { attention_head_dim: [5, 10, 20, 20], cross_attention_dim: 1024, use_linear_projection: true }), // prettier-ignore
    865_910_724,
    "stable-diffusion-2",
  ],
  [
    "CompVis/ldm-text2im-large-256",
    conditionUnet([1, 1, 1, 0], { sample_size: 32, cross_attention_dim: 1280 }),
    872_300_484,
    "text2img-large",
  ],
];

describe("published config.json files", () => {
  it.each(published)("%s", (_, config, count, name) => {
    const shapes = tensorsOf(config);
    const [model, ...others] = identified(shapes, config);
    expect(others).toEqual([]);
    expect(model!.missing).toEqual({});
    const { parameters } = model!.family.build(model!.config);
    expect(parameterCount(parameters)).toBe(count);
    expect(model!.published).toContain(name);
  });

  it("ask for what the tensors do not show without one, or take it from a published name", () => {
    const [config] = published.map((row) => row[1]) as [DiffusersUnetConfig];
    const shapes = tensorsOf(config, attentionNames.old);
    const [blind] = identified(shapes);
    expect(Object.keys(blind!.missing).sort()).toEqual(["downsamplePadding", "eps", "groups", "headChannels", "resolution", "timeFirst"]); // prettier-ignore
    const [named] = identified(shapes, undefined, "cifar10");
    expect(named!.missing).toEqual({});
    expect(named!.config).toMatchObject({ resolution: 32, attentionResolutions: [16] });
  });

  it.each<[object, RegExp]>([
    [{ act_fn: "gelu" }, /expected act_fn of "silu", "swish", got "gelu"/],
    [{ freq_shift: 1 }, /expected freq_shift of 0, got 1/],
    [{ resnet_time_scale_shift: "scale_shift" }, /resnet_time_scale_shift of "default"/],
    [{ class_embed_type: "timestep" }, /class_embed_type not to be set/],
    [{ down_block_types: ["SkipDownBlock2D"] }, /down_block_types of .*got "SkipDownBlock2D"/],
  ])("refuses %o", (wrong, message) => {
    const config = pixelUnet([0, 1, 0, 0], {});
    expect(() => identified(tensorsOf(config), { ...config, ...wrong })).toThrow(message);
  });

  it.each<[object, RegExp]>([
    [{ attention_head_dim: [5, 10, 20, 30] }, /attention_head_dim to be the same in all levels/],
    [{ addition_embed_type: "text_time" }, /addition_embed_type not to be set/],
    [{ time_cond_proj_dim: 256 }, /time_cond_proj_dim not to be set/],
    [{ in_channels: 9 }, /inChannels 4 as the tensors show, got 9/],
  ])("refuses %o with a condition", (wrong, message) => {
    const config = conditionUnet([1, 1, 1, 0], {});
    expect(() => identified(tensorsOf(config), { ...config, ...wrong })).toThrow(message);
  });
});

const small = { block_out_channels: [8, 16], norm_num_groups: 4, layers_per_block: 1, sample_size: 8 }; // prettier-ignore

const cases: [string, DiffusersUnetConfig, "old" | "new"][] = [
  ["google's settings", pixelUnet([0, 1], { ...small, ...google }), "old"],
  ["diffusers' settings", pixelUnet([1, 0], { ...small, attention_head_dim: 4 }), "new"],
  ["classes and three levels", pixelUnet([0, 1, 0], { ...small, ...google, block_out_channels: [8, 8, 16], layers_per_block: 2, num_class_embeds: 5 }), "new"], // prettier-ignore
  ["a condition", conditionUnet([1, 0], { ...small, attention_head_dim: 2, cross_attention_dim: 6 }), "new"], // prettier-ignore
  ["a condition, linear projections and heads of one width", conditionUnet([1, 1], { ...small, attention_head_dim: [2, 4], cross_attention_dim: 6, use_linear_projection: true, transformer_layers_per_block: 2, num_class_embeds: 3 }), "new"], // prettier-ignore
];

const last = ({ shape, data }: Plain): Given => {
  const [B, C, H, W] = shape as [number, number, number, number];
  const at = (i: number): number => {
    const c = i % C;
    const n = Math.floor(i / C) % (H * W);
    return data[(Math.floor(i / (C * H * W)) * C + c) * H * W + n]!;
  };
  return { shape: [B, H, W, C], data: data.map((_, i) => at(i)) };
};

describe("a pipeline folder", () => {
  const write = async (part: string, config: DiffusersUnetConfig): Promise<void> => {
    await mkdir(part, { recursive: true });
    const tensors = [...tensorsOf(config)].map(([name, shape]) => ({ name, shape, data: new Float32Array(sizeOf(shape)) })); // prettier-ignore
    await writeSafetensors(join(part, "diffusion_pytorch_model.safetensors"), tensors);
    await writeFile(join(part, "config.json"), JSON.stringify(config));
  };
  const config = conditionUnet([1, 0], { block_out_channels: [8, 16], norm_num_groups: 4, sample_size: 8 }); // prettier-ignore

  it("is one model where its weights lie beside the index, of the one variant that there is", async () => {
    const folder = await mkdtemp(join(tmpdir(), "smalti-pipeline-"));
    await write(folder, config);
    const weights = "diffusion_pytorch_model.safetensors";
    await rename(join(folder, weights), join(folder, weights.replace(".safe", ".fp16.safe")));
    await writeFile(join(folder, "model_index.json"), JSON.stringify({ unet: ["diffusers", "UNet2DModel"] })); // prettier-ignore
    await writeFile(join(folder, "scheduler_config.json"), JSON.stringify({ _class_name: "DDPMScheduler" })); // prettier-ignore
    const linked = join(await mkdtemp(join(tmpdir(), "smalti-linked-")), "snapshot");
    await symlink(folder, linked);
    const { stdout } = await runCli(["inspect", linked, "--json", "--brief"], folder);
    const found = JSON.parse(stdout) as { file: string; models?: { family: string }[] }[];
    expect(found.map(({ file, models }) => [relative(linked, file), models?.[0]?.family])).toEqual([
      ["diffusion_pytorch_model.fp16.safetensors", "diffusers-ldm-unet"],
      ["scheduler_config.json", undefined],
    ]);
  });

  it.each([true, false])("is shown part by part, with model_index.json: %s", async (hasIndex) => {
    const folder = await mkdtemp(join(tmpdir(), "smalti-pipeline-"));
    await write(join(folder, "unet"), config);
    await write(join(folder, "prior"), pixelUnet([0, 1], { block_out_channels: [8, 16], norm_num_groups: 4 })); // prettier-ignore
    await mkdir(join(folder, "scheduler"));
    const scheduler = { _class_name: "DDIMScheduler", beta_schedule: "scaled_linear", beta_end: 0.012 }; // prettier-ignore
    await writeFile(join(folder, "scheduler", "scheduler_config.json"), JSON.stringify(scheduler));
    if (hasIndex) await writeFile(join(folder, "model_index.json"), "{}");
    const { stdout } = await runCli(["inspect", folder, "--json", "--brief"], folder);
    const parts = JSON.parse(stdout) as { file: string; models?: { family: string; missing: object }[]; settings?: object }[]; // prettier-ignore
    expect(
      parts.map(({ file, models, settings }) => [
        relative(folder, file),
        models?.[0]?.family,
        settings,
      ]),
    ).toEqual([
      // prettier-ignore
      ["prior/diffusion_pytorch_model.safetensors", "diffusers-ddpm-unet", undefined],
      ["unet/diffusion_pytorch_model.safetensors", "diffusers-ldm-unet", undefined],
      ["scheduler/scheduler_config.json", undefined, scheduler],
    ]);
    expect(parts.flatMap(({ models = [] }) => models.map(({ missing }) => missing))).toEqual([{}, {}]); // prettier-ignore
    const { stdout: text } = await runCli(["inspect", folder, "--brief"], folder);
    expect(text).toMatch(
      /scheduler_config\.json: DDIMScheduler\n {2}beta_schedule: "scaled_linear"/,
    );
  });
});

describe("small networks against plain loops", () => {
  it.each(cases)("%s", async (_, config, names) => {
    const weights = new Map<string, Plain>();
    const get = (name: string, shape: readonly number[]): Plain => {
      // norms around 1, like trained ones
      const isScale = /norm\w*\.weight$/.test(name);
      if (!weights.has(name)) weights.set(name, draw(name, shape, 0.2, isScale ? 1 : 0));
      return weights.get(name)!;
    };
    const side = config.sample_size;
    const sample = draw("sample", [2, config.in_channels, side, 2 * side]);
    const context = draw("context", [2, 3, config.cross_attention_dim ?? 1]);
    const [times, labels] = [[3, 711.5], [2, 0]]; // prettier-ignore
    const expected = plainDiffusersUnet(config, get, { sample, times, context, labels }, attentionNames[names]); // prettier-ignore

    const shapes = new Map([...weights].map(([name, { shape }]) => [name, shape]));
    const [model] = identified(shapes, config);
    const keys = model!.family.keys(model!.config, recognise("file", shapes)[0]!.shapes);
    const parameters = new Map<string, Given>();
    for (const [name, { shape, data }] of weights) {
      const match = mapKey(keys, name, shape);
      if (typeof match !== "object") throw new Error(`no place for ${name}`);
      const values = toLayout(Float32Array.from(data), shape, match.layout);
      parameters.set(match.name, { shape: [], data: Float64Array.from(values) });
    }
    const net = model!.family.build(model!.config) as unknown as DdpmUnet & LatentDiffusionUnet;
    for (const { name, shape } of net.parameters) parameters.get(name)!.shape = shape;
    const { y } = await evaluate(
      (_t, x) => ({
        y: net.forward({
          x: x["x"]!,
          times: x["times"]!,
          ...(config.num_class_embeds && { labels: x["labels"]! }),
          ...(config.cross_attention_dim && { context: x["context"]! }),
        }),
      }),
      { x: last(sample), times: { shape: [2], data: times }, context, labels: i32([2], labels) },
      parameters,
    );
    const wanted = last(expected).data;
    const furthest = Math.max(...y!.map((value, i) => Math.abs(value - wanted[i]!)));
    expect(furthest).toBeLessThan(1e-10);
  });
});
