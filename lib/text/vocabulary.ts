// Learns a vocabulary from captions and writes it as a Hugging Face tokenizer.json, so that other
// tools read it too. Whole words are the model "WordPiece" without continuation pieces: the
// published library has no "WordLevel".
import { Tokenizer } from "@huggingface/tokenizers";
import { checkOptions, DiffusionError } from "../errors.js";

/** The part of tokenizer.json that is written here; other files may hold more. */
export interface TokenizerJson {
  version?: string;
  added_tokens?: { id: number; content: string; special?: boolean }[];
  normalizer?: unknown;
  pre_tokenizer?: unknown;
  post_processor?: unknown;
  decoder?: unknown;
  model: { type?: string; vocab: Record<string, number>; [key: string]: unknown };
  [key: string]: unknown;
}

export const specialTokens = ["[PAD]", "[UNK]", "[BOS]", "[EOS]"] as const;

const endOfWord = "</w>";

const normalizer = {
  type: "Sequence",
  normalizers: [
    { type: "NFKC" },
    { type: "Replace", pattern: { Regex: "[‘’]" }, content: "'" },
    {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: false,
      strip_accents: true,
      lowercase: true,
    },
  ],
};
const splitter = { type: "BertPreTokenizer" };

// The library itself splits the captions, so that training and encoding can never disagree.
const makeWordless = (): Tokenizer =>
  new Tokenizer(
    {
      normalizer,
      pre_tokenizer: splitter,
      post_processor: null,
      decoder: null,
      added_tokens: [],
      model: { type: "WordPiece", unk_token: "[UNK]", vocab: { "[UNK]": 0 } },
    },
    {},
  );
let wordless: Tokenizer | undefined;

/**
 * Lower-cases, strips accents and control characters, and splits at spaces and around punctuation.
 */
export const splitWords = (text: string): string[] => wordsOf((wordless ??= makeWordless()), text);

/** The words that a tokenizer looks up, before the vocabulary decides what it knows. */
export function wordsOf(
  { normalizer, pre_tokenizer: splitter }: Tokenizer,
  text: string,
): string[] {
  const normal: string = normalizer ? normalizer.normalize(text) : text;
  const words: string[] = splitter ? splitter.pre_tokenize(normal) : normal.split(/\s+/);
  return words.filter((word) => word !== "");
}

/**
 * A vocabulary of whole words. Words rarer than `minCount` (default 1) and beyond `maxWords` become
 * [UNK].
 */
export function trainWordVocabulary(
  captions: Iterable<string>,
  options: { minCount?: number; maxWords?: number } = {},
): TokenizerJson {
  checkOptions("trainWordVocabulary", options, ["minCount", "maxWords"]);
  const { minCount = 1, maxWords = Infinity } = options;
  const words = [...countWords(captions)].filter(([, count]) => count >= minCount);
  const kept = words.sort(byCount).slice(0, maxWords);
  const vocab = numbered([...specialTokens, ...kept.map(([word]) => word)]);
  return tokenizerJson({
    type: "WordPiece",
    unk_token: "[UNK]",
    continuing_subword_prefix: "##",
    max_input_chars_per_word: 100,
    vocab,
  });
}

/**
 * Byte pair encoding over characters with an end-of-word mark: Sennrich et al. 2016,
 * arXiv:1508.07909, algorithm 1. Ties go to the alphabetically first pair, so the result does not
 * depend on the order of the captions.
 */
export function trainBpeVocabulary(
  captions: Iterable<string>,
  options: { vocabularySize: number },
): TokenizerJson {
  checkOptions("trainBpeVocabulary", options, ["vocabularySize"]);
  const counts = countWords(captions);
  const words = [...counts].map(([word, count]) => ({ pieces: characterPieces(word), count }));
  const ascii = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i)).filter(
    (c) => !/[A-Z]/.test(c),
  );
  const seen = [...counts.keys()].flatMap((word) => [...word]);
  const alphabet = [...new Set([...ascii, ...seen])].sort();
  const tokens: string[] = [...specialTokens, ...alphabet, ...alphabet.map((c) => c + endOfWord)];
  if (options.vocabularySize < tokens.length)
    throw new DiffusionError(
      "option",
      `trainBpeVocabulary: expected a vocabularySize of at least ${tokens.length} (the ` +
        `characters), got ${options.vocabularySize}`,
    );
  const merges: [string, string][] = [];
  const known = new Set(tokens);
  while (tokens.length < options.vocabularySize) {
    const pair = mostFrequentPair(words);
    if (!pair) break;
    merges.push(pair);
    const merged = pair[0] + pair[1];
    if (!known.has(merged)) tokens.push(merged);
    known.add(merged);
    for (const word of words) mergePair(word.pieces, pair);
  }
  return tokenizerJson({
    type: "BPE",
    unk_token: "[UNK]",
    continuing_subword_prefix: "",
    end_of_word_suffix: endOfWord,
    fuse_unk: false,
    vocab: numbered(tokens),
    merges,
  });
}

function countWords(captions: Iterable<string>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const caption of captions)
    for (const word of splitWords(caption)) counts.set(word, (counts.get(word) ?? 0) + 1);
  if (counts.size === 0)
    throw new DiffusionError(
      "data",
      "vocabulary: expected captions with at least one word, got none",
    );
  return counts;
}

const byCount = ([a, x]: [string, number], [b, y]: [string, number]): number =>
  y - x || (a < b ? -1 : 1);

const numbered = (tokens: readonly string[]): Record<string, number> =>
  Object.fromEntries(tokens.map((token, id) => [token, id]));

function characterPieces(word: string): string[] {
  const pieces = [...word];
  pieces[pieces.length - 1] += endOfWord;
  return pieces;
}

function mostFrequentPair(
  words: readonly { pieces: string[]; count: number }[],
): [string, string] | undefined {
  const counts = new Map<string, number>();
  for (const { pieces, count } of words)
    for (let i = 1; i < pieces.length; ++i) {
      const key = `${pieces[i - 1]} ${pieces[i]}`;
      counts.set(key, (counts.get(key) ?? 0) + count);
    }
  let best: [string, number] | undefined;
  for (const entry of counts) if (!best || byCount(entry, best) < 0) best = entry;
  return best && best[1] > 1 ? (best[0].split(" ") as [string, string]) : undefined;
}

function mergePair(pieces: string[], [left, right]: [string, string]): void {
  for (let i = 0; i + 1 < pieces.length; ++i)
    if (pieces[i] === left && pieces[i + 1] === right) pieces.splice(i, 2, left + right);
}

function tokenizerJson(model: TokenizerJson["model"]): TokenizerJson {
  const special = (id: string): unknown => ({ SpecialToken: { id, type_id: 0 } });
  const added = {
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({ id, content, ...added })),
    normalizer,
    pre_tokenizer: splitter,
    post_processor: {
      type: "TemplateProcessing",
      single: [special("[BOS]"), { Sequence: { id: "A", type_id: 0 } }, special("[EOS]")],
      pair: [
        special("[BOS]"),
        { Sequence: { id: "A", type_id: 0 } },
        { Sequence: { id: "B", type_id: 0 } },
        special("[EOS]"),
      ],
      special_tokens: Object.fromEntries(
        [2, 3].map((id) => [
          specialTokens[id]!,
          { id: specialTokens[id]!, ids: [id], tokens: [specialTokens[id]!] },
        ]),
      ),
    },
    decoder:
      model.type === "BPE"
        ? { type: "BPEDecoder", suffix: endOfWord }
        : { type: "WordPiece", prefix: "##", cleanup: true },
    model,
  };
}
