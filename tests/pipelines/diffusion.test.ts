// Diffusion pipelines of every system on tiny random weights: what they answer, and that it does not depend on how.
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ByteImage } from "../../lib/image/image-io.js";
import { decodeImage, readPngMetadata } from "../../lib/image/image-io.js";
import type { DiffusionPipeline } from "../../lib/pipelines/diffusion.js";
import type { DiffusionGenerateOptions } from "../../lib/pipelines/diffusion-options.js";
import { loadPipeline, savePipeline } from "../../lib/pipelines/load-pipeline.js";
import { samplerNames } from "../../lib/samplers/samplers.js";
import { configureBackend, describeBackends } from "../../lib/runtime/device.js";
import { leavesLoopFree } from "../runtime/loop-load.js";
import { tinyDiffusion, tinySystems } from "./tiny-diffusion.js";

type System = keyof typeof tinySystems;

const folders: string[] = [];
const pipes = {} as Record<System, DiffusionPipeline>;

beforeAll(async () => {
  for (const [name, system] of Object.entries(tinySystems)) {
    const folder = await tinyDiffusion(system);
    folders.push(folder);
    pipes[name as System] = await loadPipeline(folder, { kind: "diffusion" });
  }
});

afterAll(async () => {
  for (const pipe of Object.values(pipes)) pipe.dispose();
  for (const folder of folders) await rm(folder, { recursive: true });
});

const pixels = async (name: System, options: DiffusionGenerateOptions): Promise<Buffer[]> =>
  (await pipes[name].generate(options)).images.map(({ data }) => Buffer.from(data));

function image(side: number, seed = 1): ByteImage {
  const data = Uint8Array.from({ length: 3 * side * side }, (_, i) => (i * 37 * seed) % 256);
  return { width: side, height: side, data };
}

/** Something that each system can be asked for. */
const asked: Record<System, DiffusionGenerateOptions> = {
  dit: { class: [1, 3, 0], guidanceScale: 4 },
  sit: { class: ["a", "golden hamster", "4"], guidanceScale: 2, sampler: "flow-sde" },
  adm: { class: [0, 1, 2], sampler: "ddpm" },
  ddpm: { count: 3, eta: 1 },
  text: { prompt: ["a red heart", "a cat", "a"], negativePrompt: "cat", sampler: "unipc" },
  classes: { class: [0, 1, 2], sampler: "dpm-solver-2m" },
  diffusevae: { count: 3, guidanceScale: 2 },
  classVae: { class: [0, 1, 2] },
  fit: { class: [0, 1, 2], guidanceScale: 3 },
  upsampler: { image: [image(4, 1), image(4, 2), image(4, 3)] },
  classified: { class: [0, 1, 2], sampler: "ddpm" },
  divae: { image: [image(16, 1), image(16, 2), image(16, 3)], guidanceScale: 2 },
};

const systems = Object.keys(tinySystems) as System[];

describe("generate", () => {
  it.each(systems)(
    "%s: the same picture for the same seed, whatever the batch, the place in it, the threads",
    async (name) => {
      const pipe = pipes[name];
      const options = { ...asked[name], seed: 7 };
      const { images } = await pipe.generate(options);
      const { width, height } = pipe.imageSize;
      expect(images.map((image) => [image.width, image.height])).toEqual([[width, height], [width, height], [width, height]]); // prettier-ignore
      const together = images.map(({ data }) => Buffer.from(data));
      expect(together[0]).not.toEqual(together[1]);
      const threads = describeBackends().cpu!.threads;
      configureBackend({ threads: threads === 1 ? 2 : 1 });
      expect(await pixels(name, { ...options, batchSize: 1 })).toEqual(together);
      configureBackend({ threads });
      expect(await pixels(name, { ...options, batchSize: 2 })).toEqual(together);
      const { count, ...rest } = options;
      void count;
      const lists = Object.entries(rest).filter(([, value]) => Array.isArray(value));
      const alone = Object.fromEntries(lists.map(([key, value]) => [key, (value as unknown[])[1]]));
      expect(await pixels(name, { ...rest, ...alone, firstSample: 1 })).toEqual([together[1]]);
      expect(await pixels(name, { ...options, seed: 8 })).not.toEqual(together);
    },
  );

  it.each<[System, DiffusionGenerateOptions, DiffusionGenerateOptions]>([
    ["dit", { class: 1 }, { class: 2 }],
    ["dit", { class: 1 }, {}],
    ["dit", { class: 1, guidanceScale: 2 }, { class: 1, guidanceScale: 4 }],
    ["dit", { class: 1, guidanceScale: 4, guidanceChannels: 4 }, { class: 1, guidanceScale: 4 }],
    ["sit", { class: 1, guidanceScale: 2, guidanceInterval: [0, 0.3] }, { class: 1, guidanceScale: 2 }], // prettier-ignore
    ["adm", { class: 1 }, { class: 1, clamp: 0.9 }],
    ["adm", { class: 1 }, { class: 1, rederive: false }],
    ["ddpm", { steps: 3 }, { steps: 5 }],
    ["ddpm", { spacing: "trailing" }, { spacing: "karras" }],
    ["ddpm", {}, { temperature: 0.5 }],
    ["text", { prompt: "a" }, { prompt: "b" }],
    ["text", { prompt: "a" }, { prompt: "a", negativePrompt: "b" }],
    ["text", { prompt: "a" }, { prompt: "a", guidanceRescale: 0.7 }],
    ["classes", { class: 1 }, { class: 2 }],
    ["classes", { class: 1 }, {}],
    ["diffusevae", {}, { guidanceScale: 3 }],
    ["diffusevae", {}, { image: image(8) }],
    ["classVae", { class: 0 }, { class: 1 }],
    ["classified", { class: 0 }, { class: 1 }],
    ["classified", { class: 0, sampler: "ddpm" }, { class: 1, sampler: "ddpm" }],
    ["classified", { class: 0 }, { class: 0, classifierScale: 0 }],
    ["upsampler", { image: image(4, 1) }, { image: image(4, 2) }],
    ["divae", { image: image(16, 0) }, { image: image(16, 256 / 37 / 3) }],
    ["divae", { image: image(16, 1) }, { image: image(16, 1), guidanceScale: 3 }],
  ])("%s: what it is told changes the picture (%#)", async (name, one, other) => {
    expect(await pixels(name, one)).not.toEqual(await pixels(name, other));
  });

  it("draws with any sampler", async () => {
    for (const sampler of samplerNames) {
      const options = { sampler, steps: 3, class: 1 };
      const systems = sampler.startsWith("flow-") ? [pipes.sit] : [pipes.dit, pipes.sit];
      for (const pipe of systems) expect((await pipe.generate(options)).images).toHaveLength(1);
    }
  });

  it("needs no class where its classifier is off", async () => {
    const { images } = await pipes.classified.generate({ classifierScale: 0 });
    expect(images).toHaveLength(1);
  });

  it("makes pictures of another size where the network allows it", async () => {
    const { images } = await pipes.ddpm.generate({ size: { width: 16, height: 12 } });
    expect([images[0]!.width, images[0]!.height]).toEqual([16, 12]);
    const again = await pipes.ddpm.regenerate(images[0]!.metadata);
    expect(again.data).toEqual(images[0]!.data);
  });

  it("makes a saved picture again, bit for bit", async () => {
    const { images } = await pipes.text.generate({ ...asked.text, seed: 11, batchSize: 2, sampler: "dpm-solver-2m", samplerOptions: { solverType: "midpoint" }, clamp: false }); // prettier-ignore
    const path = join(folders[0]!, "picture.png");
    await images[1]!.save(path);
    const metadata = (await readPngMetadata(path))!;
    expect(metadata.settings).toMatchObject({ negativePrompt: "cat", sampler: "dpm-solver-2m" });
    const again = await pipes.text.regenerate(metadata);
    expect(Buffer.from(again.data)).toEqual(Buffer.from((await decodeImage(path)).data));
    const labelled = (await pipes.sit.generate({ class: "golden hamster", seed: 3 })).images[0]!;
    expect((await pipes.sit.regenerate(labelled.metadata)).data).toEqual(labelled.data);
  });

  it("streams steps, previews, warnings and the pictures", async () => {
    const types: string[] = [];
    const prompt = "a very long text of more words than fit";
    for await (const event of pipes.text.stream({ prompt, steps: 4, previewEvery: 2 })) {
      types.push(event.type);
      if (event.type === "preview") expect(event.images[0]!.data).toHaveLength(16 * 16 * 3);
    }
    expect(types).toEqual(["warning", "step", "step", "preview", "step", "step", "done"]);
  });

  it("stops when aborted, before the first step and between steps", async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const events: string[] = [];
    const stream = async (): Promise<void> => {
      for await (const event of pipes.dit.stream({ class: 1, steps: 4, signal })) {
        events.push(event.type);
        if (events.length === 2) controller.abort();
      }
    };
    await expect(stream()).rejects.toMatchObject({ code: "aborted" });
    expect(events).toEqual(["step", "step"]);
    await expect(pipes.adm.generate({ class: 1, signal })).rejects.toMatchObject({ code: "aborted" }); // prettier-ignore
  });

  it.each<[System, object, RegExp]>([
    ["dit", { clas: 1 }, /did you mean "class"/],
    ["dit", { style: "x" }, /expected options among .*"style"/],
    ["dit", { class: 9 }, /expected class to be one of 0, 1, 2, 3, 4, got 9/],
    ["sit", { class: "golden hamste" }, /did you mean "golden hamster"/],
    ["dit", { prompt: "x" }, /expected no prompt, which this model does not know/],
    ["dit", { negativePrompt: "x" }, /expected no negativePrompt/],
    ["dit", { sampler: "dpm-solver++-2m" }, /sampler to be one of ddpm/],
    ["dit", { sampler: "ddim", samplerOptions: { ega: 1 } }, /did you mean "eta"/],
    ["dit", { sampler: "heun", eta: 1 }, /heun: .*"eta"/],
    ["dit", { sampler: "flow-ode" }, /for a chain of timesteps, got "flow-ode"/],
    ["dit", { spacing: "even" }, /spacing: expected one of trailing/],
    ["dit", { steps: 41 }, /a count from 1 to 40, got 41/],
    ["dit", { clamp: true }, /clamp false of a model on latents/],
    ["dit", { guidanceChannels: 5 }, /guidanceChannels up to 4, got 5/],
    ["dit", { size: 32 }, /expected size 16 x 16, got 32 x 32/],
    ["dit", { image: { width: 1, height: 1, data: new Uint8Array(3) } }, /expected no image/],
    ["adm", {}, /expected a class from 0 to 2/],
    ["classVae", {}, /expected a class from 0 to 2/],
    ["classified", {}, /expected a class from 0 to 2/],
    ["adm", { class: 1, classifierScale: 1 }, /classifierScale 0 of a model without a classifier/],
    ["upsampler", {}, /expected an image, which this model starts from/],
    ["upsampler", { image: [image(4), image(2)] }, /expected pictures of 4 x 4, got 2 x 2/],
    ["divae", { image: image(8) }, /expected pictures of 16 x 16, got 8 x 8/],
    ["adm", { class: 1, guidanceScale: 2 }, /guidanceScale 1 of a model that knows no empty/],
    ["ddpm", { size: 7 }, /sides divisible by 2, got 7 x 7/],
    ["ddpm", { sampler: "ddpm", samplerOptions: { variance: "learned" } }, /a variance that the network has/], // prettier-ignore
    ["diffusevae", { image: { width: 4, height: 4, data: new Uint8Array(48) } }, /pictures of 8 x 8, got 4 x 4/], // prettier-ignore
  ])("%s refuses what it cannot do (%#)", async (name, options, message) => {
    await expect(pipes[name].generate(options)).rejects.toThrow(message);
  });

  it("keeps the event loop free", async () => {
    const options = { class: 1, count: 16, batchSize: 8, steps: 8 };
    await pipes.dit.generate(options); // compile
    expect(await leavesLoopFree(() => pipes.dit.generate(options))).toBe(true);
  });
});

describe("reconstruct", () => {
  it("goes through the first stage, or the VAE and its refiner", async () => {
    const [latent] = await pipes.dit.reconstruct([image(16)]);
    expect(latent!.data).toHaveLength(16 * 16 * 3);
    const [refined] = await pipes.diffusevae.reconstruct([image(8)], { seed: 1 });
    const [other] = await pipes.diffusevae.reconstruct([image(8)], { seed: 2 });
    expect(refined!.data).toHaveLength(8 * 8 * 3);
    expect(refined!.data).not.toEqual(other!.data);
    const [decoded] = await pipes.divae.reconstruct([image(16)], { seed: 1 });
    expect(decoded!.data).toHaveLength(16 * 16 * 3);
    await expect(pipes.ddpm.reconstruct([image(8)])).rejects.toThrow(/a first stage/);
    await expect(pipes.dit.reconstruct([image(16), image(8)])).rejects.toThrow(/of 16 x 16/);
    await expect(pipes.dit.reconstruct([image(16)], { batchSize: 0 })).rejects.toThrow(/batchSize from 1/); // prettier-ignore
    await expect(pipes.dit.reconstruct([image(16)], { batch: 1 } as object)).rejects.toThrow(/got "batch"/); // prettier-ignore
  });
});

describe("savePipeline", () => {
  it("writes what loadPipeline reads", async () => {
    const copy = `${folders[0]!}-copy`;
    folders.push(copy);
    await savePipeline(pipes.diffusevae, copy);
    using again = await loadPipeline(copy);
    expect(again.kind).toBe("diffusion");
    await expect(loadPipeline(copy, { kind: "vq-diffusion" })).rejects.toThrow(/of kind vq-diffusion, got kind "diffusion"/); // prettier-ignore
    expect((await again.generate({ seed: 1 })).images).toHaveLength(1);
  });
});
