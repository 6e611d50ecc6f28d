// Vocabularies from captions, rows of one length, and words that are not known.
import { mkdtemp, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DiffusionError } from "../../lib/errors.js";
import { TextTokenizer } from "../../lib/text/tokenizer.js";
import {
  splitWords,
  trainBpeVocabulary,
  trainWordVocabulary,
  type TokenizerJson,
} from "../../lib/text/vocabulary.js";
import { processorTime } from "../processor-time.js";

const captions = [
  "a red apple",
  "a green apple, google style",
  "a cat's face",
  "flag of côte d’ivoire",
  "red heart",
];
const words = new TextTokenizer(trainWordVocabulary(captions));

describe("word vocabulary", () => {
  it("numbers special tokens first, then words by how often they come", () => {
    expect([words.padId, words.unkId, words.bosId, words.eosId]).toEqual([0, 1, 2, 3]);
    const { vocab } = words.json.model;
    expect(vocab["a"]).toBe(4);
    expect([vocab["apple"], vocab["red"]].sort()).not.toContain(undefined);
    expect(words.vocabularySize).toBe(Object.keys(vocab).length);
    expect(trainWordVocabulary([...captions].reverse())).toEqual(words.json);
  });

  it("keeps what is frequent", () => {
    const { vocab } = trainWordVocabulary(captions, { minCount: 2 }).model;
    expect(Object.keys(vocab).slice(4).sort()).toEqual(["'", "a", "apple", "red"]);
    expect(Object.keys(trainWordVocabulary(captions, { maxWords: 1 }).model.vocab)).toHaveLength(5);
    expect(() => trainWordVocabulary(["  "])).toThrow(/at least one word/);
  });

  it("encodes with a beginning, an end and padding", () => {
    const { ids, count, truncated, unknown } = words.encode("A  RED Apple", { length: 8 });
    const { vocab } = words.json.model;
    expect([...ids]).toEqual([2, vocab["a"], vocab["red"], vocab["apple"], 3, 0, 0, 0]);
    expect([count, truncated, unknown]).toEqual([5, false, []]);
  });

  it("cuts at the end and keeps the end token", () => {
    const { ids, count, truncated } = words.encode("a red apple a red apple", { length: 4 });
    expect([ids.length, ids[3], count, truncated]).toEqual([4, 3, 4, true]);
    expect(() => words.encode("a", { length: 1 })).toThrow(/at least 2, got 1/);
  });

  it("reads accents and quotes like their plain forms", () => {
    const plain = words.encode("flag of cote d'ivoire", { length: 12 });
    expect(words.encode("Flag of Côte d’Ivoire", { length: 12 }).ids).toEqual(plain.ids);
    expect(plain.unknown).toEqual([]);
  });

  it("reports unknown words with the nearest one, once each", () => {
    const { ids, unknown } = words.encode("a red aple zzzzqqqq, aple", { length: 16 });
    expect(ids[3]).toBe(words.unkId);
    expect(unknown.map(({ word }) => word)).toEqual(["aple", "zzzzqqqq"]);
    expect(unknown[0]!.nearest).toBe("apple");
  });

  it("encodes nothing as an empty prompt", () => {
    expect([...words.encode("", { length: 4 }).ids]).toEqual([2, 3, 0, 0]);
  });

  it("splits exactly as the tokenizer does", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 40 }), (text) => {
        const split = splitWords(text);
        fc.pre(split.length > 0 && !/\[(PAD|UNK|BOS|EOS)\]/.test(text));
        const tokenizer = new TextTokenizer(trainWordVocabulary([text]));
        const { ids, unknown } = tokenizer.encode(text, { length: split.length + 2 });
        expect(unknown).toEqual([]);
        expect([...ids.subarray(1, -1)]).toEqual(
          split.map((word) => tokenizer.json.model.vocab[word]),
        );
      }),
      { numRuns: 300 },
    );
  });
});

describe("batches and files", () => {
  it("encodes batches in rows", () => {
    const batch = words.encodeBatch(["a cat", "", "x"], { length: 5 });
    expect(batch.ids).toHaveLength(15);
    expect([...batch.counts]).toEqual([4, 2, 3]);
    expect(batch.unknown.map((list) => list.length)).toEqual([0, 0, 1]);
    expect(batch.ids.subarray(0, 5)).toEqual(words.encode("a cat", { length: 5 }).ids);
  });

  it("decodes to text again", () => {
    expect(words.decode(words.encode("a red apple", { length: 9 }).ids)).toBe("a red apple");
    expect(words.decode([0, 2, 3])).toBe("");
  });

  it("comes back from tokenizer.json", async () => {
    const path = join(await mkdtemp(join(tmpdir(), "smalti-")), "tokenizer.json");
    await words.save(path);
    const loaded = await TextTokenizer.load(path);
    expect(loaded.encode("a red zebra", { length: 7 })).toEqual(
      words.encode("a red zebra", { length: 7 }),
    );
  });

  it("refuses other files", async () => {
    const folder = await mkdtemp(join(tmpdir(), "smalti-"));
    await expect(TextTokenizer.load(join(folder, "none.json"))).rejects.toMatchObject({
      code: "checkpoint",
    });
    for (const text of [
      "{",
      "[]",
      "3",
      "null",
      "{}",
      '{"model":{"type":"WordPiece","vocab":{"a":0}}}',
      '{"model":{"type":"X"}}',
    ]) {
      await writeFile(join(folder, "t.json"), text);
      await expect(TextTokenizer.load(join(folder, "t.json")), text).rejects.toMatchObject({
        code: "checkpoint",
      });
    }
  });
});

describe("byte pair vocabulary", () => {
  const json = trainBpeVocabulary(["low lower lowest", "low low newer newest"], {
    vocabularySize: 220,
  });
  const bpe = new TextTokenizer(json);

  it("merges what is frequent and stops when nothing repeats", () => {
    const merges = json.model["merges"] as [string, string][];
    expect(merges[0]).toEqual(["l", "o"]);
    expect(Object.keys(json.model.vocab)).toContain("low</w>");
    expect(new Set(Object.values(json.model.vocab)).size).toBe(
      Object.keys(json.model.vocab).length,
    );
  });

  it("spells words it never saw", () => {
    const { ids, unknown } = bpe.encode("slower wow!", { length: 16 });
    expect(unknown).toEqual([]);
    expect(bpe.decode(ids)).toBe("slower wow!");
    expect(bpe.encode("日", { length: 4 }).unknown).toHaveLength(1);
  });

  it("needs room for the characters", () => {
    expect(() => trainBpeVocabulary(["abc"], { vocabularySize: 10 })).toThrow(
      /at least \d+ \(the characters\), got 10/,
    );
  });
});

describe("a tokenizer.json of strangers", () => {
  const good = words.json;
  const size = words.vocabularySize;
  const withVocab = (vocab: unknown): unknown => ({ ...good, model: { ...good.model, vocab } });

  it.each<[string, unknown, RegExp]>([
    ["null", null, /with an object model\.vocab, got nothing/],
    ["a list", [], /with an object model\.vocab/],
    ["no model", { ...good, model: null }, /with an object model\.vocab/],
    ["a list of words", withVocab(["a"]), /with an object model\.vocab, got \["a"\]/],
    ["a huge id", withVocab({ ...good.model.vocab, x: 1e9 }), /ids from 0 to \d+, each once, got 1000000000 for "x"/],
    ["a negative id", withVocab({ ...good.model.vocab, x: -1 }), /each once, got -1 for "x"/],
    ["a fraction", withVocab({ ...good.model.vocab, x: 1.5 }), /whole number as the id of "x", got 1\.5/],
    ["a text", withVocab({ ...good.model.vocab, x: "x" }), /whole number as the id of "x", got "x"/],
    ["a gap", withVocab({ ...good.model.vocab, x: size + 1 }), /each once, got/],
    ["an id twice", withVocab({ ...good.model.vocab, x: 4 }), /each once, got 4/],
    ["another id for an added token", { ...good, added_tokens: [{ id: 7, content: "[PAD]" }] }, /one whole number as the id of "\[PAD\]", got 7/],
    ["added tokens without content", { ...good, added_tokens: [{ id: 0 }] }, /added token with a content/],
    ["a number for added tokens", { ...good, added_tokens: 7 }, /added_tokens to be a list/],
    ["merges that are a number", { ...good, model: { ...good.model, type: "BPE", merges: 7 } }, /Hugging Face tokenizer\.json, got/],
    ["a normalizer that is none", { ...good, normalizer: 7 }, /Hugging Face tokenizer\.json, got/],
  ])("with %s is refused at once", (_, json, message) => {
    const spent = processorTime();
    const error = errorOf(() => new TextTokenizer(json as TokenizerJson));
    expect(error).toBeInstanceOf(DiffusionError);
    expect(error).toMatchObject({ code: "checkpoint" });
    expect((error as Error).message).toMatch(message);
    expect(spent()).toBeLessThan(1000);
  }); // prettier-ignore

  it("is refused unread when it is too big", async () => {
    const path = join(await mkdtemp(join(tmpdir(), "smalti-")), "tokenizer.json");
    await writeFile(path, "{}");
    await truncate(path, 65 * 2 ** 20);
    await expect(TextTokenizer.load(path)).rejects.toThrow(/68157440 bytes, more than 67108864/);
  });
});

function errorOf(action: () => unknown): unknown {
  try {
    return action();
  } catch (error) {
    return error;
  }
}
