// `smalti sample`: pictures from a prompt, of a class, or of anything.
import { dirname, resolve } from "node:path";
import { Command, Option } from "commander";
import { DiffusionError } from "../errors.js";
import { inFolder, isFolder } from "../files/atomic-write.js";
import { decodeImage } from "../image/image-io.js";
import { loadPipeline } from "../pipelines/load-pipeline.js";
import type { Quantize } from "../runtime/program.js";
import {
  applyCommonOptions,
  collectNamed,
  realNumber,
  wholeNumber,
  withCommonOptions,
  type CommonOptions,
} from "./options.js";
import { interruptSignal, progress, result, say } from "./terminal.js";

interface SampleOptions extends CommonOptions {
  model: string;
  out: string;
  count: number;
  style?: string;
  category?: string;
  class?: string;
  negative?: string;
  steps?: number;
  guidance?: number;
  truncation?: number;
  temperature?: number;
  sampler?: string;
  spacing?: string;
  eta?: number;
  size?: number;
  image?: string;
  mask?: string;
  quantize?: string;
  set: Record<string, unknown>;
}

/** Options of the command by the names that `generate` has for them. */
const names = {
  ...{ style: "style", category: "category", class: "class", negative: "negativePrompt" },
  ...{ steps: "steps", guidance: "guidanceScale", truncation: "truncation", size: "size" },
  ...{ temperature: "temperature", sampler: "sampler", spacing: "spacing", eta: "eta" },
} as const satisfies Partial<Record<keyof SampleOptions, string>>;

/** One byte a pixel, 1 where a picture is nearer to white than to black. */
async function readMask(file: string): Promise<Uint8Array> {
  const { width, height, data } = await decodeImage(file);
  const isWhite = (i: number): boolean => data[i]! + data[i + 1]! + data[i + 2]! > 1.5 * 255;
  return Uint8Array.from({ length: width * height }, (_, i) => Number(isWhite(3 * i)));
}

/** What was asked for; the pipeline checks it and has defaults for the rest. */
async function asked(prompt: string, o: SampleOptions): Promise<Record<string, unknown>> {
  const given = Object.entries(names).flatMap(([option, name]) => {
    const value = o[option as keyof typeof names];
    return value === undefined ? [] : [[name, value] as const];
  });
  return {
    ...o.set,
    ...{ prompt, count: o.count, seed: o.seed },
    ...Object.fromEntries(given),
    ...(o.image !== undefined && { image: await decodeImage(o.image) }),
    ...(o.mask !== undefined && { mask: await readMask(o.mask) }),
  };
}

const numbered = (path: string, i: number, count: number): string =>
  count === 1 ? path : path.replace(/(\.png)?$/i, `-${i + 1}.png`);

/** Fails before the sampling where a folder has the name of a file. */
async function checkOutput(files: readonly string[]): Promise<void> {
  for (const file of files)
    if (await isFolder(file))
      throw new DiffusionError(
        "data",
        `sample: expected --out to name a file, got the folder "${file}"; name a file in it`,
      );
}

export const sample = withCommonOptions(new Command("sample"))
  .summary("pictures from a prompt, of a class, or of anything")
  .argument("[prompt]", "what to make pictures of (default: a class, or anything)")
  .option("--model <name>", "name or folder of a pipeline", "emoji-64")
  .option("--out <file>", "PNG to write, numbered if several", "sample.png")
  .option("--style <name>", "style condition")
  .option("--category <name>", "category condition")
  .option("--class <name>", "class by name or number")
  .option("--negative <text>", "what guidance leads away from")
  .addOption(
    new Option("--count <n>", "number of pictures").argParser(wholeNumber(1, 1024)).default(1),
  )
  .addOption(new Option("--steps <n>", "levels of noise").argParser(wholeNumber(1, 100_000)))
  .addOption(
    new Option("--guidance <s>", "guidance scale, 1 = off").argParser(realNumber(-100, 100)),
  )
  .addOption(
    new Option("--truncation <r>", "keep codes up to this mass, 1 = off").argParser(
      realNumber(0, 1),
    ),
  )
  .addOption(
    new Option("--temperature <t>", "below 1: safer, above: wilder").argParser(realNumber(0, 100)),
  )
  .option("--sampler <name>", "e.g. exact, purity; ddim, dpm-solver-2m, flow-ode")
  .option("--spacing <name>", "timesteps visited, e.g. trailing, karras")
  .addOption(new Option("--eta <x>", "share of fresh noise").argParser(realNumber(0, 100)))
  .addOption(new Option("--size <n>", "side in pixels").argParser(wholeNumber(1, 65536)))
  .option("--image <file>", "picture to refine, enlarge, decode or change")
  .option("--mask <file>", "picture of its size: white is made anew, black stays")
  .option("--quantize <type>", "int8, int8-weights or f16-weights")
  .addOption(
    new Option("--set <name=value>", "any other option of generate (repeatable)")
      .argParser(collectNamed)
      .default({}, "none"),
  )
  .action(async (prompt = "", options: SampleOptions) => {
    applyCommonOptions(options);
    const signal = interruptSignal("stopping; nothing is written");
    const quantize = options.quantize as Quantize | undefined; // checked there
    using pipe = await loadPipeline(options.model, { quantize });
    const files = Array.from({ length: options.count }, (_, i) =>
      numbered(options.out, i, options.count),
    );
    await checkOutput(files);
    const images = await inFolder(dirname(resolve(files[0]!)), "sample", async () => {
      const bar = progress("sample");
      const given = {
        ...(await asked(prompt, options)),
        signal,
        onWarning: (message: string) => say(`warning: ${message}`),
        onProgress: ({ step, steps }: { step: number; steps: number }) => bar.update(step, steps),
      };
      const made = await pipe.generate(given as object);
      bar.stop();
      await Promise.all(made.images.map((image, i) => image.save(files[i]!)));
      return made.images;
    });
    result(
      { files, metadata: images.map((image) => image.metadata) },
      files.join("\n"),
      options.json,
    );
  });
