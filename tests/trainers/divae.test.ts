// Tokenizers with diffusion decoders in training: their tokens and decoders learn, together and apart, codes are hidden as
// told, runs go on bit for bit, and the gradients are those of the loss.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { divae, type DivaeConfig } from "../../lib/models/divae.js";
import { chainLevels, chainOf } from "../../lib/processes/gaussian.js";
import { predictions } from "../../lib/processes/gaussian-levels.js";
import type { ParamSpec } from "../../lib/ir/param.js";
import { initialValues } from "../../lib/nn/init.js";
import { uniformStream } from "../../lib/nn/random.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import { sampleContinuous } from "../../lib/samplers/continuous.js";
import { continuousStepGraph } from "../../lib/samplers/continuous-step.js";
import { ddim } from "../../lib/samplers/ddim.js";
import { divaeTask, type DivaeTaskOptions } from "../../lib/trainers/divae.js";
import { TaskTrainer, type TaskTrainerOptions } from "../../lib/trainers/task-trainer.js";
import { draws, expectTrueGradients } from "./finite-differences.js";
import { resumesExactly, runTrainer } from "./run-trainer.js";
import { blocks } from "./tiny-trainers.js";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "smalti-divae-"))));
afterAll(() => rm(folder, { recursive: true }));

const model: DivaeConfig = {
  encoder: { resolution: 16, patch: 8, width: 16, layers: 1, heads: 2, postMlp: true },
  quantizer: { codes: 12, width: 4 },
  decoder: { kind: "unet", patch: 4, channels: 16, multipliers: [1, 2], residualBlocks: 1, attentionFactors: [2], groups: 4 },
}; // prettier-ignore
const uvit: DivaeConfig = {
  ...model,
  decoder: { kind: "uvit", patch: 4, widths: [8, 16], residualBlocks: 1, width: 16, layers: 1, heads: 2, groups: 4, positionSide: 2, dropout: 0.1 },
}; // prettier-ignore
const chain = { timesteps: 50, schedule: "cosine" } as const;
const joint: DivaeTaskOptions = { model, process: { kind: "gaussian", chain, prediction: "x0" } };

const trainer = (task: DivaeTaskOptions, options: Partial<TaskTrainerOptions> = {}) =>
  TaskTrainer.create({
    task: divaeTask(task),
    dataset: blocks,
    batchSize: 8,
    seed: 4,
    optimiser: { clipNorm: 1 },
    ...options,
  });

const sameNumbers = (a: Float32Array, b: Float32Array): boolean => a.every((v, i) => v === b[i]);

const pictures = async (): Promise<Float32Array> => {
  const bytes = await Promise.all([...Array(8).keys()].map((i) => blocks.pixels(i)));
  return Float32Array.from(bytes.flatMap((row) => [...row]), (v) => v / 127.5 - 1);
}; // prettier-ignore

/** What the decoder makes of the tokens of the pictures, in ten steps from noise. */
async function decoded(weights: ReadonlyMap<string, Float32Array>): Promise<Float32Array> {
  const whole = divae(model);
  const shape = [16, 16, 3];
  const plan = ddim().plan(chainLevels(chainOf(chain)).filter((_, i) => i % 5 === 0));
  const images = await pictures();
  const program = await compile(
    continuousStepGraph({
      denoise: (t, input) => {
        const codes = whole.quantizer.lookup(whole.tokenize(t.input("images", { shape: [8, ...shape] }))); // prettier-ignore
        return whole.denoise({ ...input, condition: codes });
      },
      ...{ batch: 8, shape, plan },
    }),
  );
  const buffers = Object.fromEntries(
    [...whole.parameters, ...whole.states].map((spec) => [spec.name, Buffer.fromArray(weights.get(spec.name)!, "f32", spec.shape)]),
  ); // prettier-ignore
  const session = await program.bind(buffers);
  const settings = { plan, parameterisation: predictions.x0, batch: 8, shape, seed: 1 };
  let found = new Float32Array();
  for await (const { state } of sampleContinuous((inputs) => session.run({ ...inputs, images }), settings)) found = Float32Array.from(state.x); // prettier-ignore
  [session, program, ...Object.values(buffers)].forEach((resource) => resource.dispose());
  return found;
}

describe("codebook and decoder together", () => {
  it("learn eight pictures, which come back from their tokens", async () => {
    const made = await trainer(joint);
    const steps = await runTrainer(made, 200, join(folder, "joint"), { rate: 3e-3 });
    const [wanted, found] = [await pictures(), await decoded(made.weights())];
    made.dispose();
    const mean = (name: string, from: number, to: number): number =>
      steps.slice(from, to).reduce((sum, { metrics }) => sum + metrics[name]!, 0) / (to - from);
    const error = wanted.reduce((sum, v, i) => sum + (v - found[i]!) ** 2, 0) / wanted.length;
    expect(mean("denoising", 180, 200)).toBeLessThan(0.15 * mean("denoising", 0, 5));
    expect(mean("perplexity", 180, 200)).toBeGreaterThan(3);
    const middle = wanted.reduce((sum, v) => sum + v, 0) / wanted.length;
    const plain = wanted.reduce((sum, v) => sum + (v - middle) ** 2, 0) / wanted.length;
    expect(error).toBeLessThan(0.2 * plain); // the error of one grey for all
  });

  it.each([
    ["a chain", joint],
    ["a path, a U-ViT with dropout and hidden codes", { model: uvit, process: { kind: "interpolant", path: "linear" }, dropShare: 0.5, dropCodes: "some" }],
  ] as [string, DivaeTaskOptions][])("go on bit for bit on %s", async (name, task) => {
    const create = () => trainer(task, { batchSize: 4, optimiser: { emaDecay: 0.9 } });
    const { whole, parts } = await resumesExactly(create, join(folder, name));
    expect(parts).toEqual(whole);
  }); // prettier-ignore
});

describe("the decoder alone", () => {
  it("learns while every picture keeps its tokens", async () => {
    const whole = divae(model);
    const initial = initialValues([...whole.parameters, ...whole.states], 9);
    const made = await trainer({ ...joint, trains: "decoder" }, { initial });
    const steps = await runTrainer(made, 60, join(folder, "decoder"), { rate: 3e-3 });
    const after = made.weights();
    made.dispose();
    const moved = [...after.keys()].filter((name) => !sameNumbers(after.get(name)!, initial.get(name)!)); // prettier-ignore
    expect(new Set(moved.map((name) => name.split(".")[0]))).toEqual(new Set(["decoder"]));
    const losses = steps.map(({ loss }) => loss);
    expect(Math.max(...losses.slice(-10))).toBeLessThan(0.5 * losses[0]!);
  });
});

describe("hidden codes", () => {
  const hidden = (options: Partial<DivaeTaskOptions>): Float32Array => {
    const B = 200;
    const task = divaeTask({ ...joint, ...options } as DivaeTaskOptions);
    const shape: [number, number, number, number] = [B, 16, 16, 3];
    expect(task.inputs(shape)["hidden"]?.shape).toEqual([B, 2, 2]);
    const uniform = (name: string) => uniformStream(3, name, B);
    const place = { uniform, normal: uniform, key: new Int32Array(4 * B) };
    const images = new Float32Array(0); // the task only passes them on
    const batch = { images, shape, size: B, labels: new Int32Array(B), captions: [], indices: new Int32Array(B), cursor: { epoch: 0, position: 0 } }; // prettier-ignore
    return task.values(batch, place).inputs["hidden"] as Float32Array;
  };
  const perSample = (values: Float32Array): number[] =>
    Array.from({ length: values.length / 4 }, (_, b) => values.slice(4 * b, 4 * b + 4).reduce((a, v) => a + v)); // prettier-ignore

  it("are all codes of the told share of samples", () => {
    const counts = perSample(hidden({ dropShare: 0.3 }));
    expect(new Set(counts)).toEqual(new Set([0, 4]));
    expect(Math.abs(counts.filter((count) => count === 4).length / 200 - 0.3)).toBeLessThan(0.1);
  });

  it("are some of the codes, as often any number as any other, any place as any other", () => {
    const values = hidden({ dropShare: 1, dropCodes: "some" });
    const counts = perSample(values);
    for (let n = 0; n <= 4; ++n)
      expect(Math.abs(counts.filter((count) => count === n).length / 200 - 0.2)).toBeLessThan(0.09);
    for (let place = 0; place < 4; ++place) {
      const at = values.filter((_, i) => i % 4 === place).reduce((a, v) => a + v) / 200;
      expect(Math.abs(at - 0.5)).toBeLessThan(0.11); // three deviations
    }
  });
});

it("have the gradients of their loss behind the codes", async () => {
  const whole = divae(model);
  const task = divaeTask({ ...joint, dropShare: 0.5 });
  const shape = [2, 16, 16, 3];
  const inputs = task.inputs(shape);
  const table = inputs["table"]!.shape;
  const isTested = ({ name }: ParamSpec): boolean => /^decoder\.(out|middle)/.test(name);
  await expectTrueGradients({
    parameters: whole.parameters.filter(isTested),
    states: [...whole.parameters.filter((spec) => !isTested(spec)), ...whole.states],
    inputs,
    values: {
      images: draws("images", shape),
      times: Float64Array.of(3, 40),
      table: draws("table", table),
      weights: Float64Array.of(1, 0.5),
      key: Int32Array.from([3, 0, 0, 1, 3, 0, 1, 1]),
      hidden: Float64Array.of(0, 0, 0, 0, 1, 0, 1, 1),
    },
    loss: (_, batch) => task.loss(batch).loss,
  });
});

it("refuse what they do not know and what does not fit", async () => {
  const refused = (changes: object) => () =>
    divaeTask({ ...joint, ...changes } as DivaeTaskOptions);
  expect(refused({ dropShar: 1 })).toThrow(/did you mean "dropShare"/);
  expect(refused({ trains: "encoder" })).toThrow(/trains to be one of all, decoder/);
  expect(refused({ dropShare: 2 })).toThrow(/dropShare/);
  expect(refused({ model: { ...model, labels: 3 } })).toThrow(/pictures to train, got one of maps/);
  expect(refused({ process: { ...joint.process, kind: "flow" } })).toThrow(/kind/);
  await expect(trainer({ ...joint, model: { ...model, imageChannels: 1 } })).rejects.toThrow(
    /divae: expected pictures of 1 channels .* got 16 x 16 x 3/,
  );
});
