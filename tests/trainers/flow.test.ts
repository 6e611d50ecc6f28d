// Training on interpolants: known smallest losses are reached, times are drawn as published, runs are resumed bit for bit.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { memoryDataset } from "../../lib/data/dataset.js";
import { ParamScope } from "../../lib/nn/module.js";
import { linear } from "../../lib/nn/linear.js";
import { normalStream, uniformStream } from "../../lib/nn/random.js";
import { concat } from "../../lib/trace/functions.js";
import type { InterpolantProcess } from "../../lib/models/diffusion-process.js";
import type { DenoiserNetwork } from "../../lib/trainers/denoiser.js";
import type { DerivedInputs } from "../../lib/trainers/frozen-stage.js";
import {
  interpolantProcess,
  type InterpolantLossOptions,
} from "../../lib/trainers/interpolant-process.js";
import { trainLoop, type TrainLoopOptions } from "../../lib/trainers/loop.js";
import type { BatchPlace } from "../../lib/trainers/task-trainer.js";
import { denoiserTrainer, type DenoiserSetting } from "./tiny-trainers.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "smalti-flow-"))));
afterAll(() => rm(folder, { recursive: true }));

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length; // prettier-ignore

const width = 32;

/** A number and its time -> a number. */
function scalarNetwork(): DenoiserNetwork {
  const scope = new ParamScope();
  const first = linear(scope.child("first"), { in: 3, out: width });
  const second = linear(scope.child("second"), { in: width, out: width });
  const last = linear(scope.child("last"), { in: width, out: 1 });
  return {
    parameters: scope.specs(),
    config: { width },
    forward({ x, times }) {
      const B = x.shape[0]!;
      const [number, time] = [x.reshape([B, 1]), times.reshape([B, 1])];
      const hidden = first(concat([number, time, time.square()], 1)).tanh();
      return last(second(hidden).silu()).reshape(x.shape);
    },
  };
}

const deviation = 0.5;

/** Numbers from a normal distribution in place of pictures. */
const normalSamples: DerivedInputs = {
  inputs: ([B]) => ({ x0: { shape: [B!, 1, 1, 1] } }),
  read: (_, place) => ({ x0: Float32Array.from(place.normal("data"), (n) => deviation * n) }),
};

const pixel = memoryDataset({ width: 1, height: 1, channels: 1, pixels: new Uint8Array(1) });

type Process = Partial<InterpolantProcess>;

const process = (given: Process): InterpolantProcess => ({
  kind: "interpolant",
  path: "linear",
  ...given,
});

const flow = (given: Process = {}, loss: InterpolantLossOptions = {}): DenoiserSetting => ({
  network: scalarNetwork(),
  process: process(given),
  loss,
  derived: normalSamples,
  dataset: pixel,
  batchSize: 256,
  seed: 4,
});

async function losses(
  setting: DenoiserSetting,
  steps: number,
  name: string,
  options: Partial<TrainLoopOptions> = {},
): Promise<number[]> {
  const trainer = await denoiserTrainer(setting);
  const found: number[] = [];
  const lr = (step: number): number => 0.01 * (1 - (0.9 * step) / steps);
  const loop = { steps, lr, checkpoint: join(folder, name), ...options };
  for await (const event of trainLoop(trainer, loop))
    if (event.type === "step") found.push(event.loss);
  trainer.dispose();
  return found;
}

/** Mean of a function of t over (0, 1), midpoint rule. */
const average = (f: (t: number) => number, low = 0, high = 1): number =>
  mean(Array.from({ length: 20_000 }, (_, i) => f(low + ((high - low) * (i + 0.5)) / 20_000)));

const variance = deviation ** 2;

/** Variance of x0 and of the noise given x_t, for coefficients a and c, is that of a linear regression. */
const remaining = (a: number, c: number): { noise: number; velocity: (da: number, dc: number) => number } => {
  const total = a * a * variance + c * c;
  return {
    noise: (a * a * variance) / total,
    // Var(a' x0 + c' n | x_t): the part of the direction that x_t does not show
    velocity: (da, dc) => (variance * (a * dc - c * da) ** 2) / total,
  };
}; // prettier-ignore

const turn = Math.PI / 2;
const gvp = (t: number) => remaining(Math.cos(turn * t), Math.sin(turn * t));

const onLines = (t: number): number => remaining(1 - t, t).velocity(-1, 1);
const bell = (u: number): number => Math.exp((-u * u) / 2) / Math.sqrt(2 * Math.PI);

/** Settings with the mean loss of the best network. */
const kinds: [string, DenoiserSetting, number][] = [
  ["velocity on lines", flow(), average(onLines)],
  ["velocity at logit-normal times", flow({}, { timesteps: "logit-normal" }), 20 * average((u) => bell(u) * onLines(1 / (1 + Math.exp(-u))), -10, 10)],
  ["noise on circles", flow({ path: "gvp", prediction: "eps" }), average((t) => gvp(t).noise)],
  ["velocity on circles, towards noise", flow({ path: "gvp", towards: "noise" }), average((t) => gvp(t).velocity(-turn * Math.sin(turn * t), turn * Math.cos(turn * t)))],
]; // prettier-ignore

describe("a flow", () => {
  it("has the known smallest loss on lines", () => expect(kinds[0]![2]).toBeCloseTo(deviation * turn, 6)); // prettier-ignore

  it.each(kinds)("reaches the smallest loss: %s", async (name, setting, best) => {
    const curve = await losses(setting, 500, name.replaceAll(/\W/g, ""));
    expect(mean(curve.slice(0, 5))).toBeGreaterThan(1.1 * best);
    expect(mean(curve.slice(-150))).toBeGreaterThan(0.94 * best);
    expect(mean(curve.slice(-150))).toBeLessThan(1.06 * best);
  });

  it.each<[string, DenoiserSetting]>([
    ["a score on VP, likelihood weight", flow({ path: "vp", prediction: "score" }, { weight: "likelihood", epsilon: 0.02 })],
    ["noise on lines, velocity weight", flow({ prediction: "eps" }, { weight: "velocity", epsilon: 0.1 })],
  ])("learns %s", async (name, setting) => {
    const curve = await losses(setting, 150, name.replaceAll(/\W/g, ""));
    expect(mean(curve.slice(-30))).toBeLessThan(0.8 * mean(curve.slice(0, 5)));
  }); // prettier-ignore

  it("continues bit for bit from a checkpoint", async () => {
    const setting = {
      ...flow({}, { timesteps: "logit-normal" }),
      optimiser: { emaDecay: 0.9, accumulate: 2 },
    };
    const lr = (): number => 0.003;
    const whole = await losses(setting, 12, "whole", { lr });
    await losses(setting, 7, "parts", { lr });
    expect(await losses(setting, 12, "parts", { lr, resume: true })).toEqual(whole.slice(7));
    const other = { ...setting, process: process({ path: "gvp" }) } as DenoiserSetting;
    await expect(losses(other, 12, "parts", { lr, resume: true })).rejects.toThrow("configuration.process"); // prettier-ignore
  });

  it("draws times as told", () => {
    const B = 4000;
    const place: BatchPlace = {
      uniform: (name) => uniformStream(1, name, B),
      normal: (name) => normalStream(1, name, B),
      key: new Int32Array(0),
    };
    const times = (given: Process, loss: InterpolantLossOptions = {}): number[] => [
      ...interpolantProcess(process({ towards: "noise", ...given }), loss).draw(place).times,
    ];
    const uniform = times({});
    expect(mean(uniform)).toBeCloseTo(0.5, 1);
    expect(mean(uniform.map((t) => (t - 0.5) ** 2))).toBeCloseTo(1 / 12, 2);
    const logits = times({}, { timesteps: "logit-normal", mean: 1, deviation: 0.5 }).map((t) => Math.log(t / (1 - t))); // prettier-ignore
    expect(mean(logits)).toBeCloseTo(1, 1);
    expect(mean(logits.map((l) => (l - 1) ** 2))).toBeCloseTo(0.25, 1);
    // towards data the same draws are told the other way round
    const turned = times({ towards: "data" });
    turned.forEach((t, i) => expect(t).toBeCloseTo(1 - uniform[i]!, 6));
    const range = times({ path: "vp" }, { epsilon: 0.1 });
    expect(Math.min(...range)).toBeGreaterThanOrEqual(0.0999);
  });

  it.each([
    [{ path: "square" }, {}, "linear, gvp, vp"],
    [{ prediction: "x0" }, {}, "velocity, score, eps"],
    [{}, { timestep: "uniform" }, "timesteps"],
  ])("refuses %o with %o", (given, loss, message) =>
    expect(() =>
      interpolantProcess(process(given as Process), loss as InterpolantLossOptions),
    ).toThrow(message),
  );
});
