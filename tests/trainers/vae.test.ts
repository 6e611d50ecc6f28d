// DiffuseVAE: its first stage learns by its bound, and both formulations of the refiner learn on its reconstructions, which
// a frozen network makes on the way.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import { memoryDataset } from "../../lib/data/dataset.js";
import { autoencoderKl } from "../../lib/models/autoencoder-kl.js";
import { denoiser } from "../../lib/models/denoiser.js";
import {
  diffuseVae,
  diffuseVaeLoss,
  type DiffuseVaeConfig,
} from "../../lib/models/diffusevae-vae.js";
import { klFirstStage, vqFirstStage } from "../../lib/models/first-stage.js";
import { vqgan } from "../../lib/models/vqgan.js";
import { initialValues } from "../../lib/nn/init.js";
import { latentStage, reconstructionStage } from "../../lib/trainers/frozen-stage.js";
import { trainLoop, type Trainable, type TrainLoopOptions } from "../../lib/trainers/loop.js";
import { TaskTrainer } from "../../lib/trainers/task-trainer.js";
import { vaeTask } from "../../lib/trainers/vae.js";
import { evaluate, f64 } from "../formulas/evaluate.js";
import { tinyCodec } from "../pipelines/tiny.js";
import { blocks, denoiserTrainer, type DenoiserSetting } from "./tiny-trainers.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "smalti-vae-"))));
afterAll(() => rm(folder, { recursive: true }));

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length; // prettier-ignore

/** Eight pictures of 4 x 4 pixels: a bright quarter somewhere, in one of two colours. */
const quarters = memoryDataset({
  name: "quarters",
  width: 4,
  height: 4,
  pixels: Uint8Array.from({ length: 8 * 48 }, (_, i) => {
    const [picture, pixel, channel] = [Math.floor(i / 48), Math.floor((i % 48) / 3), i % 3];
    const quarter = 2 * Math.floor(pixel / 8) + Math.floor((pixel % 4) / 2);
    return quarter === picture % 4 && channel !== Math.floor(picture / 4) ? 230 : 25;
  }),
  labels: Array.from({ length: 8 }, (_, i) => i % 2),
  classes: ["even", "odd"],
});

const model: DiffuseVaeConfig = {
  resolution: 4,
  encoder: "4x1,4d2,4t2,2d2,2t1,1x1",
  decoder: "1x1,1u2,1t2,2x2,2u2,2t4,4x1",
  encoderChannels: "4:64,2:48,1:32",
  decoderChannels: "4:32,2:48,1:32",
};

interface Curve {
  loss: number;
  metrics: Record<string, number>;
}

async function curveOf(trainable: Trainable & { dispose(): void }, steps: number, name: string, options: Partial<TrainLoopOptions> = {}): Promise<Curve[]> {
  const found: Curve[] = [];
  const loop = { steps, lr: () => 2e-3, checkpoint: join(folder, name), ...options };
  for await (const event of trainLoop(trainable, loop))
    if (event.type === "step") found.push({ loss: event.loss, metrics: event.metrics });
  trainable.dispose();
  return found;
} // prettier-ignore

const vaeTrainer = (klWeight = 1): Promise<TaskTrainer> =>
  TaskTrainer.create({ task: vaeTask({ model, klWeight }), dataset: quarters, batchSize: 8, seed: 2 }); // prettier-ignore

describe("the first stage", () => {
  it("brings eight pictures close within a bound that it earns", async () => {
    const lr = (step: number): number => 6e-3 * (1 - (0.9 * step) / 500);
    const curve = await curveOf(await vaeTrainer(0.05), 500, "vae", { lr });
    const [first, last] = [curve[0]!, curve.at(-1)!];
    // 48 values of 0.1 or 0.9 that are guessed as 1/2
    expect(first.metrics["reconstruction"]).toBeGreaterThan(6);
    expect(mean(curve.slice(-20).map(({ metrics }) => metrics["reconstruction"]!))).toBeLessThan(1);
    // three bits tell eight pictures apart
    expect(last.metrics["kl"]).toBeGreaterThan(2 * Math.LN2);
    for (const { loss, metrics } of curve.slice(-20))
      expect(loss / 8).toBeCloseTo(metrics["reconstruction"]! + 0.05 * metrics["kl"]!, 3);
  });

  it("continues bit for bit from a checkpoint, and refuses the state of another weight", async () => {
    const whole = await curveOf(await vaeTrainer(), 12, "whole");
    await curveOf(await vaeTrainer(), 5, "parts");
    const rest = await curveOf(await vaeTrainer(), 12, "parts", { resume: true });
    expect(rest).toEqual(whole.slice(5));
    await expect(curveOf(await vaeTrainer(2), 13, "parts", { resume: true })).rejects.toThrow("klWeight"); // prettier-ignore
  });

  it("has the gradients of its bound", async () => {
    const vector = (n: number, f: (i: number) => number): number[] => Array.from({ length: n }, (_, i) => f(i)); // prettier-ignore
    const values = {
      mean: f64(
        [2, 1, 1, 3],
        vector(6, (i) => Math.sin(i)),
      ),
      logVariance: f64(
        [2, 1, 1, 3],
        vector(6, (i) => 0.4 * Math.cos(2 * i)),
      ),
      decoded: f64(
        [2, 1, 1, 3],
        vector(6, (i) => 0.5 + 0.3 * Math.sin(5 * i)),
      ),
      images: f64(
        [2, 1, 1, 3],
        vector(6, (i) => 0.5 + 0.4 * Math.cos(3 * i)),
      ),
    };
    type Name = keyof typeof values;
    const names: Name[] = ["mean", "logVariance", "decoded"];
    const bound = (x: Record<string, Parameters<typeof diffuseVaeLoss>[0]>) =>
      diffuseVaeLoss(x["images"]!, x["decoded"]!, { mean: x["mean"]!, logVariance: x["logVariance"]! }, 0.7).total; // prettier-ignore
    const found = await evaluate((_, x) => {
      const grads = gradients(bound(x), names.map((name) => x[name]!)); // prettier-ignore
      return Object.fromEntries(names.map((name, i) => [name, grads[i]!]));
    }, values);
    const at = async (name: Name, i: number, by: number): Promise<number> => {
      const data = Float64Array.from(values[name].data);
      data[i]! += by;
      const moved = { ...values, [name]: { ...values[name], data } };
      return (await evaluate((_, x) => ({ total: bound(x) }), moved))["total"]![0]!;
    };
    for (const name of names) {
      const slope = ((await at(name, 4, 1e-5)) - (await at(name, 4, -1e-5))) / 2e-5;
      expect(found[name]![4]).toBeCloseTo(slope, 7);
    }
  });

  it("refuses pictures of another size", () =>
    expect(() => vaeTask({ model }).inputs([2, 8, 8, 3])).toThrow(
      "expected pictures [2, 4, 4, 3]",
    ));
});

const small = { channels: 8, multipliers: [1, 2], residualBlocks: 1, groups: 4 };
const chain = { timesteps: 40, schedule: "cosine" } as const;

function refiner(formulation: 1 | 2, withLatent = false, seed = 1): Promise<TaskTrainer> {
  const vae = diffuseVae(model);
  const stage = reconstructionStage(vae, initialValues(vae.parameters, seed), { withLatent });
  const config = { ...small, resolution: 4, attentionFactors: [2], ...(withLatent && { latentWidth: 32 }) }; // prettier-ignore
  return denoiserTrainer({
    network: denoiser("diffusevae-unet", config),
    process: { kind: "gaussian", chain, formulation },
    derived: stage,
    pairDropShare: 0.2,
    dataset: quarters,
    batchSize: 8,
    seed: 3,
  });
}

describe("the refiner", () => {
  it.each([
    ["formulation 1", 1, false],
    ["formulation 2", 2, false],
    ["formulation 1, told the latent, too", 1, true],
  ] as const)("learns %s", async (name, formulation, withLatent) => {
    const losses = (await curveOf(await refiner(formulation, withLatent), 60, name)).map(({ loss }) => loss); // prettier-ignore
    expect(mean(losses.slice(-12))).toBeLessThan(0.75 * mean(losses.slice(0, 6)));
  });

  it("continues bit for bit from a checkpoint", async () => {
    const whole = await curveOf(await refiner(2), 9, "refiner");
    await curveOf(await refiner(2), 4, "refined");
    expect(await curveOf(await refiner(2), 9, "refined", { resume: true })).toEqual(whole.slice(4));
    const other = curveOf(await refiner(2, false, 8), 10, "refined", { resume: true });
    await expect(other).rejects.toThrow("configuration.derived.weights"); // another first stage
  });

  it("reads reconstructions drawn from the posterior, anew for each visit", async () => {
    const vae = diffuseVae(model);
    const stage = reconstructionStage(vae, initialValues(vae.parameters, 1));
    expect(stage.inputs([2, 4, 4, 3])).toEqual({ pair: { shape: [2, 4, 4, 3] } });
    const images = Float32Array.from({ length: 96 }, (_, i) => Math.sin(i));
    const batch = { images, labels: new Int32Array(2), shape: [2, 4, 4, 3], size: 2 };
    const read = (step: number) =>
      stage.read(batch as never, { key: Int32Array.of(1, 0, 0, step, 1, 0, 1, step) } as never);
    const [first, again, other] = [await read(0), await read(0), await read(1)];
    expect(again).toEqual(first);
    expect(other).not.toEqual(first);
    expect(Math.max(...first["pair"]!.map(Math.abs))).toBeLessThanOrEqual(1);
    stage.dispose();
  });
});

const kl = autoencoderKl({ ...small, resolution: 16, attentionResolutions: [], latentChannels: 4 }); // prettier-ignore

describe("latents", () => {
  const stages = {
    KL: klFirstStage(kl, { scale: 0.5 }),
    VQ: vqFirstStage(vqgan(tinyCodec), { scale: 2 }),
  };

  it.each(Object.entries(stages))("of %s are what is denoised", async (name, stage) => {
    const side = 16 / stage.stride;
    const setting = (): DenoiserSetting => ({
      network: denoiser("dit", { size: [side, side], patch: 2, channels: stage.channels, width: 24, layers: 1, heads: 2, classes: 1, sigma: "none" }),
      process: { kind: "interpolant", path: "linear" },
      derived: latentStage(stage, initialValues([...stage.parameters, ...stage.states], 4)),
      conditions: {
        inputs: (B) => ({ labels: { shape: [B], dtype: "i32" } }),
        values: ({ size }) => ({ labels: new Int32Array(size) }),
      },
      dataset: blocks,
      batchSize: 4,
      optimiser: { accumulate: 2 },
    }); // prettier-ignore
    const whole = await curveOf(await denoiserTrainer(setting()), 40, name);
    const losses = whole.map(({ loss }) => loss);
    expect(mean(losses.slice(-10))).toBeLessThan(0.9 * mean(losses.slice(0, 4)));
    await curveOf(await denoiserTrainer(setting()), 3, `${name}-parts`);
    const rest = await curveOf(await denoiserTrainer(setting()), 6, `${name}-parts`, {
      resume: true,
    });
    expect(rest).toEqual(whole.slice(3, 6));
  });

  it("want pictures that the first stage divides", () =>
    expect(() => latentStage(stages.KL, initialValues(kl.parameters, 1)).inputs([1, 15, 16, 3])).toThrow("divisible by")); // prettier-ignore
});
