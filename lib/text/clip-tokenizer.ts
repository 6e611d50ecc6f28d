// Byte-pair tokenizer of CLIP: cleaned text to ids. The published library joins pairs one place at a
// time, CLIP all places of a pair at once, which can differ; so the joining is here. Source:
// openai/CLIP clip/simple_tokenizer.py; Sennrich et al. 2016, arXiv:1508.07909.
import { readFile, stat } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { checkOptions, DiffusionError } from "../errors.js";
import { cleanText } from "./clip-cleaning.js";
import type { EncodedBatch, EncodedText } from "./tokenizer.js";

export interface ClipTokenizerOptions {
  /** How many lines of the table count; default 48894 (the published vocabulary), or all of fewer. */
  merges?: number;
  /** Repair characters first (straight quotes, no ligatures, NFC …), as CLIP does with ftfy; default true. */
  repair?: boolean;
  /** Ids by token, of a vocab.json; default numbered as the table says. */
  vocabulary?: Readonly<Record<string, number>>;
}

export interface ClipEncodeOptions {
  /** Ids in a row; default 77. */
  length?: number;
  /** Fills a row up; default 0 (OpenAI, VQ-Diffusion). huggingface/transformers uses the end token. */
  padId?: number;
  /** A start and an end token around the text; default true. */
  markers?: boolean;
}

const startToken = "<|startoftext|>";
const endToken = "<|endoftext|>";
const endOfWord = "</w>";

/** 49408 tokens less 2 x 256 bytes and the two markers. */
const publishedMerges = 48894;
/** The first lines of the published table. */
const publishedTable = (): string =>
  fileURLToPath(new URL("../../models/clip/merges.txt.gz", import.meta.url));

const maxMerges = 2 ** 20;
const maxFileBytes = 64 * 2 ** 20;
/** Joining takes the square of a word's length. */
const maxCharacters = 16384;

/** Words of a cleaned text; the endings of English words apart, every digit alone. */
const wordPattern =
  /<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\p{L}\p{N}]+/giu;

const range = (first: number, last: number): number[] =>
  Array.from({ length: last - first + 1 }, (_, i) => first + i);

/** A visible character for each byte, those that are visible themselves first; order of the vocabulary. */
function byteCharacters(): [byte: number, character: string][] {
  const visible = new Set([...range(0x21, 0x7e), ...range(0xa1, 0xac), ...range(0xae, 0xff)]);
  const others = range(0, 255).filter((byte) => !visible.has(byte));
  return [
    ...Array.from(visible, (byte): [number, string] => [byte, String.fromCharCode(byte)]),
    ...others.map((byte, i): [number, string] => [byte, String.fromCharCode(256 + i)]),
  ];
}

const alphabet = byteCharacters();
const characterOf = new Map(alphabet);
const byteOf = new Map(alphabet.map(([byte, character]) => [character, byte]));

export class ClipTokenizer {
  readonly startId: number;
  readonly endId: number;
  /** Ids are below this number. */
  readonly vocabularySize: number;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #tokens: ReadonlyMap<number, string>;
  /** Rank of a pair, written with a blank between. */
  readonly #ranks: ReadonlyMap<string, number>;
  readonly #repair: boolean;

  /** From the text of a merges.txt. Throws "checkpoint" when it is not one. */
  constructor(table: string, options: ClipTokenizerOptions = {}, where = "clipTokenizer") {
    checkOptions("clipTokenizer", options, ["merges", "repair", "vocabulary"]);
    const { merges: wanted = publishedMerges, repair = true, vocabulary } = options;
    const merges = parseMerges(table, wanted, where);
    if (options.merges !== undefined && merges.length < wanted) {
      throw new DiffusionError(
        "checkpoint",
        `${where}: expected ${wanted} merges, got ${merges.length}`,
      );
    }
    const characters = alphabet.map(([, character]) => character);
    const tokens = [
      ...characters,
      ...characters.map((character) => character + endOfWord),
      ...merges.map(([left, right]) => left + right),
      startToken,
      endToken,
    ];
    this.#ids = vocabulary
      ? checkedVocabulary(vocabulary, tokens, where)
      : new Map(tokens.map((token, id) => [token, id]));
    this.#tokens = new Map([...this.#ids].map(([token, id]) => [id, token]));
    this.#ranks = new Map(merges.map(([left, right], rank) => [`${left} ${right}`, rank]));
    this.#repair = repair;
    this.startId = this.#ids.get(startToken)!;
    this.endId = this.#ids.get(endToken)!;
    this.vocabularySize = vocabulary ? Math.max(...this.#tokens.keys()) + 1 : tokens.length;
  }

  /** Reads a merges.txt, or one packed with gzip; default the published table, which comes along. */
  static async load(
    path: string = publishedTable(),
    options: ClipTokenizerOptions = {},
  ): Promise<ClipTokenizer> {
    return new ClipTokenizer(await readTable(path), options, path);
  }

  /** The token of an id, as tables write it; undefined when there is none. */
  tokenOf(id: number): string | undefined {
    return this.#tokens.get(id);
  }

  /** Ids of the words of a text, without markers. */
  wordIds(text: string): number[] {
    if (text.length > maxCharacters) {
      throw new DiffusionError(
        "data",
        `clipTokenizer: expected a text of at most ${maxCharacters} characters, got ${text.length}`,
      );
    }
    const words = cleanText(text, { repair: this.#repair }).match(wordPattern) ?? [];
    return words.flatMap((word) => this.#idsOfWord(word));
  }

  /** One row. Too long a text is cut, and its last id (the end token with markers) stays last. */
  encode(text: string, options: ClipEncodeOptions = {}): EncodedText {
    checkOptions("clipTokenizer.encode", options, ["length", "padId", "markers"]);
    const { length = 77, padId = 0, markers = true } = options;
    if (!Number.isInteger(length) || length < 2)
      throw new DiffusionError(
        "option",
        `clipTokenizer.encode: expected a length of at least 2, got ${length}`,
      );
    const words = this.wordIds(text);
    const all = markers ? [this.startId, ...words, this.endId] : words;
    const truncated = all.length > length;
    const kept = truncated ? [...all.slice(0, length - 1), all.at(-1)!] : all;
    const ids = new Int32Array(length).fill(padId);
    ids.set(kept);
    return { ids, count: kept.length, truncated, unknown: [] };
  }

  /** Rows for several texts in one array. */
  encodeBatch(texts: readonly string[], options: ClipEncodeOptions = {}): EncodedBatch {
    const rows = texts.map((text) => this.encode(text, options));
    const { length = 77 } = options;
    const ids = new Int32Array(texts.length * length);
    rows.forEach((row, i) => ids.set(row.ids, i * length));
    return {
      ids,
      counts: Int32Array.from(rows, ({ count }) => count),
      truncated: rows.map(({ truncated }) => truncated),
      unknown: rows.map(() => []),
    };
  }

  /** The text again, in lower case and with single blanks; markers are left out. */
  decode(ids: ArrayLike<number>): string {
    const words = Array.from(ids, (id) => this.#tokens.get(id) ?? "").filter(
      (token) => token !== startToken && token !== endToken,
    );
    const bytes = [...words.join("").replaceAll(endOfWord, " ")].map(
      (character) => byteOf.get(character) ?? 0x20,
    );
    return new TextDecoder().decode(Uint8Array.from(bytes)).trim();
  }

  #idsOfWord(word: string): number[] {
    if (word === startToken) return [this.startId];
    if (word === endToken) return [this.endId];
    const pieces = Array.from(new TextEncoder().encode(word), (byte) => characterOf.get(byte)!);
    pieces[pieces.length - 1] += endOfWord;
    return joinPairs(pieces, this.#ranks).map((token) => this.#ids.get(token)!);
  }
}

/** While a pair of neighbours is in the table: joins all places of the first such, from left to right. */
function joinPairs(pieces: string[], ranks: ReadonlyMap<string, number>): string[] {
  const rankAt = (from: readonly string[], i: number): number =>
    ranks.get(`${from[i]} ${from[i + 1]}`) ?? Infinity;
  let current = pieces;
  for (;;) {
    let best = Infinity;
    for (let i = 0; i + 1 < current.length; ++i) best = Math.min(best, rankAt(current, i));
    if (best === Infinity) return current;
    const joined: string[] = [];
    for (let i = 0; i < current.length; ++i) {
      const isPair = i + 1 < current.length && rankAt(current, i) === best;
      joined.push(isPair ? current[i]! + current[++i]! : current[i]!);
    }
    current = joined;
  }
}

/** Pairs of a table, one a line; a first line that says a version is none. */
function parseMerges(table: string, most: number, where: string): [string, string][] {
  if (!Number.isInteger(most) || most < 0 || most > maxMerges) {
    throw new DiffusionError(
      "option",
      `clipTokenizer: expected merges to be a whole number from 0 to ${maxMerges}, got ${most}`,
    );
  }
  const lines = table.split("\n", most + 1);
  if (/#version/.test(lines[0] ?? "")) lines.shift();
  if (lines.at(-1) === "") lines.pop();
  return lines.slice(0, most).map((line, i) => {
    const pair = line.replace(/\r$/, "").split(" ");
    if (pair.length === 2 && pair[0] !== "" && pair[1] !== "") return pair as [string, string];
    throw new DiffusionError(
      "checkpoint",
      `${where}: expected two pieces and a blank between in merge ${i + 1}, got ${JSON.stringify(line.slice(0, 60))}`,
    );
  });
}

/** Ids of a vocab.json. Throws "checkpoint" unless it has every token of the table, with an id of its own. */
function checkedVocabulary(
  vocabulary: Readonly<Record<string, unknown>>,
  tokens: readonly string[],
  where: string,
): Map<string, number> {
  const ids = new Map<string, number>();
  const seen = new Set<unknown>();
  for (const [token, id] of Object.entries(vocabulary)) {
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > maxMerges || seen.has(id)) {
      throw new DiffusionError(
        "checkpoint",
        `${where}: expected an id of its own from 0 to ${maxMerges} for ${JSON.stringify(token)}, got ${JSON.stringify(id)}`,
      );
    }
    seen.add(id);
    ids.set(token, id as number);
  }
  const missing = tokens.find((token) => !ids.has(token));
  if (missing === undefined) return ids;
  throw new DiffusionError(
    "checkpoint",
    `${where}: expected ${JSON.stringify(missing)} in the vocabulary, got none`,
  );
}

async function readTable(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > maxFileBytes) throw new Error(`${size} bytes, more than ${maxFileBytes}`);
    const bytes = await readFile(path);
    const isPacked = bytes[0] === 0x1f && bytes[1] === 0x8b;
    const plain = isPacked ? gunzipSync(bytes, { maxOutputLength: maxFileBytes }) : bytes;
    return plain.toString("utf8");
  } catch (cause) {
    throw new DiffusionError(
      "checkpoint",
      `clipTokenizer: expected a merges.txt in "${path}", got ${(cause as Error).message}`,
      { cause },
    );
  }
}
