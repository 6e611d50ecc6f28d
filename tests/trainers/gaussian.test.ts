// Training on Gaussian chains: losses fall, resumed runs repeat the whole one bit for bit, and a trained network samples
// what it was shown.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { memoryDataset } from "../../lib/data/dataset.js";
import { conv2d } from "../../lib/nn/conv.js";
import { embedding } from "../../lib/nn/embedding.js";
import { ParamScope } from "../../lib/nn/module.js";
import { zeros } from "../../lib/nn/init.js";
import { linear } from "../../lib/nn/linear.js";
import { timeEmbedding } from "../../lib/nn/time-embedding.js";
import { chainLevels, chainOf } from "../../lib/processes/gaussian.js";
import { predictions } from "../../lib/processes/gaussian-levels.js";
import {
  drawGaussianTimes,
  lossHistory,
  lossProbabilities,
  rememberLosses,
} from "../../lib/processes/gaussian-timesteps.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import { sampleContinuous } from "../../lib/samplers/continuous.js";
import { continuousStepGraph } from "../../lib/samplers/continuous-step.js";
import { ddim } from "../../lib/samplers/ddim.js";
import { concat } from "../../lib/trace/functions.js";
import type { TrainEvent } from "../../lib/trainers/events.js";
import type { DenoiserNetwork } from "../../lib/trainers/denoiser.js";
import type { DerivedInputs } from "../../lib/trainers/frozen-stage.js";
import type {
  GaussianTrainingOptions,
  TrainedGaussian,
} from "../../lib/trainers/gaussian-process.js";
import { trainLoop, type TrainLoopOptions } from "../../lib/trainers/loop.js";
import type { BatchPlace, TaskTrainer } from "../../lib/trainers/task-trainer.js";
import { denoiserTrainer, type DenoiserSetting } from "./tiny-trainers.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "smalti-gaussian-"))));
afterAll(() => rm(folder, { recursive: true }));

const side = 4;
const width = 16;

/** Grey pictures of two classes: left half bright, or right half bright. */
const halves = memoryDataset({
  name: "halves",
  width: side,
  height: side,
  channels: 1,
  pixels: Uint8Array.from({ length: 2 * side * side }, (_, i) => {
    const isLeft = i % side < side / 2;
    return isLeft === i < side * side ? 230 : 25;
  }),
  labels: [0, 1],
  classes: ["left", "right"],
});

/** Two convolutions that see everything, and embeddings of time and class. */
function network({ outputs = 1, inputs = 1, classes = 0 } = {}): DenoiserNetwork {
  const scope = new ParamScope();
  const time = timeEmbedding(scope.child("time"), { width, out: width });
  const label = classes && embedding(scope.child("label"), { count: classes, width });
  const first = linear(scope.child("first"), { in: inputs * side * side, out: 4 * width });
  const shift = linear(scope.child("shift"), { in: width, out: 4 * width });
  const mix = conv2d(scope.child("mix"), { in: 4 * width, out: 4 * width, kernel: 1 });
  const last = linear(scope.child("last"), { in: 4 * width, out: outputs * side * side, weightInit: zeros, biasInit: zeros }); // prettier-ignore
  return {
    parameters: scope.specs(),
    config: { outputs, inputs, classes },
    forward({ x, times, pair, labels }) {
      const B = x.shape[0]!;
      const image = pair ? concat([x, pair], 3) : x;
      const about = time(times).add(label ? label(labels!) : 0);
      const hidden = first(image.reshape([B, inputs * side * side]))
        .add(shift(about))
        .silu();
      const mixed = mix(hidden.reshape([B, 1, 1, 4 * width])).silu();
      return last(mixed.reshape([B, 4 * width])).reshape([B, side, side, outputs]);
    },
  };
}

const chain = { timesteps: 50, schedule: "cosine" } as const;

const gaussian = (process: Partial<TrainedGaussian> = {}, loss: GaussianTrainingOptions = {}) =>
  ({ process: { kind: "gaussian", chain, ...process }, loss }) as const;

const base: DenoiserSetting = {
  network: network(),
  ...gaussian(),
  dataset: halves,
  batchSize: 16,
  seed: 3,
  optimiser: { emaDecay: 0.99, clipNorm: 1 },
};

async function run(
  trainer: TaskTrainer,
  steps: number,
  name: string,
  options: Partial<TrainLoopOptions> = {},
): Promise<number[]> {
  const events: TrainEvent[] = [];
  const loop = { steps, lr: () => 3e-3, checkpoint: join(folder, name), ...options };
  for await (const event of trainLoop(trainer, loop)) events.push(event);
  return events.flatMap((event) => (event.type === "step" ? [event.loss] : []));
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length; // prettier-ignore

const labels = {
  inputs: (B: number) => ({ labels: { shape: [B], dtype: "i32" as const } }),
  values: ({ labels }: { labels: Int32Array }, place: BatchPlace) => {
    const dropped = place.uniform("labels");
    return { labels: labels.map((label, i) => (dropped[i]! < 0.1 ? 2 : label)) };
  },
};

const bright: DerivedInputs = {
  inputs: (shape) => ({ pair: { shape } }),
  read: ({ images }) => ({ pair: images.map((v) => 0.5 * v) }),
};

const kinds: Record<string, Partial<DenoiserSetting>> = {
  "eps, min-SNR": gaussian({ prediction: "eps" }, { weighting: "min-snr" }),
  "x0, l1": gaussian({ prediction: "x0" }, { kind: "l1" }),
  "v on zero terminal SNR": gaussian({
    prediction: "v",
    chain: { timesteps: 50, schedule: "scaled-linear", first: 0.01, last: 0.2, zeroTerminal: true },
  }),
  "the previous mean": gaussian({ prediction: "previous" }),
  "a learned range": {
    network: network({ outputs: 2 }),
    ...gaussian({ variance: "learnedRange" }, { boundFactor: 0.05 }),
  },
  "the bound, drawn by loss": {
    network: network({ outputs: 2 }),
    ...gaussian(
      { variance: "learnedRange", chain: { timesteps: 8, schedule: "cosine" } },
      { kind: "bound", timesteps: "loss-second-moment" },
    ),
  },
  "classes": { network: network({ classes: 3 }), conditions: labels },
  "formulation 2": {
    network: network({ inputs: 2 }), ...gaussian({ formulation: 2 }), derived: bright, pairDropShare: 0.2,
  },
}; // prettier-ignore

describe("the trainer", () => {
  it.each(Object.keys(kinds))("learns %s", async (name) => {
    const trainer = await denoiserTrainer({ ...base, ...kinds[name] });
    const curve = await run(trainer, 100, name.replaceAll(/\W/g, ""));
    trainer.dispose();
    expect(mean(curve.slice(-20))).toBeLessThan(0.8 * mean(curve.slice(0, 20)));
  });

  it.each(["eps, min-SNR", "the bound, drawn by loss", "formulation 2"])(
    "continues %s bit for bit from a checkpoint",
    async (name) => {
      const options = { ...base, ...kinds[name] };
      const whole = await denoiserTrainer(options);
      const curve = await run(whole, 16, "whole");
      whole.dispose();
      const first = await denoiserTrainer(options);
      await run(first, 10, "parts");
      first.dispose();
      const second = await denoiserTrainer(options);
      expect(await run(second, 16, "parts", { resume: true })).toEqual(curve.slice(10));
      second.dispose();
    },
  );

  it("refuses the state of another loss or chain", async () => {
    const first = await denoiserTrainer(base);
    await run(first, 1, "other");
    first.dispose();
    for (const change of [
      gaussian({}, { weighting: "p2" }),
      gaussian({ chain: { timesteps: 60 } }),
    ]) {
      const second = await denoiserTrainer({ ...base, ...change });
      await expect(run(second, 2, "other", { resume: true })).rejects.toThrow("configuration.");
      second.dispose();
    }
  });

  it("refuses options that do not fit together", async () => {
    const create = (process: object, loss: object = {}): Promise<unknown> =>
      denoiserTrainer({ ...base, ...gaussian(process, loss) });
    await expect(create({ formulation: 2 })).rejects.toThrow("expected pair with formulation 2");
    await expect(create({ chain: { timesteps: 50, zeroTerminal: true } })).rejects.toThrow("predict v or x0"); // prettier-ignore
    await expect(create({ variance: "learned" }, { kind: "l1" })).rejects.toThrow("got l1");
    await expect(create({ predicton: "eps" })).rejects.toThrow("prediction");
    await expect(create({}, { weighting: "speed" })).rejects.toThrow("likelihood");
    await expect(create({ kind: "gausian" })).rejects.toThrow("gaussian, interpolant");
  });

  it("gives a network that samples what it was shown", async () => {
    const options = { ...base, ...gaussian({ prediction: "x0" }) };
    const trainer = await denoiserTrainer(options);
    await run(trainer, 200, "sampled");
    const plan = ddim().plan(chainLevels(chainOf(chain)).filter((_, i) => i % 5 === 0));
    const shape = [side, side, 1];
    const batch = 8;
    const denoise = (
      _: unknown,
      input: Pick<Parameters<DenoiserNetwork["forward"]>[0], "x" | "times">,
    ) =>
      // prettier-ignore
      base.network.forward(input);
    const program = await compile(continuousStepGraph({ denoise, batch, shape, plan }));
    const specs = base.network.parameters;
    const weights = trainer.weights();
    const buffers = Object.fromEntries(
      specs.map(({ name, shape }) => [name, Buffer.fromArray(weights.get(name)!, "f32", shape)]),
    );
    const session = await program.bind(buffers);
    let found = new Float32Array();
    const settings = { plan, parameterisation: predictions.x0, batch, shape, seed: 1 };
    for await (const { state } of sampleContinuous((inputs) => session.run(inputs), settings))
      found = Float32Array.from(state.x);
    const wanted = [0, 1].map((i) => Array.from({ length: side * side }, (_, p) => (p % side < side / 2 === (i === 0) ? 1 : -1) * 0.8)); // prettier-ignore
    for (let b = 0; b < batch; ++b) {
      const picture = found.slice(b * side * side, (b + 1) * side * side);
      const errors = wanted.map((want) => mean(want.map((v, p) => Math.abs(v - picture[p]!))));
      expect(Math.min(...errors)).toBeLessThan(0.2);
    }
    [session, program, ...Object.values(buffers), trainer].forEach((resource) =>
      resource.dispose(),
    );
  });
});

describe("timesteps by loss", () => {
  it("are uniform until every timestep has its losses, then follow them", () => {
    let history = lossHistory(3);
    for (let i = 0; i < 10; ++i) {
      expect([...lossProbabilities(history)]).toEqual([1 / 3, 1 / 3, 1 / 3]);
      history = rememberLosses(history, [0, 1, 2], [1, 2, 7]);
    }
    const found = lossProbabilities(history);
    [1, 2, 7].forEach((loss, t) =>
      expect(found[t]).toBeCloseTo((0.999 * loss) / 10 + 0.001 / 3, 12),
    );
    for (let i = 0; i < 10; ++i) history = rememberLosses(history, [2], [1]);
    expect(lossProbabilities(history)[2]).toBeCloseTo(0.999 / 4 + 0.001 / 3, 12);
  });

  it("have weights that keep the mean", () => {
    const p = Float64Array.of(0.1, 0.2, 0.7);
    const uniform = Array.from({ length: 1000 }, (_, i) => (i + 0.5) / 1000);
    const { times, weights } = drawGaussianTimes(p, uniform);
    expect([0, 1, 2].map((t) => times.filter((time) => time === t).length)).toEqual([
      100, 200, 700,
    ]);
    const loss = [3, 5, 10];
    expect(mean(times.map((t, i) => loss[t]! * weights[i]!))).toBeCloseTo(6, 5);
  });
});
