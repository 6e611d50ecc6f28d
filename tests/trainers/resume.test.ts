// Training states that are broken or of another run: refused by name, before anything is overwritten.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { openSafetensors, writeSafetensors } from "../../lib/checkpoint/safetensors.js";
import { loadTrainingState, saveTrainingState } from "../../lib/checkpoint/training-state.js";
import { memoryDataset } from "../../lib/data/dataset.js";
import { DiffusionError } from "../../lib/errors.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { AutoencoderTrainer } from "../../lib/trainers/autoencoder.js";
import { tinyCodec } from "../pipelines/tiny.js";

const key = "smalti.training";
const configuration = { model: { width: 8, sizes: [1, 2] }, seed: 1, batchSize: 4, optimiser: {} };
const lists = { history: 3 };
const place = { done: 5, cursor: { epoch: 1, position: 2 } };
const progress = { ...place, lists: { history: [1, 2, 3] } };
const good = { ...progress, configuration };

let folder: string;
let path: string;
let buffers: Map<string, Buffer>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "smalti-resume-"));
  path = join(folder, "state");
});
afterAll(() => rm(folder, { recursive: true }));

beforeEach(() => {
  const zeros = (...shape: number[]): Buffer =>
    Buffer.fromArray(new Float32Array(shape.reduce((a, b) => a * b, 1)), "f32", shape);
  buffers = new Map([["a", zeros(2, 3)], ["b", zeros(4)]]); // prettier-ignore
});
afterEach(() => buffers.forEach((buffer) => buffer.dispose()));

const ones = (name: string, ...shape: number[]) => ({
  name,
  shape,
  data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1),
});
const tensors = [ones("a", 2, 3), ones("b", 4)];

async function expectRefusal(message: RegExp): Promise<void> {
  const error = await loadTrainingState(path, buffers, { configuration, lists }).catch(
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(DiffusionError);
  expect(error).toMatchObject({ code: "checkpoint" });
  expect((error as Error).message).toMatch(message);
  for (const buffer of buffers.values())
    expect([...(buffer.read() as Float32Array)].every((value) => value === 0)).toBe(true);
}

describe("a training state", () => {
  it("comes back", async () => {
    buffers.get("a")!.write(new Float32Array(6).fill(7));
    await saveTrainingState(path, buffers, configuration, progress);
    buffers.get("a")!.write(new Float32Array(6));
    const reordered = { ...configuration, model: { sizes: [1, 2], width: 8, depth: undefined } };
    const restored = await loadTrainingState(path, buffers, { configuration: reordered, lists });
    expect(restored).toEqual(progress);
    expect([...(buffers.get("a")!.read() as Float32Array)]).toEqual(Array(6).fill(7));
  });

  it.each<[string, RegExp]>([
    ["{", /expected JSON under smalti\.training/],
    ["null", /expected an object under smalti\.training in .*, got null/],
    ["[]", /expected an object/],
    ["{}", /done in .* whole number of at least 0, got none/],
    [JSON.stringify({ ...good, done: -1 }), /done in .*, got -1/],
    [JSON.stringify({ ...good, done: 1.5 }), /done in .*, got 1\.5/],
    [JSON.stringify({ ...good, done: "5" }), /done in .*, got "5"/],
    [JSON.stringify({ ...good, cursor: null }), /cursor\.epoch in .*, got none/],
    [JSON.stringify({ ...good, cursor: { epoch: 0, position: -3 } }), /cursor\.position in .*, got -3/],
    [JSON.stringify({ ...good, lists: 3 }), /lists\.history in .* 3 numbers, got none/],
    [JSON.stringify({ ...good, lists: { history: [1, 2] } }), /lists\.history in .* 3 numbers, got \[1,2\]/],
    [JSON.stringify({ ...good, lists: { history: [1, 2, "x"] } }), /lists\.history/],
    [JSON.stringify({ ...good, configuration: undefined }), /expected configuration\.model none as in/],
    [JSON.stringify({ ...good, configuration: { ...configuration, seed: 2 } }), /expected configuration\.seed 2 as in .*, got 1; use the configuration/],
    [JSON.stringify({ ...good, configuration: { ...configuration, model: { width: 8, sizes: [1, 3] } } }), /model\.sizes\.1 3 as in .*, got 2/],
    [JSON.stringify({ ...good, configuration: { ...configuration, optimiser: { clipNorm: 1 } } }), /optimiser\.clipNorm 1 as in .*, got none/],
  ])("with metadata %s is refused", async (text, message) => {
    await writeSafetensors(path, tensors, { [key]: text });
    await expectRefusal(message);
  }); // prettier-ignore

  it("of an older version comes back when the model is the same", async () => {
    const importance = progress.lists;
    const old = (model: unknown) => ({ [key]: JSON.stringify({ ...place, importance, model }) });
    await writeSafetensors(path, tensors, old({ width: 9, sizes: [1, 2] }));
    await expectRefusal(/expected configuration\.model\.width 9 as in .*, got 8/);
    await writeSafetensors(path, tensors, old(configuration.model));
    expect(await loadTrainingState(path, buffers, { configuration, lists })).toEqual(progress);
  });

  it("with other tensors is refused before the first one is restored", async () => {
    const metadata = { [key]: JSON.stringify(good) };
    await writeSafetensors(path, [tensors[0]!, ones("b", 2, 2)], metadata);
    await expectRefusal(/expected b as F32 \[4\] in .*, got F32 \[2, 2\]/);
    await writeSafetensors(path, [tensors[0]!, { name: "b", shape: [4], data: new Int32Array(4) }], metadata); // prettier-ignore
    await expectRefusal(/expected b as F32 \[4\] in .*, got I32 \[4\]/);
    await writeSafetensors(path, [tensors[0]!], metadata);
    await expectRefusal(/1 missing \(b\) and 0 unknown/);
    await writeSafetensors(path, tensors);
    await expectRefusal(/a file without one; was it written by smalti train/);
  });
});

it("a trainer keeps its configuration in the state and refuses another", async () => {
  const dataset = memoryDataset({
    name: "grey",
    width: 16,
    height: 16,
    channels: 3,
    pixels: new Uint8Array(2 * 768).fill(9),
  });
  const options = { model: tinyCodec, dataset, batchSize: 2, seed: 5 };
  const first = await AutoencoderTrainer.create(options);
  await first.save(path, 3);
  expect(await first.restore(path)).toBe(3);
  first.dispose();
  using file = await openSafetensors(path);
  expect(JSON.parse(file.metadata[key]!)).toMatchObject({ configuration: { seed: 5 } });
  const other = await AutoencoderTrainer.create({ ...options, seed: 6 });
  await expect(other.restore(path)).rejects.toThrow(/configuration\.seed 5 as in .*, got 6/);
  other.dispose();
});
