// `smalti tokens`: an image to token ids (JSON or .npy), and back.
import { readFile } from "node:fs/promises";
import { Command } from "commander";
import { readNpy, writeNpy } from "../checkpoint/npy.js";
import { DiffusionError } from "../errors.js";
import { writeFileAtomic } from "../files/atomic-write.js";
import { decodeImage, writePng } from "../image/image-io.js";
import { loadPipeline } from "../pipelines/load-pipeline.js";
import { applyCommonOptions, withCommonOptions, type ProcessOptions } from "./options.js";
import { result } from "./terminal.js";

interface TokensOptions extends ProcessOptions {
  model: string;
  out?: string;
}

interface TokenFile {
  shape: number[];
  tokens: number[];
}

async function readTokens(path: string): Promise<TokenFile> {
  if (path.endsWith(".npy")) {
    const { shape, data } = await readNpy(path);
    return { shape: [...shape], tokens: Array.from(data, Number) };
  }
  try {
    const { shape, tokens } = JSON.parse(await readFile(path, "utf8")) as TokenFile;
    if (Array.isArray(shape) && Array.isArray(tokens)) return { shape, tokens };
  } catch (cause) {
    throw new DiffusionError(
      "data",
      `tokens: expected a JSON or .npy file of tokens in ${path}, got ${(cause as Error).message}`,
      { cause },
    );
  }
  throw new DiffusionError(
    "data",
    `tokens: expected {"shape": [...], "tokens": [...]} in ${path}, got other JSON`,
  );
}

async function writeTokens(path: string, { shape, tokens }: TokenFile): Promise<void> {
  if (path.endsWith(".npy"))
    await writeNpy(path, { shape, dtype: "i32", data: Int32Array.from(tokens) });
  else
    await writeFileAtomic(path, Buffer.from(JSON.stringify({ shape, tokens })), {
      where: "tokens",
    });
}

const tokenLimit = 2 ** 31;

/** Ids as i32; anything but whole numbers from 0 would be changed silently by the conversion. */
function tokenIds(path: string, tokens: readonly unknown[]): Int32Array {
  const isId = (id: unknown): boolean =>
    Number.isInteger(id) && (id as number) >= 0 && (id as number) < tokenLimit;
  const wrong = tokens.findIndex((id) => !isId(id));
  if (wrong >= 0)
    throw new DiffusionError(
      "data",
      `tokens: expected whole numbers from 0 below 2^31 in ${path}, got ${JSON.stringify(tokens[wrong])} at ${wrong}`,
    );
  return Int32Array.from(tokens as number[]);
}

const isTokenFile = (path: string): boolean => /\.(json|npy)$/i.test(path);

export const tokens = withCommonOptions(new Command("tokens"), { seed: "nothing is drawn" })
  .summary("image to token ids (.json, .npy) and back")
  .description(
    "Image -> token ids (printed, or written to .json or .npy); a .json or .npy file -> image.",
  )
  .argument("<file>", "image, or .json / .npy of tokens")
  .option("--model <name>", "name or folder of a pipeline", "emoji-64")
  .option("--out <file>", "where the result goes")
  .action(async (file: string, options: TokensOptions) => {
    applyCommonOptions(options);
    using pipe = await loadPipeline(options.model, { kind: "vq-diffusion" });
    if (isTokenFile(file)) {
      const { tokens: ids } = await readTokens(file);
      const out = options.out ?? "tokens.png";
      const [image] = await pipe.decode(tokenIds(file, ids));
      await writePng(out, image!);
      return result({ file: out }, out, options.json);
    }
    const image = await decodeImage(file, { size: pipe.imageSize });
    const ids = [...(await pipe.encode([image]))];
    const value = { shape: [...pipe.grid], tokens: ids };
    if (options.out) await writeTokens(options.out, value);
    result(
      options.out ? { file: options.out } : value,
      options.out ?? JSON.stringify(value),
      options.json,
    );
  });
