// The emoji set: words, families and the split on made-up packages, and the whole build without a registry.
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { buildEmojiDataset, defaultCacheDir, emojiFolder } from "../../lib/data/emoji.js";
import { openEmojiDataset, readEmojiIndex } from "../../lib/data/emoji-pack.js";
import { captionsOf, charactersOf, familyOf, heldOutShare, isHeldOut, keywordsOf, plainText, toneWords, type EmojiRow } from "../../lib/data/emoji-words.js"; // prettier-ignore

const row = (unified: string, name: string, extra: Partial<EmojiRow> = {}): EmojiRow => ({
  name,
  unified,
  image: `${unified.toLowerCase()}.png`,
  short_names: [name.toLowerCase().replace(/ /g, "_")],
  category: "Objects",
  subcategory: "things",
  ...extra,
});

describe("emoji words", () => {
  it("puts all variants of a person into one family", () => {
    const runner = [
      "1F3C3",
      "1F3C3-1F3FB",
      "1F3C3-200D-2640-FE0F",
      "1F3C3-1F3FD-200D-2642-FE0F-200D-27A1-FE0F",
    ];
    expect(new Set(runner.map(familyOf))).toEqual(new Set(["1f3c3"]));
    const farmers = ["1F468-200D-1F33E", "1F469-1F3FF-200D-1F33E", "1F9D1-200D-1F33E"];
    expect(new Set(farmers.map(familyOf)).size).toBe(1);
    expect(familyOf("1F1EB-1F1F7")).not.toBe(familyOf("1F1E9-1F1EA"));
    expect(familyOf("2640-FE0F")).toBe("2640-fe0f");
  });

  it("holds out about the share it says, always the same ones", () => {
    const families = Array.from({ length: 5000 }, (_, i) => i.toString(16));
    const share = families.filter(isHeldOut).length / families.length;
    expect(share).toBeCloseTo(heldOutShare, 1);
    expect([isHeldOut("1f415"), isHeldOut("1f34e")]).toEqual([true, false]);
  });

  it("names things plainly", () => {
    expect(plainText("Côte d’Ivoire: “Flag”")).toBe("cote d'ivoire flag");
    expect(toneWords("1F3FB-1F3FE")).toBe("light and medium-dark skin tone");
    expect(toneWords("1F3FD-1F3FD")).toBe("medium skin tone");
    expect(charactersOf("2764-FE0F")).toBe("❤️");
    const heart = row("2764-FE0F", "HEAVY BLACK HEART", { short_names: ["heart"] });
    expect(captionsOf(heart, { tts: ["red heart"] })).toEqual(["red heart", "heart"]);
    const flag = row("1F1E6-1F1E9", "Andorra Flag", {
      category: "Flags",
      short_names: ["flag-ad"],
    });
    expect(captionsOf(flag, undefined)).toEqual(["flag of andorra", "andorra flag"]);
    expect(keywordsOf({ default: ["cat", "pet", "Pet"] }, ["cat"])).toEqual(["pet"]);
  });
});

// Packages of the right names and versions, with four emoji; the build finds them installed and runs no npm.
async function cacheWithPackages(): Promise<string> {
  const cacheDir = await mkdtemp(join(tmpdir(), "smalti-"));
  const modules = join(cacheDir, "npm", "node_modules");
  const write = async (path: string, content: string | Buffer): Promise<void> => {
    await mkdir(join(modules, path, ".."), { recursive: true });
    await writeFile(join(modules, path), content);
  };
  const colour = (r: number, alpha = 1): Promise<Buffer> =>
    sharp({ create: { width: 64, height: 64, channels: 4, background: { r, g: 0, b: 0, alpha } } }).png().toBuffer(); // prettier-ignore
  const rows = [
    row("1F34E", "RED APPLE", { category: "Food & Drink" }),
    row("1F415", "DOG", { category: "Animals & Nature" }),
    row("1F44B", "WAVING HAND SIGN", {
      category: "People & Body",
      skin_variations: {
        "1F3FB": { image: "1f44b-1f3fb.png" },
        "1F3FC": { image: "1f44b-1f3fc.png" },
      },
    }),
    row("1F3FB", "TONE", { category: "Component" }),
  ];
  for (const [name, version] of [
    ["emoji-datasource-google", "16.0.0"],
    ["emoji-datasource-twitter", "16.0.0"],
    ["@lobehub/fluent-emoji-3d", "1.1.0"],
    ["cldr-annotations-full", "48.2.0"],
  ])
    // prettier-ignore
    await write(`${name}/package.json`, JSON.stringify({ version }));
  await write("emoji-datasource-google/emoji.json", JSON.stringify(rows));
  const annotations = {
    "🍎": { tts: ["red apple"], default: ["fruit", "health"] },
    "👋": { tts: ["waving hand"] },
  };
  await write(
    "cldr-annotations-full/annotations/en/annotations.json",
    JSON.stringify({ annotations: { annotations } }),
  );
  for (const style of ["google", "twitter"])
    for (const [i, file] of ["1f34e", "1f415", "1f44b", "1f44b-1f3fb", "1f44b-1f3fc"].entries())
      await write(`emoji-datasource-${style}/img/${style}/64/${file}.png`, await colour(i === 3 ? 2 : i + (style === "google" ? 0 : 9))); // prettier-ignore
  await write("@lobehub/fluent-emoji-3d/assets/1f34e.webp", await colour(0, 0));
  return cacheDir;
}

describe("buildEmojiDataset", () => {
  it("packs pictures, captions, styles and the split, and finds them again", async () => {
    const cacheDir = await cacheWithPackages();
    const stages: string[] = [];
    const built = await buildEmojiDataset({
      cacheDir,
      size: 16,
      onProgress: ({ stage }) => stages.push(stage),
    });
    expect(built).toEqual({
      path: emojiFolder(cacheDir, 16),
      images: 10,
      emoji: 3,
      heldOut: 1,
      styles: ["google", "twitter", "fluent"],
    });
    const index = await readEmojiIndex(built.path);
    expect(stages).toEqual(["install", "install", "decode", "decode", "done"]);
    expect(existsSync(join(cacheDir, "npm"))).toBe(false);
    expect(index.emoji.map((entry) => entry.captions[0])).toEqual([
      "red apple",
      "dog",
      "waving hand",
    ]);
    // Google's first variant equals the hand without tone and is left out.
    expect(index.pictures.map(({ style, tone }) => `${style}${tone}`)).toEqual(["0", "0", "0", "01F3FC", "1", "1", "1", "11F3FB", "11F3FC", "2"]); // prettier-ignore
    expect((await readFile(join(built.path, "images.bin"))).length).toBe(10 * 16 * 16 * 3);
    const again = await buildEmojiDataset({
      cacheDir,
      size: 16,
      onProgress: () => expect.unreachable(),
    });
    expect(again).toEqual(built);
  });

  it("opens by split, style and tone", async () => {
    const cacheDir = await cacheWithPackages();
    const { path: folder } = await buildEmojiDataset({ cacheDir, size: 16, keepPackages: true });
    const train = await openEmojiDataset(folder);
    const heldOut = await openEmojiDataset(folder, { split: "heldOut" });
    expect([train.length, heldOut.length]).toEqual([8, 2]);
    expect(heldOut.entry(0).captions).toEqual(["dog"]);
    const fluent = await openEmojiDataset(folder, { styles: ["fluent"] });
    expect(new Set(await fluent.pixels(0))).toEqual(new Set([255]));
    expect(fluent.captions(0)).toEqual(["red apple, fluent style", "red apple"]);
    expect((await openEmojiDataset(folder, { skinTones: false })).length).toBe(5);
    const toned = Array.from({ length: train.length }, (_, i) => i).find(
      (i) => train.entry(i).tone !== "",
    )!;
    expect(train.captions(toned)[0]).toBe("waving hand, medium-light skin tone, google style");
    expect(train.weight(toned)).toBe(0.5);
    const spoken = new Set(
      Array.from({ length: 200 }, (_, k) => train.caption(0, (n) => (k * 7919 + n * 31) % n)),
    );
    for (const caption of spoken)
      expect(caption).toMatch(/^red apple(, (fruit|health)){0,2}(, google style)?$/);
    await expect(openEmojiDataset(folder, { styles: ["googel"] as never })).rejects.toThrow(
      /did you mean "google"/,
    );
  });

  it("refuses a damaged or missing set, bad sizes and an aborted start", async () => {
    const cacheDir = await cacheWithPackages();
    const { path: folder } = await buildEmojiDataset({ cacheDir, size: 16, keepPackages: true });
    await writeFile(join(folder, "images.bin"), "short");
    await expect(openEmojiDataset(folder)).rejects.toThrow(/5 bytes of pictures instead of/);
    await writeFile(join(folder, "index.json"), "{");
    await expect(openEmojiDataset(folder)).rejects.toThrow(/no JSON/);
    await expect(openEmojiDataset("/nowhere")).rejects.toThrow(/no index; build it/);
    await expect(buildEmojiDataset({ cacheDir, size: 128 })).rejects.toThrow(
      /16 to 64 pixels, got 128/,
    );
    const aborted = buildEmojiDataset({ cacheDir, size: 20, signal: AbortSignal.abort() });
    await expect(aborted).rejects.toMatchObject({ code: "aborted" });
    expect(
      existsSync(emojiFolder(cacheDir, 20)) &&
        existsSync(join(emojiFolder(cacheDir, 20), "images.bin")),
    ).toBe(false);
  });

  it("explains a failing npm", async () => {
    const cacheDir = await mkdtemp(join(tmpdir(), "smalti-"));
    const { PATH } = process.env;
    try {
      process.env["PATH"] = "/nowhere";
      await expect(buildEmojiDataset({ cacheDir })).rejects.toThrow(/expected to run npm/);
    } finally {
      process.env["PATH"] = PATH;
    }
  });

  it("uses the cache folder of the environment", () => {
    const before = process.env["SMALTI_CACHE"];
    process.env["SMALTI_CACHE"] = "/tmp/elsewhere";
    expect(defaultCacheDir()).toBe("/tmp/elsewhere");
    delete process.env["SMALTI_CACHE"];
    expect(defaultCacheDir()).toMatch(/smalti/);
    if (before !== undefined) process.env["SMALTI_CACHE"] = before;
  });
});
