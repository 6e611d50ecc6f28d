// `smalti reconstruct`: an image through the tokenizer and back.
import { Command } from "commander";
import { decodeImage, writePng } from "../image/image-io.js";
import { sideBySide } from "../image/grid.js";
import { psnr } from "../metrics/psnr.js";
import { openReconstructor } from "../pipelines/reconstructor.js";
import { applyCommonOptions, withCommonOptions, type ProcessOptions } from "./options.js";
import { result } from "./terminal.js";

interface ReconstructOptions extends ProcessOptions {
  model: string;
  out: string;
}

export const reconstruct = withCommonOptions(new Command("reconstruct"), {
  seed: "nothing is drawn",
})
  .summary("an image through the tokenizer or autoencoder and back")
  .description(
    "Encode an image to tokens or latents and decode it again; writes both side by side.",
  )
  .argument("<image>", "image file")
  .option("--model <name>", "name or folder of a pipeline, tokenizer, autoencoder, VAE", "emoji-64")
  .option("--out <file>", "PNG to write", "reconstruction.png")
  .action(async (file: string, options: ReconstructOptions) => {
    applyCommonOptions(options);
    const codec = await openReconstructor(options.model);
    try {
      const before = await decodeImage(file, { size: codec.imageSize });
      const [after] = await codec.reconstruct([before]);
      await writePng(options.out, await sideBySide(before, after!, { zoom: 4 }));
      const decibels = psnr(before.data, after!.data);
      result(
        { file: options.out, psnr: decibels },
        `${options.out}  PSNR ${decibels.toFixed(2)} dB`,
        options.json,
      );
    } finally {
      codec.dispose();
    }
  });
