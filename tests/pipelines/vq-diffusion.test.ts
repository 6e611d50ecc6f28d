import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeImage, readPngMetadata } from "../../lib/image/image-io.js";
import type { VqDiffusionPipeline } from "../../lib/pipelines/vq-diffusion.js";
import { loadPipeline, savePipeline } from "../../lib/pipelines/load-pipeline.js";
import { configureBackend, describeBackends } from "../../lib/runtime/device.js";
import { computeFor, holdsLoopUp, leavesLoopFree, waitFor } from "../runtime/loop-load.js";
import { tinyPipeline } from "./tiny.js";

let folder: string;
let pipe: VqDiffusionPipeline;

beforeAll(async () => {
  folder = await tinyPipeline();
  pipe = await loadPipeline(folder, { kind: "vq-diffusion" });
});

afterAll(async () => {
  pipe.dispose();
  await rm(folder, { recursive: true });
});

const pixels = async (options: Parameters<VqDiffusionPipeline["generate"]>[0]): Promise<Buffer[]> =>
  (await pipe.generate(options)).images.map((image) => Buffer.from(image.data));

describe("generate", () => {
  it("gives the same picture for the same seed and another for another seed", async () => {
    const [a] = await pixels({ prompt: "a red heart", seed: 7 });
    const [b] = await pixels({ prompt: "a red heart", seed: 7 });
    const [c] = await pixels({ prompt: "a red heart", seed: 8 });
    expect(a).toEqual(b);
    expect(a).not.toEqual(c);
  });

  it("does not depend on batch size or position in the batch", async () => {
    const options = { prompt: ["a red heart", "a blue cat", "red cat"], seed: 3 };
    const together = await pixels({ ...options, batchSize: 3 });
    const apart = await pixels({ ...options, batchSize: 1 });
    const two = await pixels({ ...options, batchSize: 2 });
    expect(apart).toEqual(together);
    expect(two).toEqual(together);
  });

  it("does not depend on the number of threads", async () => {
    const threads = describeBackends().cpu!.threads;
    const many = await pixels({ prompt: "a red heart", seed: 5, count: 2 });
    configureBackend({ threads: 1 });
    const one = await pixels({ prompt: "a red heart", seed: 5, count: 2 });
    configureBackend({ threads: 3 });
    const three = await pixels({ prompt: "a red heart", seed: 5, count: 2 });
    configureBackend({ threads });
    expect(one).toEqual(many);
    expect(three).toEqual(many);
  });

  it.each(["exact", "released", "purity"] as const)(
    "finishes with clean tokens: %s",
    async (sampler) => {
      const { images } = await pipe.generate({ prompt: "a red heart", sampler, seed: 1 });
      expect(images[0]!.data).toHaveLength(16 * 16 * 3);
    },
  );

  it("keeps the tokens outside the mask", async () => {
    const image = (await pipe.decode(Int32Array.from({ length: 16 }, (_, i) => i)))[0]!;
    const known = await pipe.encode([image]);
    const mask = Uint8Array.from({ length: 256 }, (_, i) => (i % 16 >= 8 ? 1 : 0));
    const { images } = await pipe.generate({ image, mask, seed: 2 });
    const expected = await pipe.decode(known);
    expect(images[0]!.width).toBe(expected[0]!.width);
    const kept = [...known].map((id, i) => (i % 4 >= 2 ? -1 : id));
    const { metadata } = images[0]!;
    expect(metadata.settings).toMatchObject({ known: kept });
    expect((await pipe.generate({ known: kept, seed: 2 })).images[0]!.data).toEqual(
      images[0]!.data,
    );
    expect((await pipe.regenerate(metadata)).data).toEqual(images[0]!.data);
    for (const [wrong, message] of [
      [{ known: [1, 2] }, /known of 16 tokens .*, got 2/],
      [{ known: kept.map(() => 1000) }, /known token ids from -1 to \d+, got 1000/],
      [{ known: kept, image, mask }, /or known alone, got image and mask and known/],
      [{ known: kept.map(() => 0.5) }, /each a whole number from -1 to/],
    ] as const)
      await expect(pipe.generate(wrong)).rejects.toThrow(message);
  });

  it("makes a saved picture again, bit for bit", async () => {
    const { images } = await pipe.generate({
      prompt: ["a blue cat", "a red heart"],
      style: "fancy",
      seed: 11,
      batchSize: 2,
    });
    const path = join(folder, "picture.png");
    await images[1]!.save(path);
    const again = await pipe.regenerate((await readPngMetadata(path))!);
    expect(Buffer.from(again.data)).toEqual(Buffer.from((await decodeImage(path)).data));
  });

  it("streams steps, previews and the pictures", async () => {
    const types: string[] = [];
    for await (const event of pipe.stream({ prompt: "a zzz", steps: 4, previewEvery: 2 }))
      types.push(event.type);
    expect(types).toEqual(["warning", "step", "step", "preview", "step", "step", "done"]);
  });

  it("stops before a preview whose signal fired", async () => {
    const controller = new AbortController();
    const events: string[] = [];
    const stream = async (): Promise<void> => {
      const { signal } = controller;
      for await (const event of pipe.stream({ prompt: "red", steps: 4, previewEvery: 2, signal })) {
        events.push(event.type);
        if (event.type === "step" && event.step === 2) controller.abort();
      }
    };
    await expect(stream()).rejects.toMatchObject({ code: "aborted" });
    expect(events).toEqual(["step", "step"]);
  });

  it("warns of unknown words", async () => {
    const warnings: string[] = [];
    await pipe.generate({ prompt: "a reed heart", onWarning: (message) => warnings.push(message) });
    expect(warnings).toEqual([expect.stringContaining('"reed"')]);
    expect(warnings[0]).toContain('"red"');
  });

  it("stops when aborted", async () => {
    const controller = new AbortController();
    const running = pipe.generate({
      prompt: "a red heart",
      count: 8,
      steps: 12,
      signal: controller.signal,
    });
    controller.abort();
    await expect(running).rejects.toMatchObject({ code: "aborted" });
  });

  it.each([
    [{ promt: "x" }, /did you mean "prompt"/],
    [{ style: "fancie" }, /did you mean "fancy"/],
    [{ truncation: 2 }, /truncation from 0 to 1, got 2/],
    [{ steps: 99 }, /steps from 1 to 12, got 99/],
    [{ mask: new Uint8Array(256) }, /image and mask together/],
    [{ prompt: ["a", "b"], style: ["plain"] }, /one for each of 2 prompts/],
  ])("rejects %o", async (options, message) => {
    await expect(pipe.generate(options as never)).rejects.toThrow(message);
  });

  it("keeps the event loop free", async () => {
    await pipe.generate({ prompt: "a red heart", count: 8, batchSize: 8 }); // compile
    const options = { prompt: "a red heart", count: 64, batchSize: 8, steps: 12 };
    expect(await leavesLoopFree(() => pipe.generate(options))).toBe(true);
    for (const block of [computeFor, waitFor]) {
      const held = { ...options, count: 16, onProgress: () => block(15) };
      expect(await holdsLoopUp(() => pipe.generate(held))).toBe(true); // it would show
    }
  });
});

describe("tokens", () => {
  it("round-trips ids through decode and encode shapes", async () => {
    const [image] = await pipe.decode(new Int32Array(16));
    expect((await pipe.encode([image!])).length).toBe(16);
  });

  it("rejects ids out of range and wrong counts", async () => {
    await expect(pipe.decode(new Int32Array(16).fill(20))).rejects.toThrow(/from 0 to 19, got 20/);
    await expect(pipe.decode(new Int32Array(5))).rejects.toThrow(/multiple of 16 tokens/);
  });
});

describe("savePipeline", () => {
  it("writes what loadPipeline reads", async () => {
    const copy = `${folder}-copy`;
    await savePipeline(pipe, copy);
    using again = await loadPipeline(copy, { device: "cpu", kind: "vq-diffusion" });
    expect(again.name).toBe(pipe.name);
    const options = { prompt: "a red heart", steps: 2 };
    const [before, after] = [await pipe.generate(options), await again.generate(options)];
    expect(after.images[0]!.data).toEqual(before.images[0]!.data);
    await rm(copy, { recursive: true });
  });
});

describe("loadPipeline", () => {
  it.each([
    ["cuda", 'got "cuda"; cuda: this version has no CUDA backend'],
    ["gpu", 'got "gpu"'],
    [3, "got 3"],
  ])("refuses device %j", async (device, end) => {
    const expected = `loadPipeline: expected device "auto" or "cpu", ${end}`;
    await expect(loadPipeline(folder, { device: device as "cpu" })).rejects.toMatchObject({
      code: "device",
      message: expected,
    });
  });

  it("names the nearest packaged pipeline", async () => {
    await expect(loadPipeline("emoji-46")).rejects.toThrow(/loadPipeline: expected a folder/);
  });

  it("lists what is wrong with weights", async () => {
    const broken = await tinyPipeline();
    const path = join(broken, "model.safetensors");
    const bytes = await readFile(path);
    await writeFile(path, bytes.subarray(0, bytes.length - 100));
    await expect(loadPipeline(broken)).rejects.toMatchObject({ code: "checkpoint" });
    const file = JSON.parse(await readFile(join(broken, "pipeline.json"), "utf8")) as {
      components: { model: { config: { transformer: { width: number } } } };
    };
    file.components.model.config.transformer.width = 48;
    await writeFile(join(broken, "pipeline.json"), JSON.stringify(file));
    await writeFile(path, bytes);
    await expect(loadPipeline(broken)).rejects.toThrow(/differences[\s\S]*expected \[\d+, 48\]/);
    await rm(broken, { recursive: true });
  });
});
