// Folders as users have them: classes, captions in four forms, damaged files, nothing at all.
import { mkdir, mkdtemp, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { openImageFolder } from "../../lib/data/image-folder.js";
import { loadBatches } from "../../lib/data/loader.js";

const picture = (value: number, format: "png" | "jpeg" | "webp" = "png"): Promise<Buffer> =>
  sharp({
    create: { width: 20, height: 10, channels: 3, background: { r: value, g: value, b: value } },
  })
    .toFormat(format)
    .toBuffer();

async function folderWith(files: Record<string, string | Buffer>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "smalti-"));
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), content);
  }
  return folder;
}

describe("openImageFolder", () => {
  it("opens the held-out emoji of this repository", async () => {
    const folder = join(import.meta.dirname, "../../models/emoji-64/held-out");
    const set = await openImageFolder(folder, { size: 64 });
    expect([set.length, set.files[4], set.captions(4)]).toEqual([
      16,
      "fallen-leaf-google.png",
      ["fallen leaf"],
    ]);
  });

  it("takes sub-folders as classes", async () => {
    const folder = await folderWith({
      "dog/b.jpg": await picture(200, "jpeg"),
      "cat/deep/a.png": await picture(10),
      "cat/c.WEBP": await picture(20, "webp"),
      "cat/.hidden.png": "x",
      "notes.md": "x",
    });
    const set = await openImageFolder(folder, { size: 8 });
    expect(set.files).toEqual(["cat/c.WEBP", "cat/deep/a.png", "dog/b.jpg"]);
    expect(set.classes).toEqual(["cat", "dog"]);
    expect([0, 1, 2].map((i) => set.label(i))).toEqual([0, 0, 1]);
    const pixels = await set.pixels(1);
    expect([pixels.length, pixels[0]]).toEqual([192, 10]);
  });

  it("reads captions from text files, JSON and JSON lines", async () => {
    const image = await picture(0);
    const folder = await folderWith({
      "a.png": image,
      "b.png": image,
      "c.png": image,
      "d.png": image,
      "a.txt": "an a\n\nthe first letter\r\n",
      "captions.json": JSON.stringify({ "b.png": ["a b", "bee"], "a.png": "letter a" }),
      "metadata.jsonl": '{"file_name":"c.png","text":"a c"}\n\n{"file":"c.png","caption":"sea"}\n',
    });
    const set = await openImageFolder(folder, { size: 4 });
    expect([0, 1, 2, 3].map((i) => set.captions(i))).toEqual([
      ["letter a", "an a", "the first letter"],
      ["a b", "bee"],
      ["a c", "sea"],
      [],
    ]);
    expect(set.classes).toEqual([]);
    expect(set.label(0)).toBe(-1);
    expect(set.caption(3, () => 0)).toBe("");
  });

  it("says what is wrong with captions", async () => {
    const open = async (files: Record<string, string>): Promise<unknown> =>
      openImageFolder(await folderWith({ "a.png": await picture(0), ...files }), { size: 4 });
    await expect(open({ "captions.json": '{"x.png": "gone"}' })).rejects.toThrow(
      /captions\.json: .*"x\.png"/,
    );
    await expect(open({ "captions.json": "[1]" })).rejects.toThrow(/JSON object/);
    await expect(open({ "captions.jsonl": '{"file":"a.png","text":"x"}\n{' })).rejects.toThrow(
      /line 2/,
    );
    await expect(open({ "captions.jsonl": '{"file":"a.png","text":3}' })).rejects.toThrow(
      /a text or a list/,
    );
  });

  it("names damaged files, or leaves them out when asked", async () => {
    const image = await picture(9);
    const folder = await folderWith({
      "good.png": image,
      "bad.png": image.subarray(0, 50),
      "worse.jpg": "no",
    });
    await expect(openImageFolder(folder, { size: 4 })).rejects.toThrow(
      /got 2 that are not; .*skipBad[\s\S]*bad\.png/,
    );
    const set = await openImageFolder(folder, { size: 4, skipBad: true });
    expect(set.files).toEqual(["good.png"]);
    expect(set.skipped.map(({ file }) => file)).toEqual(["bad.png", "worse.jpg"]);
    const hopeless = await folderWith({ "bad.png": "x" });
    await expect(openImageFolder(hopeless, { size: 4, skipBad: true })).rejects.toThrow(
      /1 readable pictures/,
    );
  });

  it("decodes on demand without preloading, in batches too", async () => {
    const folder = await folderWith({
      "a.png": await picture(1),
      "b.png": await picture(2),
      "c.png": "broken",
    });
    const set = await openImageFolder(folder, { size: { width: 4, height: 2 }, preload: false });
    expect(set.pixels(0)).toBeInstanceOf(Promise);
    const batches = loadBatches(set, { batchSize: 2, shuffle: false });
    const { value } = await batches.next();
    expect(value!.shape).toEqual([2, 2, 4, 3]);
    await expect(batches.next()).rejects.toThrow(/c\.png/);
  });

  it("refuses missing and empty folders, and survives odd links", async () => {
    const empty = await mkdtemp(join(tmpdir(), "smalti-"));
    await expect(openImageFolder(empty, { size: 4 })).rejects.toThrow(/an empty folder/);
    await expect(openImageFolder(join(empty, "no"), { size: 4 })).rejects.toThrow(/no such folder/);
    await writeFile(join(empty, "readme.txt"), "x");
    await expect(openImageFolder(empty, { size: 4 })).rejects.toThrow(/1 other entries/);
    await symlink(join(empty, "nowhere"), join(empty, "dangling.png"));
    await symlink(empty, join(empty, "loop"));
    await expect(openImageFolder(empty, { size: 4 })).rejects.toMatchObject({ code: "data" });
    await writeFile(join(empty, "real.png"), await picture(0));
    expect((await openImageFolder(empty, { size: 4 })).files).toEqual(["real.png"]);
  });

  it("stops on the signal and reports progress", async () => {
    const folder = await folderWith({ "a.png": await picture(1) });
    const seen: number[] = [];
    await openImageFolder(folder, { size: 4, onProgress: (done) => seen.push(done) });
    expect(seen).toEqual([1]);
    await expect(
      openImageFolder(folder, { size: 4, signal: AbortSignal.abort() }),
    ).rejects.toMatchObject({ code: "aborted" });
  });
});
