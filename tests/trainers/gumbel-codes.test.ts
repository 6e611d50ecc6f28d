// VQGANs with Gumbel codes in training: they learn, go on bit for bit, their gradients are those of their losses, and what
// does not fit is refused by name.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { vqgan, type VqganConfig } from "../../lib/models/vqgan.js";
import { autoencoderTerms } from "../../lib/trainers/autoencoder-loss.js";
import {
  AutoencoderTrainer,
  temperatureAt,
  type AutoencoderTrainerOptions,
} from "../../lib/trainers/autoencoder.js";
import { tinyCodec, tinyConvolutions } from "../pipelines/tiny.js";
import { draws, expectTrueGradients } from "./finite-differences.js";
import { lossesOf, resumesExactly, runTrainer } from "./run-trainer.js";
import { blocks } from "./tiny-trainers.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "smalti-autoencoders-"))));
afterAll(() => rm(folder, { recursive: true }));

const gumbelCodec: VqganConfig = {
  ...tinyConvolutions,
  quantizer: { kind: "gumbel", codes: 20, width: 4, klWeight: 1e-3 },
};
const schedule = { from: 1, to: 0.05, steps: 60 };
const gumbel: AutoencoderTrainerOptions = {
  model: gumbelCodec,
  dataset: blocks,
  batchSize: 4,
  seed: 5,
  temperature: schedule,
  optimiser: { clipNorm: 1 },
};
const game = { start: 2, weight: 0.5, discriminator: { channels: 4, layers: 1 } };

const tiny = { resolution: 4, channels: 4, multipliers: [1, 2], residualBlocks: 1, attentionResolutions: [], groups: 2 }; // prettier-ignore
const picture = [2, 4, 4, 3];
const keys = Int32Array.from([3, 0, 0, 1, 3, 0, 1, 1]);

describe("Gumbel codes", () => {
  it("are drawn ever colder, along half a cosine", () => {
    const published = { from: 0.9, to: 1e-6, steps: 1_000_001 };
    expect(temperatureAt(published, 0)).toBe(0.9);
    expect(temperatureAt(published, 500_000.5)).toBeCloseTo(0.45, 6);
    expect(temperatureAt(published, 2_000_000)).toBe(1e-6);
  });

  // the mean absolute error of plain grey is 0.55
  it.each([true, false])("learn eight pictures, straight through: %s", async (straightThrough) => {
    const quantizer = { kind: "gumbel", codes: 20, width: 4, klWeight: 1e-4, straightThrough } as const; // prettier-ignore
    const options = { ...gumbel, batchSize: 8, temperature: { from: 0.9, to: 0.3, steps: 100 } };
    const trainer = await AutoencoderTrainer.create({
      ...options,
      model: { ...tinyConvolutions, quantizer },
    });
    const curve = lossesOf(await runTrainer(trainer, 200, join(folder, "gumbel")));
    trainer.dispose();
    expect(curve[0]).toBeGreaterThan(0.5);
    expect(curve.slice(-10).reduce((a, b) => a + b) / 10).toBeLessThan(0.2); // 0.07 to 0.14 with seeds 5 to 8, on every instruction set
  });

  it("give other losses at another temperature, and other draws at another step", async () => {
    const first = async (temperature: number): Promise<number[]> => {
      const options = { ...gumbel, temperature: { from: temperature, to: temperature, steps: 1 } };
      const trainer = await AutoencoderTrainer.create(options);
      const curve = lossesOf(await runTrainer(trainer, 2, join(folder, "still"), { rate: 1e-30 }));
      trainer.dispose();
      return curve;
    };
    const [warm, cold] = [await first(10), await first(10)];
    expect(cold).toEqual(warm);
    expect(warm[0]).not.toBe(warm[1]);
  });

  it("go on bit for bit, with a discriminator too", async () => {
    const create = () => AutoencoderTrainer.create({ ...gumbel, adversarial: game });
    const { whole, parts } = await resumesExactly(create, join(folder, "gumbel-parts"));
    expect(parts).toEqual(whole);
    const other = await AutoencoderTrainer.create({ ...gumbel, adversarial: game, temperature: { ...schedule, steps: 9 } }); // prettier-ignore
    await expect(other.restore(join(folder, "gumbel-parts"))).rejects.toThrow(
      /configuration\.temperature\.steps 60 as in .*, got 9/,
    );
    other.dispose();
  });

  it("have the gradients of their loss", async () => {
    const quantizer = { kind: "gumbel", codes: 5, width: 3, straightThrough: false, klWeight: 0.1 } as const; // prettier-ignore
    const model = vqgan({ ...tiny, latentChannels: 3, quantizer });
    await expectTrueGradients({
      parameters: model.parameters,
      inputs: { images: { shape: picture }, key: { shape: [2, 4], dtype: "i32" }, temperature: { shape: [] } },
      values: { images: draws("images", picture), key: keys, temperature: Float64Array.of(0.7) },
      loss: (t, batch) => autoencoderTerms(model, batch, { l1: 0, l2: 1, codebookWeight: 0.5 }).loss,
    }); // prettier-ignore
  });

  it("refuse schedules that are none, and nearest codes one at all", async () => {
    const refused = (options: object): Promise<unknown> =>
      AutoencoderTrainer.create({ ...gumbel, ...options } as AutoencoderTrainerOptions);
    await expect(refused({ temperature: { ...schedule, too: 1 } })).rejects.toThrow(/"to"/);
    await expect(refused({ temperature: { ...schedule, to: 0 } })).rejects.toThrow(/to from 1e-9/);
    await expect(refused({ model: tinyCodec })).rejects.toThrow(
      /train: temperature: expected a quantizer of kind "gumbel"/,
    );
  });
});
