// `smalti repro`: makes a picture again from the settings it carries and says whether a bit differs.
import { Command } from "commander";
import { DiffusionError } from "../errors.js";
import { decodeImage, readPngMetadata, type GenerationMetadata } from "../image/image-io.js";
import { loadPipeline } from "../pipelines/load-pipeline.js";
import type { Quantize } from "../runtime/program.js";
import { applyCommonOptions, withCommonOptions, type ProcessOptions } from "./options.js";
import { exitCodes, interruptSignal, result } from "./terminal.js";

interface ReproOptions extends ProcessOptions {
  out?: string;
  model?: string;
}

/** The pipeline asked for, or the one that the picture names, which may be a folder of another machine. */
async function openPipeline(asked: string | undefined, { model, settings }: GenerationMetadata) {
  const options = { quantize: settings?.["quantize"] as Quantize | undefined }; // checked there
  if (asked !== undefined) return loadPipeline(asked, options);
  try {
    return await loadPipeline(model, options);
  } catch (cause) {
    if (!(cause instanceof DiffusionError) || cause.code !== "checkpoint") throw cause;
    throw new DiffusionError(
      cause.code,
      `repro: expected the pipeline that the picture names, got ${cause.message}; give the folder of the pipeline with --model`,
      { cause },
    );
  }
}

export const repro = withCommonOptions(new Command("repro"), { seed: "the picture names its own" })
  .summary("make a picture again and compare every byte")
  .description("Make a picture again from the settings stored in its PNG and compare every byte.")
  .argument("<image>", "PNG written by smalti")
  .option("--model <name>", "use this pipeline instead of the one that the picture names")
  .option("--out <file>", "also write the new picture")
  .action(async (file: string, options: ReproOptions) => {
    applyCommonOptions(options);
    const metadata = await readPngMetadata(file);
    if (!metadata) {
      throw new DiffusionError(
        "data",
        `repro: expected a PNG with smalti settings, got ${file} without; only pictures saved by smalti can be made again`,
      );
    }
    using pipe = await openPipeline(options.model, metadata);
    const image = await pipe.regenerate(metadata, { signal: interruptSignal("stopping") });
    if (options.out) await image.save(options.out);
    const old = await decodeImage(file);
    const differing = image.data.reduce((n, v, i) => n + (v === old.data[i] ? 0 : 1), 0);
    const identical = differing === 0 && image.data.length === old.data.length;
    if (!identical) process.exitCode = exitCodes.failure;
    const text = identical
      ? "identical: every byte is the same"
      : `different: ${differing} of ${image.data.length} bytes`;
    result({ identical, differing, bytes: image.data.length, metadata }, text, options.json);
  });
