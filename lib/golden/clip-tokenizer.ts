// Golden kind clip_tokenizer: ids of prompts with a short table, with the published one and with a
// part of it, and padded rows.
import { DiffusionError } from "../errors.js";
import { checkFields, limits, listOf, text, whole } from "../models/check-config.js";
import { ClipTokenizer } from "../text/clip-tokenizer.js";
import type { GoldenCase, Values } from "./case.js";
import type { GoldenRunner } from "./evaluate.js";

interface TokenizerConfig {
  merges: number;
  context_length: number;
  prompts: string[];
}

const rules = {
  merges: whole(0, limits.codes),
  context_length: whole(2, limits.side),
  prompts: listOf(text(16384), 1, 65536),
};

/** The vocabulary of 16384 tokens that some models of the reference use, as it counts them. */
const shortMerges = 16384 - 256 - 2;

const row = (ids: readonly number[]): Values => ({
  shape: [ids.length],
  data: Int32Array.from(ids),
});

async function clipTokenizer(golden: GoldenCase): Promise<Record<string, Values>> {
  checkFields(`parity: ${golden.name}`, golden.config, rules);
  const { merges, context_length: length, prompts } = golden.config as unknown as TokenizerConfig;
  const table = golden.texts.get("merges");
  if (table === undefined)
    throw new DiffusionError("data", `parity: expected merges in case ${golden.name}, got none`);
  // the references ran without ftfy
  const plain = { repair: false };
  const own = new ClipTokenizer(table, { ...plain, merges }, golden.name);
  const tokenizers = {
    ids: own,
    full_ids: await ClipTokenizer.load(undefined, plain),
    dalle_ids: await ClipTokenizer.load(undefined, { ...plain, merges: shortMerges }),
  };
  const ids = prompts.flatMap((prompt, i) =>
    Object.entries(tokenizers).map(([name, tokenizer]): [string, Values] => [
      `${i}.${name}`,
      row(tokenizer.wordIds(prompt)),
    ]),
  );
  const batch = own.encodeBatch(prompts, { length });
  const shape = [prompts.length, length];
  const mask = Int32Array.from(batch.ids, (_, i) =>
    i % length < batch.counts[Math.floor(i / length)]! ? 1 : 0,
  );
  return {
    ...Object.fromEntries(ids),
    tokens: { shape, data: batch.ids },
    mask: { shape, data: mask },
  };
}

export const clipTokenizerRunners: Readonly<Record<string, GoldenRunner>> = {
  clip_tokenizer: clipTokenizer,
};
