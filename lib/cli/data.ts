// `smalti data`: builds data sets in the cache folder.
import { Command } from "commander";
import { buildEmojiDataset } from "../data/emoji.js";
import { wholeNumber, withCommonOptions, type ProcessOptions } from "./options.js";
import { interruptSignal, progress, result } from "./terminal.js";

interface EmojiOptions extends ProcessOptions {
  cache?: string;
  size: number;
}

const ineffective = {
  seed: "which emoji are held out follows from their names",
  threads: "the pictures are decoded one after the other",
};

const emoji = withCommonOptions(new Command("emoji"), ineffective)
  .description(
    "Build the captioned three-style emoji set; its sources are installed from npm into the cache folder.",
  )
  .option("--cache <folder>", "cache folder (default: SMALTI_CACHE or the user's cache folder)")
  .option("--size <pixels>", "width and height", wholeNumber(16, 64), 64)
  .action(async (options: EmojiOptions) => {
    const signal = interruptSignal("stopping; the set is left unfinished");
    const bar = progress("emoji");
    const built = await buildEmojiDataset({
      ...(options.cache !== undefined && { cacheDir: options.cache }),
      size: options.size,
      signal,
      onProgress: ({ stage, done, total }) => bar.update(done, total, stage),
    });
    bar.stop();
    result(
      built,
      `${built.path}: ${built.images} pictures of ${built.emoji} emoji in ${built.styles.length} styles`,
      options.json,
    );
  });

export const data = new Command("data")
  .summary("build a data set")
  .description("Build a data set.")
  .addCommand(emoji);
