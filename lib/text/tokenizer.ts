// Prompts to rows of token ids of one fixed length, through the published tokenizers library. Words
// the vocabulary does not know are reported, with the nearest one that it does know, so that a
// pipeline can warn.
import { readFile, stat } from "node:fs/promises";
import { Tokenizer } from "@huggingface/tokenizers";
import { checkOptions, DiffusionError, nearestName } from "../errors.js";
import { writeFileAtomic } from "../files/atomic-write.js";
import { wordsOf, type TokenizerJson } from "./vocabulary.js";

export interface UnknownWord {
  word: string;
  /** The most similar known word, when there is one. */
  nearest?: string;
}

export interface EncodedText {
  /** `length` ids, padded with padId. */
  ids: Int32Array;
  /** How many of them are not padding. */
  count: number;
  /** Whether words were cut off at the end. */
  truncated: boolean;
  unknown: UnknownWord[];
}

export interface EncodedBatch {
  /** (texts, length) in rows. */
  ids: Int32Array;
  counts: Int32Array;
  truncated: boolean[];
  unknown: UnknownWord[][];
}

export interface EncodeOptions {
  /** Ids in a row, at least 2. */
  length: number;
}

// Names that tokenizers in use give to the same four things; CLIP pads with its end token.
const specialNames = {
  pad: ["[PAD]", "<pad>", "<|endoftext|>"],
  unk: ["[UNK]", "<unk>", "<|endoftext|>"],
  bos: ["[BOS]", "<s>", "<|startoftext|>", "[CLS]"],
  eos: ["[EOS]", "</s>", "<|endoftext|>", "[SEP]"],
} as const;

const maxVocabulary = 2 ** 20; // the largest in use have about 260,000 entries
const maxFileBytes = 64 * 2 ** 20;

export class TextTokenizer {
  readonly padId: number;
  readonly unkId: number;
  readonly bosId: number;
  readonly eosId: number;
  /** Ids are below this number. */
  readonly vocabularySize: number;
  readonly #tokenizer: Tokenizer;
  readonly #words: string[];

  /** Wraps the parsed content of a tokenizer.json. Throws "checkpoint" when it is not one. */
  constructor(
    readonly json: TokenizerJson,
    where = "tokenizer",
  ) {
    const vocabulary = checkedVocabulary(json, where);
    this.#tokenizer = construct(json, where);
    const idOf = (kind: keyof typeof specialNames): number => {
      const name = specialNames[kind].find((candidate) => vocabulary.has(candidate));
      if (name === undefined)
        throw new DiffusionError(
          "checkpoint",
          `${where}: expected a ${kind} token among ${specialNames[kind].join(", ")}, got none`,
        );
      return vocabulary.get(name)!;
    };
    this.padId = idOf("pad");
    this.unkId = idOf("unk");
    this.bosId = idOf("bos");
    this.eosId = idOf("eos");
    this.vocabularySize = vocabulary.size;
    this.#words = [...vocabulary.keys()].filter((word) => word.length > 2 && !word.startsWith("["));
  }

  /** Reads a tokenizer.json file. */
  static async load(path: string): Promise<TextTokenizer> {
    let json: unknown;
    try {
      const { size } = await stat(path);
      if (size > maxFileBytes) throw new Error(`${size} bytes, more than ${maxFileBytes}`);
      json = JSON.parse(await readFile(path, "utf8"));
    } catch (cause) {
      throw new DiffusionError(
        "checkpoint",
        `tokenizer: expected JSON in "${path}", got ${(cause as Error).message}`,
        { cause },
      );
    }
    return new TextTokenizer(json as TokenizerJson, path);
  }

  /** Writes tokenizer.json atomically. */
  async save(path: string): Promise<void> {
    await writeFileAtomic(path, `${JSON.stringify(this.json, null, 1)}\n`, {
      where: "tokenizer",
      code: "checkpoint",
    });
  }

  /** One row: [BOS] words [EOS] and padding; too many words are cut, the [EOS] stays. */
  encode(text: string, options: EncodeOptions): EncodedText {
    checkOptions("tokenizer.encode", options, ["length"]);
    const { length } = options;
    if (!Number.isInteger(length) || length < 2)
      throw new DiffusionError(
        "option",
        `tokenizer.encode: expected a length of at least 2, got ${length}`,
      );
    const words = this.#tokenizer.encode(text, { add_special_tokens: false }).ids;
    const kept = words.slice(0, length - 2);
    const ids = new Int32Array(length).fill(this.padId);
    ids.set([this.bosId, ...kept, this.eosId]);
    const unknown = words.includes(this.unkId) ? this.#unknownWords(text) : [];
    return { ids, count: kept.length + 2, truncated: kept.length < words.length, unknown };
  }

  /** Rows for several texts in one array. */
  encodeBatch(texts: readonly string[], options: EncodeOptions): EncodedBatch {
    const rows = texts.map((text) => this.encode(text, options));
    const ids = new Int32Array(texts.length * options.length);
    rows.forEach((row, i) => ids.set(row.ids, i * options.length));
    return {
      ids,
      counts: Int32Array.from(rows, (row) => row.count),
      truncated: rows.map((row) => row.truncated),
      unknown: rows.map((row) => row.unknown),
    };
  }

  /** The words of a row again, without special tokens. */
  decode(ids: ArrayLike<number>): string {
    const words = Array.from(ids).filter(
      (id) => ![this.padId, this.bosId, this.eosId].includes(id),
    );
    return words.length === 0 ? "" : this.#tokenizer.decode(words, { skip_special_tokens: false });
  }

  #unknownWords(text: string): UnknownWord[] {
    const idOf = (piece: string): number => this.#tokenizer.token_to_id(piece) ?? this.unkId;
    const unknown = [...new Set(wordsOf(this.#tokenizer, text))].filter((word) => {
      const pieces: string[] = this.#tokenizer.model?.encode([word]) ?? [];
      return pieces.some((piece) => idOf(piece) === this.unkId);
    });
    return unknown.map((word) => {
      const nearest = nearestName(word, this.#words);
      return nearest === undefined ? { word } : { word, nearest };
    });
  }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const shown = (value: unknown): string => (JSON.stringify(value) ?? "nothing").slice(0, 60);

/**
 * Ids by token, of the model and the added tokens together. Throws "checkpoint" unless they are the
 * whole numbers from 0 on, each once: the library allocates by the largest id.
 */
function checkedVocabulary(json: unknown, where: string): Map<string, number> {
  const fault = (expected: string, got: string): DiffusionError =>
    new DiffusionError("checkpoint", `${where}: expected ${expected}, got ${got}`);
  const model = isObject(json) ? json["model"] : undefined;
  const vocab = isObject(model) ? model["vocab"] : undefined;
  if (!isObject(json) || !isObject(vocab))
    throw fault("a Hugging Face tokenizer.json with an object model.vocab", shown(vocab));
  const added = json["added_tokens"] ?? [];
  if (!Array.isArray(added)) throw fault("added_tokens to be a list", shown(added));
  const entries: [unknown, unknown][] = Object.entries(vocab);
  for (const token of added as unknown[])
    entries.push(isObject(token) ? [token["content"], token["id"]] : [token, undefined]);
  const ids = new Map<string, number>();
  for (const [token, id] of entries) {
    if (typeof token !== "string") throw fault("an added token with a content", shown(token));
    if (!Number.isInteger(id) || (ids.has(token) && ids.get(token) !== id))
      throw fault(`one whole number as the id of ${shown(token)}`, shown(id));
    ids.set(token, id as number);
  }
  if (ids.size > maxVocabulary) throw fault(`at most ${maxVocabulary} tokens`, `${ids.size}`);
  const seen = new Set<number>();
  for (const [token, id] of ids) {
    if (id < 0 || id >= ids.size || seen.has(id))
      throw fault(`ids from 0 to ${ids.size - 1}, each once`, `${id} for ${shown(token)}`);
    seen.add(id);
  }
  return ids;
}

function construct(json: TokenizerJson, where: string): Tokenizer {
  try {
    const complete = {
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: null,
      added_tokens: [],
      ...json,
    };
    const tokenizer = new Tokenizer(complete, {});
    tokenizer.encode("a b", { add_special_tokens: false }); // broken parts show at the first use
    return tokenizer;
  } catch (cause) {
    throw new DiffusionError(
      "checkpoint",
      `${where}: expected a Hugging Face tokenizer.json, got ${(cause as Error).message}`,
      { cause },
    );
  }
}
