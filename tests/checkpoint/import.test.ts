// Published layouts, written by the test in the originals' names, come back as our models: recognised, configured, fitted,
// converted, loaded; and everything that does not fit is said.
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../lib/checkpoint/open-checkpoint.js";
import { readSafetensors, writeSafetensors } from "../../lib/checkpoint/safetensors.js";
import { families } from "../../lib/models/families.js";
import { ShapeView } from "../../lib/models/family.js";
import { patchDiscriminator } from "../../lib/models/patch-discriminator.js";
import { vqTransformer } from "../../lib/models/vq-transformer.js";
import { microsoftVqTransformerKeys } from "../../lib/models/vq-transformer.keys.js";
import { tamingDiscriminatorKeys, tamingVqganKeys } from "../../lib/models/vqgan.keys.js";
import { vqgan, type VqganConfig } from "../../lib/models/vqgan.js";
import { fromLayout } from "../../lib/nn/key-map.js";
import { convertModels, fitIdentified, identify } from "../../lib/pipelines/import-checkpoint.js";
import { loadTokenizerRun } from "../../lib/pipelines/tokenizer-run.js";
import { runCli } from "../cli/run-cli.js";
import { foreignOf } from "./foreign-weights.js";
import {
  floats,
  stateDict,
  storageId,
  tensor,
  torchZip,
  type Pickled,
  type TestStorage,
} from "./torch-writer.js";

const tiny: VqganConfig = {
  resolution: 16,
  imageChannels: 3,
  channels: 8,
  multipliers: [1, 2],
  residualBlocks: 1,
  attentionResolutions: [8],
  middleAttention: true,
  groups: 4,
  latentChannels: 6,
  quantizer: { codes: 10, width: 5 },
};

const model = vqgan(tiny);

/** A value for each place of our tensors, so that every permutation shows. */
const ours = new Map(
  model.parameters.map(({ name, shape }, n) => [
    name,
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => n + i / 1024),
  ]),
);

/** The codec in taming's layout below a start. */
function tamingTensors(start = "", firstKey = 0): [Map<string, Pickled>, TestStorage[]] {
  const storages: TestStorage[] = [];
  const entries = new Map<string, Pickled>();
  for (const spec of model.parameters) {
    const { shape, layout } = foreignOf(spec, tamingVqganKeys)!;
    const values = fromLayout(ours.get(spec.name)!, shape, layout);
    const storage = floats(String(firstKey + storages.length), [...values]);
    storages.push(storage);
    entries.set(start + spec.name, tensor(storageId(storage), { shape }));
  }
  return [entries, storages];
}

const yaml = `
# a project file
model:
  base_learning_rate: 4.5e-06
  target: taming.models.vqgan.VQModel
  params:
    embed_dim: 5
    ddconfig:
      double_z: false
      resolution: 16
      in_channels: 3
      ch: 8
      ch_mult:
      - 1
      - 2
      num_res_blocks: 1
      attn_resolutions: [8]
      z_channels: 6
    lossconfig: {target: "taming.x", params: {disc_start: 0}}
`;

let folder: string;
let path: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "smalti-import-"));
  path = join(folder, "last.ckpt");
  const [entries, storages] = tamingTensors();
  const loss = stateDict({ "loss.discriminator.main.0.weight": [2] }, (i) => i, 900);
  const state = new Map<Pickled, Pickled>([...entries, ...loss.dict]);
  const root = new Map<Pickled, Pickled>([["state_dict", state], ["epoch", 1]]); // prettier-ignore
  await writeFile(path, torchZip(root, [...storages, ...loss.storages]));
});

describe("a VQGAN of taming-transformers", () => {
  it("is named from names and shapes, asks for what they do not show, and refuses wrong facts", async () => {
    using file = await openCheckpoint(path);
    const [found] = identify(file);
    expect(found!.family.name).toBe("taming-vqgan");
    expect(found!.missing).toEqual({ resolution: expect.stringContaining("training images") });
    expect(found!.config).toMatchObject({ channels: 8, multipliers: [1, 2], quantizer: { codes: 10 } }); // prettier-ignore
    expect(found!.config).not.toHaveProperty("resolution");
    expect(() => fitIdentified(found!)).toThrow(/--set resolution=….*side of the training images/s);
    expect(() => identify(file, { facts: { resolutoin: 16 } })).toThrow(/did you mean "resolution"/); // prettier-ignore
    expect(() => identify(file, { facts: { heads: 8 } })).toThrow(/facts among .*, got "heads"/);
    expect(identify(file, { facts: { heads: 8 }, isPart: true })).toHaveLength(1);
    expect(() => identify(file, { facts: { resolution: -1 } })).toThrow(/resolution to be from 1/);
    expect(() => identify(file, { family: "taming-vqgna" })).toThrow(/did you mean "taming-vqgan"/);
    expect(() => identify(file, { as: "f16-1025" })).toThrow(/did you mean "f16-1024"/);
    // facts of a larger model, such as its resolution, are not those of this one
    expect(() => identify(file, { as: "f16-1024" })).toThrow(/no published configuration has, got --as f16-1024/); // prettier-ignore
  });

  it("is converted to a folder that the library loads, in each element type", async () => {
    using file = await openCheckpoint(path);
    const models = identify(file, { facts: { resolution: 16, groups: 4 } });
    for (const dtype of ["f32", "f16", "bf16"] as const) {
      const out = join(folder, dtype);
      await convertModels(out, "tiny", models, { dtype });
      const { tensors } = await readSafetensors(join(out, "codec.safetensors"));
      expect(tensors.size).toBe(model.parameters.length);
      expect([...tensors.values()].every((t) => t.dtype === dtype.toUpperCase())).toBe(true);
    }
    const codec = await loadTokenizerRun(join(folder, "f32"));
    for (const [name, values] of codec.weights()) expect(values, name).toEqual(ours.get(name));
    codec.dispose();
    const pipeline = JSON.parse(await readFile(join(folder, "f32", "pipeline.json"), "utf8")) as {
      kind: string;
      training: { converted: object[] };
    };
    expect(pipeline.kind).toBe("tokenizer");
    expect(pipeline.training.converted[0]).toMatchObject({ family: "taming-vqgan", facts: { resolution: 16, groups: 4 } }); // prettier-ignore
  });

  it("takes facts from the yaml beside it, and refuses the yaml of another model", async () => {
    const place = join(folder, "run", "checkpoints");
    await mkdir(place, { recursive: true });
    await mkdir(join(folder, "run", "configs"));
    const project = join(folder, "run", "configs", "2021-04-03-project.yaml");
    await writeFile(join(place, "last.ckpt"), await readFile(path));
    await writeFile(project, yaml);
    using file = await openCheckpoint(join(place, "last.ckpt"));
    const [found] = identify(file, { facts: { groups: 4 } });
    expect(found!.facts).toContainEqual({ name: "resolution", value: 16, from: project });
    expect(fitIdentified(found!).unused).toEqual([]);
    await writeFile(project, yaml.replace("ch: 8", "ch: 16"));
    using other = await openCheckpoint(join(place, "last.ckpt"));
    expect(() => identify(other)).toThrow(/channels 8 as the tensors show, got 16 from .*project\.yaml; it belongs to another/); // prettier-ignore
  });

  it("is found inside a larger checkpoint, and its copies in a VQ-Diffusion file once", async () => {
    const [first, storages] = tamingTensors("first_stage_model.");
    const bytes = torchZip(new Map([["state_dict", new Map<Pickled, Pickled>(first)]]), storages);
    await writeFile(join(folder, "net2net.ckpt"), bytes);
    using net = await openCheckpoint(join(folder, "net2net.ckpt"));
    const [found] = identify(net, { facts: { resolution: 16, groups: 4 } });
    expect(found!.place).toBe("first_stage_model.");
    expect(fitIdentified(found!).missing).toEqual([]);
  });

  it("comes with the discriminator of its training as a component of its own", async () => {
    const [codec, storages] = tamingTensors();
    const discriminator = patchDiscriminator({ channels: 4, layers: 2 });
    const loss = [...discriminator.parameters, ...discriminator.states].map((spec) => foreignOf(spec, tamingDiscriminatorKeys)!); // prettier-ignore
    const added = stateDict(
      {
        ...Object.fromEntries(loss.map(({ name, shape }) => [`loss.discriminator.${name}`, shape])),
        "loss.discriminator.main.3.num_batches_tracked": [],
      },
      () => 1,
      900,
    );
    const file = join(folder, "whole.ckpt");
    const state = new Map<Pickled, Pickled>([...codec, ...added.dict]);
    await writeFile(file, torchZip(state, [...storages, ...added.storages]));
    using opened = await openCheckpoint(file);
    const models = identify(opened, { facts: { resolution: 16, groups: 4 } });
    expect(models.map(({ family, place }) => [family.name, place])).toEqual([
      ["taming-vqgan", ""],
      ["taming-discriminator", "loss.discriminator."],
    ]);
    expect(models[1]!.config).toEqual({ imageChannels: 3, channels: 4, layers: 2, norm: "batch" });
    const out = join(folder, "whole");
    const components = await convertModels(out, "whole", models, { dtype: "f32" });
    expect(Object.keys(components)).toEqual(["codec", "discriminator"]);
    (await loadTokenizerRun(out)).dispose();
  });

  it("says what is missing, unused and of another shape, with the nearest names", async () => {
    const [entries, storages] = tamingTensors();
    const state = new Map<Pickled, Pickled>(entries);
    state.set("encoder.norm_out.wieght", state.get("encoder.norm_out.weight")!);
    state.delete("encoder.norm_out.weight");
    const wrong = floats("800", [1, 2, 3]);
    state.set("decoder.norm_out.bias", tensor(storageId(wrong), { shape: [3] }));
    const file = join(folder, "broken.ckpt");
    await writeFile(file, torchZip(state, [...storages, wrong]));
    using broken = await openCheckpoint(file);
    const [found] = identify(broken, { facts: { resolution: 16, groups: 4 } });
    expect(() => fitIdentified(found!)).toThrow(
      /3 differences \(1 missing, 1 of another shape, 1 unused\)\n {2}missing encoder\.norm_out\.weight \[16\] \(nearest: encoder\.norm_out\.wieght\)\n {2}decoder\.norm_out\.bias: expected \[8\], got \[3\] from decoder\.norm_out\.bias\n {2}unused encoder\.norm_out\.wieght \[16\]/, // prettier-ignore
    );
    expect(() => fitIdentified(found!, { ignoreUnused: true })).toThrow(/2 differences/);
  });
});

describe("folders", () => {
  const tensorsOf = () =>
    model.parameters.map((spec) => {
      const { name, shape, layout } = foreignOf(spec, tamingVqganKeys)!;
      return { name, shape, data: fromLayout(ours.get(name)!, shape, layout) };
    });

  it("opens sharded safetensors by their index", async () => {
    const place = await mkdtemp(join(tmpdir(), "smalti-shards-"));
    const all = tensorsOf();
    const files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    const half = all.length >> 1;
    await writeSafetensors(join(place, files[0]!), all.slice(0, half));
    await writeSafetensors(join(place, files[1]!), all.slice(half));
    const weight_map = Object.fromEntries(all.map(({ name }, i) => [name, files[i < half ? 0 : 1]])); // prettier-ignore
    const index = join(place, "model.safetensors.index.json");
    await writeFile(index, JSON.stringify({ metadata: { total_size: 1 }, weight_map }));
    for (const way of [index, place]) {
      using file = await openCheckpoint(way);
      expect(file.format).toBe("sharded");
      expect(file.tensors.size).toBe(all.length);
      for (const { name, data } of all) expect(await file.readF32(name)).toEqual(data);
      const [found] = identify(file, { facts: { resolution: 16, groups: 4 } });
      expect(fitIdentified(found!).missing).toEqual([]);
    }
    weight_map["not.there"] = files[0]!;
    await writeFile(index, JSON.stringify({ weight_map }));
    await expect(openCheckpoint(index)).rejects.toThrow(/"not\.there", got none of that name/);
  });

  it("chooses files of a folder by part and variant, and asks when it is not clear", async () => {
    const place = await mkdtemp(join(tmpdir(), "smalti-parts-"));
    const part = join(place, "vqvae");
    await mkdir(part);
    await writeFile(join(place, "model_index.json"), "{}");
    await writeFile(join(part, "config.json"), JSON.stringify({ _class_name: "VQModel" }));
    const save = (name: string, value: number): Promise<void> =>
      writeSafetensors(join(part, name), [{ name: "x", shape: [1], data: Float32Array.of(value) }]);
    await save("diffusion_pytorch_model.safetensors", 1);
    await save("diffusion_pytorch_model.fp16.safetensors", 2);
    const bin = stateDict({ x: [1] }, () => 3);
    await writeFile(join(part, "diffusion_pytorch_model.bin"), torchZip(bin.dict, bin.storages));
    const valueOf = async (options: Parameters<typeof openCheckpoint>[1]): Promise<number> => {
      using file = await openCheckpoint(place, options);
      expect(file.configs[0]!.value).toEqual({ _class_name: "VQModel" });
      return (await file.readF32("x"))[0]!;
    };
    expect(await valueOf({ part: "vqvae" })).toBe(1);
    expect(await valueOf({ part: "vqvae", variant: "fp16" })).toBe(2);
    await expect(openCheckpoint(place)).rejects.toThrow(/parts vqvae; name one/);
    await expect(openCheckpoint(place, { part: "unet" })).rejects.toThrow(/a part "unet", got parts vqvae/); // prettier-ignore
    await expect(openCheckpoint(part, { variant: "bf16" })).rejects.toThrow(/of variant bf16/);
    const unclear = join(place, "unclear");
    await mkdir(unclear);
    for (const name of ["a.pt", "b.pt"]) await writeFile(join(unclear, name), "x");
    await expect(openCheckpoint(unclear)).rejects.toThrow(/one file of weights, got a\.pt, b\.pt/);
  });
});

describe("a VQ-Diffusion file of microsoft", () => {
  it("gives transformer and codec, averages over raw weights", async () => {
    const config = { codes: 10, grid: [4, 4] as const, width: 8, layers: 1, heads: 2, timesteps: 5, condition: { kind: "text" as const, width: 6 } }; // prettier-ignore
    const foreign = vqTransformer(config).parameters.map((spec) =>
      foreignOf(spec, microsoftVqTransformerKeys, `transformer.transformer.${spec.name}`)!,
    );
    const shapes = Object.fromEntries(foreign.map(({ name, shape }) => [name, shape]));
    const raw = stateDict({ ...shapes, "transformer.log_at": [5], "transformer.transformer.blocks.0.attn2.mask": [1, 1, 16, 16] }, () => 1); // prettier-ignore
    const averaged = stateDict(
      Object.fromEntries(foreign.map(({ name, shape }) => [name.replace("transformer.", ""), shape])), // prettier-ignore
      () => 9,
      1000,
    );
    const copies = ["enc", "dec"].map((side, i) => tamingTensors(`content_codec.${side}.`, 2000 + 500 * i)); // prettier-ignore
    const codec = copies.flatMap(
      ([entries], i) =>
      [...entries].filter(([name]) => new RegExp(i === 0 ? "\\.(?:encoder|quant_conv|quantize)" : "\\.(?:decoder|post_quant_conv|quantize)").test(name)), // prettier-ignore
    );
    const root = new Map<Pickled, Pickled>([
      ["last_epoch", 1],
      ["model", new Map<Pickled, Pickled>([...raw.dict, ...codec])],
      ["ema", averaged.dict],
    ]);
    const storages = [raw.storages, averaged.storages, ...copies.map(([, each]) => each)].flat();
    const file = join(folder, "vqd.pth");
    await writeFile(file, torchZip(root, storages));
    using opened = await openCheckpoint(file);
    const facts = { heads: 2, grid: [4, 4], activation: "quickGelu", resolution: 16, "taming-vqgan.groups": 4 }; // prettier-ignore
    const models = identify(opened, { facts });
    expect(models.map(({ family }) => family.name).sort()).toEqual(["microsoft-vq-diffusion", "taming-vqgan"]); // prettier-ignore
    const out = join(folder, "vqd");
    const components = await convertModels(out, "vqd", models, { dtype: "f32" });
    expect(Object.keys(components).sort()).toEqual(["codec", "model"]);
    expect(components["model"]!.config).toMatchObject(config);
    const { tensors } = await readSafetensors(join(out, "model.safetensors"));
    expect([...tensors.values()].every(({ data }) => data.every((value) => value === 9))).toBe(
      true,
    );
    const written = await readSafetensors(join(out, "codec.safetensors"));
    for (const [name, values] of ours) expect(written.tensors.get(name)!.data).toEqual(values);

    const before = await readdir(out);
    for (const place of [out, join(folder, "stopped", "vqd")]) {
      const stop = new AbortController();
      const { signal } = stop;
      const onProgress = (done: number, total: number): void => {
        if (done === total - 1) stop.abort(); // in the second file
      };
      await expect(
        convertModels(place, "vqd", models, { onProgress, signal }),
      ).rejects.toMatchObject({ code: "aborted" });
    }
    expect(existsSync(join(folder, "stopped"))).toBe(false);
    expect(await readdir(out)).toEqual(before);
    expect((await readSafetensors(join(out, "model.safetensors"))).tensors).toEqual(tensors);
  });
});

describe("the registry", () => {
  it("has different names, and facts that are asked for or said", () => {
    const names = families.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const { name, facts, marks } of families) {
      expect(name).toMatch(/^[a-z0-9-]+$/);
      expect(marks.length).toBeGreaterThan(0);
      for (const fact of Object.values(facts)) expect(fact.what.length).toBeGreaterThan(3);
    }
  });

  /** Tensors that checkpoints keep and our models compute. */
  function kept(family: string, config: object): { name: string; shape: number[] }[] {
    if (family !== "dit") return [];
    const { size, patch, width } = config as { size: number[]; patch: number; width: number };
    return [{ name: "pos_embed", shape: [1, (size[0]! / patch) * (size[1]! / patch), width] }];
  }

  /** The moving averages of a codebook have other names in the original. */
  const renamed = (name: string, isAverage: boolean): string =>
    isAverage && name === "quantize.embedding.weight"
      ? "quantize.embedding"
      : name
          .replace("quantize.embedding.cluster_size", "quantize.cluster_size")
          .replace("quantize.embedding.embed_avg", "quantize.embedding_avg");

  /** Published configurations whose tensors have our names, with the start of their place. */
  const published = families.flatMap((family) =>
    Object.entries(family.published ?? {}).flatMap(([name, config]) => {
      const start =
        (family.whole ?? true) !== true ? family.places![0]!.source.replace(/^\^|\\/g, "") : "";
      const { parameters, states = [] } = family.build(config);
      const map = family.keys(config, new ShapeView("test", new Map()));
      const foreign = [...parameters, ...states]
        .map((spec) => foreignOf(spec, map))
        .map((one) => one && { ...one, name: renamed(one.name, states.length > 0) });
      const isOwn = foreign.every((one) => one !== undefined);
      // The two layouts of latent diffusion's U-Net share their list.
      const isOther =
        family.name.startsWith("ldm-unet") &&
        (family.name === "ldm-unet") !== "transformer" in config;
      const tensors = [...foreign, ...kept(family.name, config)];
      return isOwn && !isOther
        ? [{ family, name, start, foreign: tensors as { name: string; shape: number[] }[] }]
        : [];
    }),
  );

  it("covers the published configurations", () => {
    const covered = new Set(published.map(({ family }) => family.name));
    expect(covered.size).toBeGreaterThanOrEqual(8);
    expect(published.length).toBeGreaterThanOrEqual(50);
  });

  it.each(published.map((one) => [one.family.name, one.name, one] as const))(
    "%s %s is recognised from names and shapes alone, and its facts complete it",
    (_, name, { family, start, foreign }) => {
      const tensors = new Map(foreign.map((one) => [start + one.name, { name: start + one.name, dtype: "F32" as const, shape: one.shape, elements: 0, bytes: 0, offset: 0 }])); // prettier-ignore
      const checkpoint = { path: "file", tensors, configs: [] } as unknown as Parameters<typeof identify>[0]; // prettier-ignore
      const blind = identify(checkpoint).find((one) => one.family === family);
      expect(blind).toBeDefined();
      expect(blind!.published).toContain(name);
      const known = identify(checkpoint, { as: name }).find((one) => one.family === family)!;
      expect(known.missing).toEqual({});
      const { missing, reshaped, unused } = fitIdentified(known);
      expect([missing, reshaped, unused]).toEqual([[], [], []]);
    },
  );
});

describe("the command", () => {
  it("inspects and converts", async () => {
    const seen = await runCli(["inspect", path, "--brief"], folder);
    expect(seen.stdout).toMatch(/taming-vqgan: VQGAN/);
    expect(seen.stdout).toMatch(/not in the tensors: resolution/);
    expect(seen.stdout).toMatch(/smalti convert .*last\.ckpt OUT --set resolution=…/);
    const json = JSON.parse((await runCli(["inspect", path, "--json"], folder)).stdout) as object;
    expect(json).toMatchObject({ format: "torch zip", models: [{ family: "taming-vqgan" }] });
    const refused = await runCli(["convert", path, "out"], folder);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/--set resolution=…/);
    const args = ["convert", path, "out", "--set", "resolution=16", "--set", "groups=4"];
    const done = await runCli([...args, "--dtype", "f32"], folder);
    expect(done.stderr + done.stdout).toMatch(/resolution = 16: given/);
    expect(done.code).toBe(0);
    const shown = await runCli(["inspect", "out"], folder);
    expect(shown.stdout).toMatch(/pipeline "out" \(tokenizer\), components codec/);
    await writeFile(join(folder, "out", "state.safetensors"), "");
    const run = await runCli(args, folder);
    expect([run.code, run.stderr]).toEqual([2, expect.stringContaining("without a training state")]); // prettier-ignore
  }, 180_000); // six processes
});
