// Weights of a folder stay in their file: the same pictures, whatever happens to the folder meanwhile.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";
import { writeSafetensors } from "../../lib/checkpoint/safetensors.js";
import { loadWeights, saveWeights } from "../../lib/checkpoint/weights.js";
import { loadPipeline, savePipeline } from "../../lib/pipelines/load-pipeline.js";
import { openWeightBuffers, readBuffers } from "../../lib/pipelines/weight-buffers.js";
import { Buffer as CoreBuffer } from "../../lib/runtime/buffer.js";
import { tinyPipeline } from "./tiny.js";
import { tinyDiffusion, tinySystems } from "./tiny-diffusion.js";

const folders: string[] = [];
const kept = (folder: string): string => (folders.push(folder), folder);

afterEach(() => vi.restoreAllMocks());
afterAll(async () => {
  for (const folder of folders) await rm(folder, { recursive: true });
});

const specs = [
  { name: "a", shape: [3, 5], init: { kind: "zeros" } },
  { name: "b", shape: [4], init: { kind: "zeros" } },
] as const;
const values = new Map([
  ["b", Float32Array.of(-1, 2 ** -20, 65504, 0.1)],
  ["a", Float32Array.from({ length: 15 }, (_, i) => Math.sin(i))],
]);

describe("weights of a file", () => {
  it.each(["f32", "f16", "bf16"] as const)(
    "are not read before they are used: %s",
    async (dtype) => {
      const path = join(kept(await mkdtemp(join(tmpdir(), "smalti-weights-"))), "w.safetensors");
      await saveWeights(path, specs, values, dtype);
      const copied = vi.spyOn(CoreBuffer, "fromArray");
      const buffers = await openWeightBuffers(path, specs);
      expect(copied).not.toHaveBeenCalled();
      expect(readBuffers(buffers)).toEqual(await loadWeights(path, specs));
    },
  );

  it("are converted when the core does not read their type", async () => {
    const path = join(kept(await mkdtemp(join(tmpdir(), "smalti-weights-"))), "w.safetensors");
    const tensors = specs.map(({ name, shape }) => ({
      ...{ name, shape },
      data: Float64Array.from(values.get(name)!),
    }));
    await writeSafetensors(path, tensors);
    expect(readBuffers(await openWeightBuffers(path, specs))).toEqual(values);
  });

  it("are refused with what is missing or unused", async () => {
    const path = join(kept(await mkdtemp(join(tmpdir(), "smalti-weights-"))), "w.safetensors");
    await saveWeights(path, specs, values);
    const other = [specs[0], { ...specs[1], name: "c" }];
    await expect(openWeightBuffers(path, other)).rejects.toThrow(/missing c.*unused b/s);
  });
});

describe("a pipeline whose folder changes", () => {
  it.each([
    ["vq-diffusion", () => tinyPipeline()],
    ["diffusion", () => tinyDiffusion(tinySystems.text)],
  ])("goes on with the weights that it opened: %s", async (_, make) => {
    const folder = kept(await make());
    const copied = vi.spyOn(CoreBuffer, "fromArray");
    using before = await loadPipeline(folder);
    expect(copied).not.toHaveBeenCalled();
    const pictures = async (batchSize: number) =>
      (await before.generate({ prompt: "a", count: 3, seed: 4, batchSize })).images.map(({ data }) => data); // prettier-ignore
    const first = await pictures(1);
    await savePipeline(before, folder); // to the files that it has open
    expect(await pictures(2)).toEqual(first);
    await rm(folder, { recursive: true });
    expect(await pictures(3)).toEqual(first);
    await savePipeline(before, folder);
    expect((await readFile(join(folder, "pipeline.json"))).length).toBeGreaterThan(100);
  });

  it("says which file was cut short", async () => {
    const folder = kept(await tinyPipeline());
    using pipe = await loadPipeline(folder);
    const path = join(folder, "model.safetensors");
    await writeFile(path, (await readFile(path)).subarray(0, 20_000));
    await expect(pipe.generate({ prompt: "a" })).rejects.toMatchObject({
      code: "checkpoint",
      message: expect.stringMatching(/model\.safetensors: .*changed meanwhile/),
    });
  });
});
