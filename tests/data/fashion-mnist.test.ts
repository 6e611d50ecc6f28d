// The IDX reader on files made here, and on the real set where Debian's package is installed.
import { existsSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { fashionClasses, openFashionMnist, parseIdx } from "../../lib/data/fashion-mnist.js";

const idx = (sizes: number[], data: number[]): Buffer => {
  const head = Buffer.alloc(4 + 4 * sizes.length);
  head.writeUInt32BE(0x0800 + sizes.length);
  sizes.forEach((size, i) => head.writeUInt32BE(size, 4 + 4 * i));
  return Buffer.concat([head, Buffer.from(data)]);
};

async function folderWith(images: Buffer, labels: Buffer): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "smalti-"));
  await writeFile(join(folder, "t10k-images-idx3-ubyte.gz"), images);
  await writeFile(join(folder, "t10k-labels-idx1-ubyte.gz"), labels);
  return folder;
}

describe("openFashionMnist", () => {
  const pixels = Array.from({ length: 2 * 784 }, (_, i) => i % 251);

  it("reads pictures and labels, with a border and three channels when asked", async () => {
    const folder = await folderWith(gzipSync(idx([2, 28, 28], pixels)), gzipSync(idx([2], [9, 0])));
    const plain = await openFashionMnist({ folder, split: "test" });
    expect([plain.length, plain.width, plain.channels]).toEqual([2, 28, 1]);
    expect([plain.label(0), plain.caption(0, () => 0)]).toEqual([9, "ankle boot"]);
    expect([...(await plain.pixels(1))]).toEqual(pixels.slice(784));
    const wide = await openFashionMnist({ folder, split: "test", size: 32, channels: 3 });
    const picture = await wide.pixels(1);
    expect(picture).toHaveLength(32 * 32 * 3);
    const at = (row: number, column: number): number[] => [...picture.subarray((row * 32 + column) * 3, (row * 32 + column) * 3 + 3)]; // prettier-ignore
    expect(at(0, 0)).toEqual([0, 0, 0]);
    expect(at(2, 3)).toEqual(Array(3).fill(pixels[785]));
    expect(at(29, 29)).toEqual(Array(3).fill(pixels[784 + 783]));
  });

  it("refuses missing, foreign and inconsistent files", async () => {
    const good = gzipSync(idx([2, 28, 28], pixels));
    await expect(openFashionMnist({ folder: "/nowhere" })).rejects.toThrow(/dataset-fashion-mnist/);
    const open = async (images: Buffer, labels: Buffer): Promise<unknown> =>
      openFashionMnist({ folder: await folderWith(images, labels), split: "test" });
    await expect(open(Buffer.from("x"), good)).rejects.toMatchObject({ code: "data" });
    await expect(open(good, gzipSync(idx([3], [1, 2, 3])))).rejects.toThrow(/3 labels/);
    await expect(open(good, gzipSync(idx([2], [1, 20])))).rejects.toThrow(/labels 0 to 9/);
    await expect(open(gzipSync(idx([2, 28, 28], [1])), good)).rejects.toThrow(/1 bytes of data/);
    expect(() => parseIdx(Buffer.from([0, 0]), 1, "x")).toThrow(/2 bytes/);
  });

  it.skipIf(!existsSync("/usr/share/datasets/fashion-mnist"))("opens the real set", async () => {
    const test = await openFashionMnist({ split: "test" });
    expect(test.length).toBe(10000);
    const counts = fashionClasses.map((_, label) => Array.from({ length: 10000 }, (__, i) => test.label(i)).filter((l) => l === label).length); // prettier-ignore
    expect(counts).toEqual(Array(10).fill(1000));
  });
});
