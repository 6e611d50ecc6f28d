// The byte-pair tokenizer of CLIP: the published ids, cleaning, rows, and tables that are none.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cleanText } from "../../lib/text/clip-cleaning.js";
import { ClipTokenizer } from "../../lib/text/clip-tokenizer.js";
import { unescapeHtml } from "../../lib/text/html-entities.js";

let clip: ClipTokenizer;
let folder: string;

beforeAll(async () => {
  clip = await ClipTokenizer.load();
  folder = await mkdtemp(join(tmpdir(), "smalti-clip-"));
});
afterAll(() => rm(folder, { recursive: true }));

describe("published vocabulary", () => {
  it("has the published size and markers", () => {
    expect([clip.vocabularySize, clip.startId, clip.endId]).toEqual([49408, 49406, 49407]);
  });

  // Ids of the reference, computed with its own algorithm and its whole table.
  it.each([
    ["a photo of a cat", [320, 1125, 539, 320, 2368]],
    ["A red bird, sitting on a branch!", [320, 736, 3329, 267, 4919, 525, 320, 7998, 256]],
    ["café über naïve 世界", [15304, 6522, 1516, 1097, 35689, 563, 19759, 244, 163, 243, 490]],
    ["I've seen it, they'll go", [328, 1200, 2041, 585, 267, 889, 1342, 861]],
    ["1234567890", [272, 273, 274, 275, 276, 277, 278, 279, 280, 271]],
    ["'LL 'ſ don’t", [1342, 6, 129, 379, 847, 713]],
    [
      "antidisestablishmentarianism hippopotomonstrosesquippedaliophobia",
      [
        3120, 4262, 7726, 12658, 1585, 44351, 28398, 38848, 521, 3121, 567, 1653, 31706, 843, 835,
        21111,
      ],
    ],
    ["👍🏽 🇩🇪", [43722, 21531]],
    ["ΣΑΣ İstanbul", [139, 225, 138, 109, 139, 480, 328, 16384, 11231]],
    ["mississippi abcabcabc aaaaaaa", [12232, 596, 3033, 3033, 322, 6727, 9583]],
  ])("%s", (text, ids) => expect(clip.wordIds(text)).toEqual(ids));

  it("takes a marker inside a text for one, after a blank or a letter only", () => {
    expect(clip.wordIds("a<|EndOfText|>")).toEqual([320, 49407]);
    expect(clip.wordIds("!<|endoftext|>")).not.toContain(49407);
  });

  it("gives back what it was given, in lower case", () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[a-z]{1,8}( [a-z]{1,8}){0,5}$/), (text) => {
        expect(clip.decode(clip.encode(text, { length: 256 }).ids.filter((id) => id > 0))).toBe(
          text,
        );
      }),
    );
    expect(clip.decode(clip.wordIds("Über 世界!"))).toBe("über 世界 !");
  });
});

describe("rows", () => {
  it("have markers and padding", () => {
    const { ids, count, truncated } = clip.encode("a cat", { length: 6 });
    expect([...ids]).toEqual([49406, 320, 2368, 49407, 0, 0]);
    expect([count, truncated]).toEqual([4, false]);
    expect(clip.encode("", { length: 3, padId: clip.endId }).ids).toEqual(
      Int32Array.of(49406, 49407, 49407),
    );
    expect(clip.encode("a cat").ids).toHaveLength(77);
  });

  it("keep their last id when they are cut", () => {
    const { ids, count, truncated } = clip.encode("a cat a cat a cat", { length: 4 });
    expect([...ids]).toEqual([49406, 320, 2368, 49407]);
    expect([count, truncated]).toEqual([4, true]);
    expect([...clip.encode("a cat a dog", { length: 2, markers: false }).ids]).toEqual([320, 1929]);
  });

  it("make a batch", () => {
    const { ids, counts } = clip.encodeBatch(["a", "a cat"], { length: 4 });
    expect([...ids]).toEqual([49406, 320, 49407, 0, 49406, 320, 2368, 49407]);
    expect([...counts]).toEqual([3, 4]);
  });

  it("refuse what they cannot be", () => {
    expect(() => clip.encode("a", { length: 1 })).toThrow(/at least 2, got 1/);
    expect(() => clip.encode("a", { lenght: 4 } as object)).toThrow(/did you mean "length"/);
    expect(() => clip.wordIds("a".repeat(20_000))).toThrow(/at most 16384 characters, got 20000/);
  });
});

describe("cleaning", () => {
  it.each([
    ["two  people\twalking\u00a0\u3000in", "two people walking in"],
    ["&amp;lt;b&gt; bold", "<b> bold"],
    ["“It’s” ﬁne, Ｗｉｄｅ\u200b e\u0301\u0007", '"it\'s" fine, wide\u200b é'],
    ["\u001c a \u0085 b \u001f", "a … b"],
  ])("%j", (text, clean) => expect(cleanText(text, { repair: true })).toBe(clean));

  it("leaves characters alone when asked to", () => {
    expect(cleanText("“It’s” ﬁne", { repair: false })).toBe("“it’s” ﬁne");
  });

  it.each([
    ["&eacute;&eacute&NotEqualTilde;", "éé\u2242\u0338"],
    ["&notit; &noti &foo; &;&#;", "¬it; ¬i &foo; &;&#;"],
    ["&#65;&#x41&#0;&#128;&#xd800;&#1;&#99999999;", "AA\ufffd€\ufffd\ufffd"],
  ])("resolves %j", (text, plain) => expect(unescapeHtml(text)).toBe(plain));
});

describe("other tables", () => {
  const table = "#version: 0.2\nc a\nca t</w>\n";

  it("number their tokens in order", async () => {
    const path = join(folder, "merges.txt.gz");
    await writeFile(path, gzipSync(table));
    const tiny = await ClipTokenizer.load(path);
    expect(tiny.vocabularySize).toBe(256 + 256 + 2 + 2);
    expect(tiny.wordIds("cat")).toEqual([513]);
    expect(tiny.wordIds("ca")).toEqual([66, 320]);
    expect(new ClipTokenizer(table, { merges: 1 }).wordIds("cat")).toEqual([512, 339]);
  });

  it("take ids from a vocabulary", () => {
    const tokens = new ClipTokenizer(table);
    const names = Array.from({ length: tokens.vocabularySize }, (_, id) => tokens.tokenOf(id)!);
    const shifted = Object.fromEntries(names.map((name, id) => [name, id + 1000]));
    const moved = new ClipTokenizer(table, { vocabulary: shifted });
    expect(moved.wordIds("cat ca")).toEqual([1513, 1066, 1320]);
    expect([moved.startId, moved.vocabularySize]).toEqual([1514, 1516]);
    delete shifted["cat</w>"];
    expect(() => new ClipTokenizer(table, { vocabulary: shifted })).toThrow(/"cat<\/w>" in the/);
  });

  it("are refused when they are none", async () => {
    expect(() => new ClipTokenizer("a b\nc\n")).toThrow(/two pieces .* in merge 2, got "c"/);
    expect(() => new ClipTokenizer(table, { merges: 3 })).toThrow(/expected 3 merges, got 2/);
    await expect(ClipTokenizer.load(join(folder, "none.txt"))).rejects.toMatchObject({
      code: "checkpoint",
    });
  });
});
