// `smalti sample`: pictures from a prompt.
import { dirname, resolve } from "node:path";
import { Command, Option } from "commander";
import { DiffusionError } from "../errors.js";
import { isFolder, makeFolder } from "../files/atomic-write.js";
import type { GenerateOptions } from "../pipelines/generate-options.js";
import { loadPipeline } from "../pipelines/vq-diffusion-folder.js";
import {
  applyCommonOptions,
  realNumber,
  wholeNumber,
  withCommonOptions,
  type CommonOptions,
} from "./options.js";
import { interruptSignal, progress, result, say } from "./terminal.js";

interface SampleOptions extends CommonOptions {
  model: string;
  out: string;
  style?: string;
  category?: string;
  class?: string;
  count: number;
  steps?: number;
  guidance?: number;
  truncation?: number;
  temperature?: number;
  sampler?: "exact" | "released" | "purity";
}

/** The options of `generate` that were given; the rest are the pipeline's defaults. */
function generateOptions(prompt: string, o: SampleOptions): GenerateOptions {
  return {
    prompt,
    count: o.count,
    seed: o.seed,
    ...(o.style !== undefined && { style: o.style }),
    ...(o.category !== undefined && { category: o.category }),
    ...(o.class !== undefined && { class: o.class }),
    ...(o.steps !== undefined && { steps: o.steps }),
    ...(o.guidance !== undefined && { guidanceScale: o.guidance }),
    ...(o.truncation !== undefined && { truncation: o.truncation }),
    ...(o.temperature !== undefined && { temperature: o.temperature }),
    ...(o.sampler !== undefined && { sampler: o.sampler }),
  };
}

const numbered = (path: string, i: number, count: number): string =>
  count === 1 ? path : path.replace(/(\.png)?$/i, `-${i + 1}.png`);

/** Fails before the sampling when the files cannot be written after it. */
async function checkOutput(files: readonly string[]): Promise<void> {
  await makeFolder(dirname(resolve(files[0]!)), "sample");
  for (const file of files)
    if (await isFolder(file))
      throw new DiffusionError(
        "data",
        `sample: expected --out to name a file, got the folder "${file}"; name a file in it`,
      );
}

export const sample = withCommonOptions(new Command("sample"))
  .summary("pictures from a prompt, of a class, or of anything")
  .description("Make pictures from a prompt, of a class, or of what the model chooses.")
  .argument("[prompt]", "what to show; empty for an unconditional sample", "")
  .option("--model <name>", "name or folder of a pipeline", "emoji-64")
  .option("--out <file>", "PNG to write (numbered when --count > 1)", "sample.png")
  .option("--style <name>", "style condition")
  .option("--category <name>", "category condition")
  .option("--class <name>", "class, of a class-conditional model")
  .addOption(
    new Option("--count <n>", "number of pictures").argParser(wholeNumber(1, 1024)).default(1),
  )
  .addOption(new Option("--steps <n>", "network evaluations").argParser(wholeNumber(1, 1000)))
  .addOption(new Option("--guidance <s>", "guidance scale, 1 = off").argParser(realNumber(0, 100)))
  .addOption(
    new Option("--truncation <r>", "keep classes up to this mass, 1 = off").argParser(
      realNumber(0, 1),
    ),
  )
  .addOption(
    new Option("--temperature <t>", "below 1: safer, above: wilder").argParser(
      realNumber(0.01, 10),
    ),
  )
  .addOption(
    new Option("--sampler <name>", "reverse chain").choices(["exact", "released", "purity"]),
  )
  .action(async (prompt: string, options: SampleOptions) => {
    applyCommonOptions(options);
    const signal = interruptSignal("stopping; nothing is written");
    using pipe = await loadPipeline(options.model);
    const files = Array.from({ length: options.count }, (_, i) =>
      numbered(options.out, i, options.count),
    );
    await checkOutput(files);
    let bar: ReturnType<typeof progress> | undefined;
    const { images } = await pipe.generate({
      ...generateOptions(prompt, options),
      signal,
      onWarning: (message) => say(`warning: ${message}`),
      onProgress: ({ step, steps }) => (bar ??= progress("sample", steps)).update(step),
    });
    bar?.stop();
    await Promise.all(images.map((image, i) => image.save(files[i]!)));
    result(
      { files, metadata: images.map((image) => image.metadata) },
      files.join("\n"),
      options.json,
    );
  });
