// `smalti demo`: the main job on the weights in the package: reconstruct, generate, inpaint.
import { join, resolve } from "node:path";
import { Command } from "commander";
import { makeFolder } from "../files/atomic-write.js";
import { contactSheet, sideBySide } from "../image/grid.js";
import { decodeImage, writePng, type ByteImage } from "../image/image-io.js";
import { heldOutImages } from "../pipelines/pipeline.js";
import type { VqDiffusionPipeline } from "../pipelines/vq-diffusion.js";
import { loadPipeline } from "../pipelines/load-pipeline.js";
import { applyCommonOptions, withCommonOptions, type CommonOptions } from "./options.js";
import { interruptSignal, progress, result, say } from "./terminal.js";

const captions = [
  "red heart",
  "grinning face",
  "red apple",
  "cat face",
  "full moon",
  "blue circle",
  "umbrella",
  "rocket",
];

interface DemoOptions extends CommonOptions {
  model: string;
  out: string;
}

interface DemoResult {
  name: string;
  path: string;
  images: number;
  secondsPerImage: number;
}

type Stage = (
  pipe: VqDiffusionPipeline,
  options: DemoOptions,
  signal: AbortSignal,
) => Promise<DemoResult>;

/** Saves the sheet of a stage and reports its time. */
async function finish(
  name: string,
  options: DemoOptions,
  sheet: ByteImage,
  images: number,
  start: number,
): Promise<DemoResult> {
  const secondsPerImage = (performance.now() - start) / 1000 / images;
  const path = resolve(join(options.out, `${name}.png`));
  await writePng(path, sheet);
  return { name, path, images, secondsPerImage };
}

const reconstruction: Stage = async (pipe, options, signal) => {
  const files = await heldOutImages(pipe.folder);
  const before = await Promise.all(
    files.map((file) => decodeImage(file, { size: pipe.imageSize })),
  );
  const bar = progress("reconstruct");
  const start = performance.now();
  const after = await pipe.reconstruct(before, { signal, onProgress: bar.update });
  bar.stop();
  const sheet = await contactSheet(
    await Promise.all(before.map((image, i) => sideBySide(image, after[i]!, { zoom: 2 }))),
    { columns: 4, captions: before.map(() => "before | tokens -> after") },
  );
  return finish("reconstruction", options, sheet, before.length, start);
};

const generation: Stage = async (pipe, options, signal) => {
  const jobs = captions.flatMap((prompt) => pipe.styles.map((style) => ({ prompt, style })));
  const start = performance.now();
  const bar = progress("generate");
  const { images } = await pipe.generate({
    prompt: jobs.map((job) => job.prompt),
    style: jobs.map((job) => job.style),
    seed: options.seed,
    signal,
    onProgress: ({ step, steps }) => bar.update(step, steps),
  });
  bar.stop();
  const sheet = await contactSheet(images, {
    columns: 2 * pipe.styles.length, // two captions a row
    zoom: 2,
    captions: jobs.map(({ prompt, style }) => `${prompt} (${style})`),
  });
  return finish("generation", options, sheet, images.length, start);
};

/** A mask that is 1 (make anew) in the right half of a picture. */
function rightHalf(size: number): Uint8Array {
  return Uint8Array.from({ length: size * size }, (_, i) => (i % size >= size / 2 ? 1 : 0));
}

const inpainting: Stage = async (pipe, options, signal) => {
  const image = await decodeImage((await heldOutImages(pipe.folder))[0]!, { size: pipe.imageSize });
  const mask = rightHalf(pipe.imageSize);
  const shown = { ...image, data: image.data.map((v, i) => (mask[Math.floor(i / 3)] ? 160 : v)) };
  const start = performance.now();
  const bar = progress("inpaint");
  const { images } = await pipe.generate({
    image,
    mask,
    count: 4,
    seed: options.seed,
    signal,
    onProgress: ({ step, steps }) => bar.update(step, steps),
  });
  bar.stop();
  const sheet = await contactSheet([image, shown, ...images], {
    columns: 6,
    zoom: 2,
    captions: ["original", "masked", ...images.map((_, i) => `filled ${i + 1}`)],
  });
  return finish("inpainting", options, sheet, images.length, start);
};

export const demo = withCommonOptions(new Command("demo"))
  .summary("three sheets of pictures with the packaged model")
  .description(
    "Make three sheets of pictures with the model in the package: reconstruction, generation, inpainting.",
  )
  .option("--model <name>", "name or folder of a pipeline", "emoji-64")
  .option("--out <folder>", "where the pictures go", "demo-output")
  .action(async (options: DemoOptions) => {
    applyCommonOptions(options);
    const signal = interruptSignal("stopping the demo");
    await makeFolder(options.out, "demo");
    const started = performance.now();
    using pipe = await loadPipeline(options.model, { kind: "vq-diffusion" });
    const results: DemoResult[] = [];
    for (const stage of [reconstruction, generation, inpainting])
      results.push(await stage(pipe, options, signal));
    const seconds = (performance.now() - started) / 1000;
    const lines = results.map(
      ({ name, path, images, secondsPerImage }) =>
        `${name.padEnd(15)} ${path}  (${images} pictures, ${secondsPerImage.toFixed(2)} s each)`,
    );
    result({ results, seconds }, lines.join("\n"), options.json);
    say(
      `\ndone in ${seconds.toFixed(1)} s. Next:\n  npx smalti sample "a christmas tree" --style ${pipe.styles[0]} --out tree.png\n  npx smalti --help`,
    );
  });
