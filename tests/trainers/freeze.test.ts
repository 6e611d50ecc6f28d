// Frozen parts of a model: not a bit of them changes, everything else does, and a tokenizer keeps its tokens.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { memoryDataset } from "../../lib/data/dataset.js";
import { vqgan, type VqganConfig } from "../../lib/models/vqgan.js";
import { initialValues } from "../../lib/nn/init.js";
import { Codec } from "../../lib/pipelines/codec.js";
import {
  AutoencoderTrainer,
  type AutoencoderTrainerOptions,
} from "../../lib/trainers/autoencoder.js";
import { TaskTrainer } from "../../lib/trainers/task-trainer.js";
import { splitFrozen } from "../../lib/trainers/freeze.js";
import { trainLoop } from "../../lib/trainers/loop.js";
import { tinyCodec } from "../pipelines/tiny.js";
import { tinyDiscrete } from "./tiny-trainers.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "smalti-freeze-"))));
afterAll(() => rm(folder, { recursive: true }));

const pictures = memoryDataset({
  name: "noise",
  width: 16,
  height: 16,
  channels: 3,
  pixels: Uint8Array.from(
    { length: 8 * 768 },
    (_, i) => (i * i * 31 + Math.floor(i / 768) * i * 7) % 251,
  ),
});

const withGradientCodebook: VqganConfig = {
  ...tinyCodec,
  quantizer: { codes: 20, width: 4, codebook: "gradient" },
};

interface Trained {
  before: ReadonlyMap<string, Float32Array>;
  after: Map<string, Float32Array>;
}

/** Three steps, each with a restart of unused codes, from weights of their own. */
async function train(
  model: VqganConfig,
  freeze: string[],
  options: Partial<AutoencoderTrainerOptions> = {},
): Promise<Trained> {
  const { parameters, states } = vqgan(model);
  const before = initialValues([...parameters, ...states], 77);
  const trainer = await AutoencoderTrainer.create({
    model,
    dataset: pictures,
    batchSize: 4,
    initial: before,
    freeze,
    restartEvery: 1,
    optimiser: { emaDecay: 0.9, weightDecay: 0.1 },
    ...options,
  });
  const checkpoint = join(folder, "state");
  for await (const event of trainLoop(trainer, { steps: 3, lr: () => 1e-2, checkpoint }))
    expect(event.type).not.toBe("warning");
  const after = trainer.weights();
  trainer.dispose();
  return { before, after };
}

/** Names of what changed. */
const changed = ({ before, after }: Trained): Set<string> =>
  new Set([...after].filter(([name, values]) => before.get(name)!.some((v, i) => v !== values[i])).map(([name]) => name)); // prettier-ignore

const below = (names: Iterable<string>, ...parts: string[]): string[] =>
  [...names].filter((name) => parts.some((part) => name.startsWith(`${part}.`)));

const codePath = ["encoder", "quant_conv", "quantize"];
const decoderPath = ["decoder", "post_quant_conv"];

describe("a tokenizer with frozen encoder and quant_conv", () => {
  it.each([
    ["moving averages", tinyCodec, {}],
    ["gradient codebook", withGradientCodebook, {}],
    ["accumulated batches", tinyCodec, { optimiser: { accumulate: 2 } }],
    [
      "a discriminator",
      tinyCodec,
      { adversarial: { start: 0, discriminator: { channels: 4, layers: 1 } } },
    ],
  ] as [string, VqganConfig, Partial<AutoencoderTrainerOptions>][])(
    "keeps codes and trains the whole decoder: %s",
    async (_, model, options) => {
      const trained = await train(model, ["encoder", "quant_conv"], options);
      const moved = changed(trained);
      expect(below(moved, ...codePath)).toEqual([]);
      expect(below(trained.after.keys(), ...codePath).length).toBeGreaterThan(10);
      expect(below(moved, ...decoderPath)).toEqual(below(trained.after.keys(), ...decoderPath));
      const images = await Promise.all(
        [0, 1, 2].map(async (i) => ({ width: 16, height: 16, data: await pictures.pixels(i) })),
      );
      const codecs = [trained.before, trained.after].map((weights) => new Codec(model, weights));
      const [old, now] = await Promise.all(codecs.map((codec) => codec.encode(images)));
      expect(now).toEqual(old);
      codecs.forEach((codec) => codec.dispose());
    },
  );
});

describe("any part", () => {
  it("the codebook alone", async () => {
    const moved = changed(await train(tinyCodec, ["quantize"]));
    expect(below(moved, "quantize")).toEqual([]);
    expect(below(moved, "encoder").length).toBeGreaterThan(10);
  });

  it("a level of the decoder", async () => {
    const trained = await train(tinyCodec, ["decoder.up.0"], { restartEvery: 0 });
    const moved = changed(trained);
    expect(below(moved, "decoder.up.0")).toEqual([]);
    expect(below(moved, "decoder.up.1")).toEqual(below(trained.after.keys(), "decoder.up.1"));
    expect(below(moved, "quantize").length).toBe(3);
  });

  it("what reads the captions of a model of tokens", async () => {
    const options = { ...tinyDiscrete(), freeze: ["conditioner"], optimiser: { emaDecay: 0.9 } };
    const trainer = await TaskTrainer.create(options);
    const before = trainer.weights();
    for (let i = 0; i < 2; ++i) await trainer.step(i, 1e-2, await trainer.prefetch(i));
    const moved = changed({ before, after: trainer.weights() });
    trainer.dispose();
    expect(below(moved, "conditioner")).toEqual([]);
    expect(below(before.keys(), "conditioner").length).toBeGreaterThan(10);
    expect(below(moved, "transformer")).toEqual(below(before.keys(), "transformer"));
  });

  it("is part of the configuration that a resume compares", async () => {
    const options = { model: tinyCodec, dataset: pictures, batchSize: 2 };
    const free = await AutoencoderTrainer.create(options);
    const path = join(folder, "resume");
    await free.save(path, 1);
    const frozen = await AutoencoderTrainer.create({ ...options, freeze: ["encoder"] });
    await expect(frozen.restore(path)).rejects.toThrow(/configuration\.freeze none as in/);
    await frozen.save(path, 2);
    expect(await frozen.restore(path)).toBe(2);
    [free, frozen].forEach((trainer) => trainer.dispose());
  });
});

describe("splitFrozen", () => {
  const model = vqgan(tinyCodec);

  it.each<[string[], RegExp]>([
    [["encodr"], /freeze to name parts of encoder, decoder, quant_conv, post_quant_conv, quantize, got "encodr"; did you mean "encoder"\?/], // prettier-ignore
    [["decoder.up.9"], /got "decoder\.up\.9"; did you mean "decoder\.up\.\d"\?/],
    [["quant"], /got "quant"/],
    [["encoder", "decoder", "quant_conv", "post_quant_conv"], /leave parameters to train, got "encoder", .* hold all/], // prettier-ignore
  ])("refuses %j", (freeze, message) => {
    expect(() => splitFrozen(model, freeze)).toThrow(message);
  });
});
