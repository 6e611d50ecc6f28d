// Decoding of everything a file can be, and PNG files that carry their own settings.
import { mkdtemp, readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateSync } from "node:zlib";
import fc from "fast-check";
import sharp, { type Color, type Sharp } from "sharp";
import { describe, expect, it } from "vitest";
import { DiffusionError } from "../../lib/errors.js";
import * as io from "../../lib/image/image-io.js";
import { readPngTexts, withPngText } from "../../lib/image/png-text.js";
import { bytesToSigned, signedToBytes } from "../../lib/image/range.js";

const red = { r: 255, g: 0, b: 0 };
const plain = (width: number, height: number, background: Color = red): Sharp =>
  sharp({ create: { width, height, channels: 3, background } });
const first = (image: io.ByteImage): number[] => [...image.data.subarray(0, 3)];
const near = (got: number[], expected: number[], by: number): void =>
  got.forEach((value, i) => expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(by));

describe("decodeImage", () => {
  it("composites alpha on white, and on another colour when asked", async () => {
    const half = await sharp({ create: { width: 4, height: 2, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 0.5 } } }).png().toBuffer(); // prettier-ignore
    const onWhite = await io.decodeImage(half);
    expect([onWhite.width, onWhite.height, onWhite.data.length]).toEqual([4, 2, 24]);
    near(first(onWhite), [127, 127, 127], 1);
    near(first(await io.decodeImage(half, { background: [255, 0, 0] })), [127, 0, 0], 1);
  });

  it("keeps transparent pixels white when resizing", async () => {
    const clear = await sharp({ create: { width: 64, height: 64, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 0 } } }).webp().toBuffer(); // prettier-ignore
    expect(new Set((await io.decodeImage(clear, { size: 16 })).data)).toEqual(new Set([255]));
  });

  it("reads grey, 16-bit, palette and CMYK files as RGB bytes", async () => {
    const grey = await plain(3, 3, { r: 100, g: 100, b: 100 })
      .toColourspace("b-w")
      .png()
      .toBuffer();
    near(first(await io.decodeImage(grey)), [100, 100, 100], 1);
    const deep = await plain(3, 3, { r: 10, g: 200, b: 30 })
      .toColourspace("rgb16")
      .png()
      .toBuffer();
    expect((await sharp(deep).metadata()).depth).toBe("ushort");
    near(first(await io.decodeImage(deep)), [10, 200, 30], 1);
    const palette = await plain(3, 3).png({ palette: true }).toBuffer();
    near(first(await io.decodeImage(palette)), [255, 0, 0], 1);
    const cmyk = await plain(8, 8, { r: 255, g: 255, b: 255 })
      .toColourspace("cmyk")
      .jpeg()
      .toBuffer();
    expect((await sharp(cmyk).metadata()).space).toBe("cmyk");
    near(first(await io.decodeImage(cmyk)), [255, 255, 255], 6);
    const deepGrey = await sharp(Buffer.alloc(18, 128), { raw: { width: 3, height: 3, channels: 1, depth: "ushort" } as never }).toColourspace("grey16").png().toBuffer(); // prettier-ignore
    near(first(await io.decodeImage(deepGrey)), [128, 128, 128], 1);
  });

  it("turns the picture upright", async () => {
    const turned = await plain(4, 2).jpeg().withMetadata({ orientation: 6 }).toBuffer();
    const image = await io.decodeImage(turned);
    expect([image.width, image.height]).toEqual([2, 4]);
  });

  it("takes the first frame of an animation, or refuses with advice", async () => {
    const frames = Buffer.concat([Buffer.alloc(48, 255), Buffer.alloc(48, 0)]);
    const gif = await sharp(frames, { raw: { width: 4, height: 8, channels: 3, pageHeight: 4 } as never }).gif().toBuffer(); // prettier-ignore
    const image = await io.decodeImage(gif);
    expect([image.width, image.height]).toEqual([4, 4]);
    near(first(image), [255, 255, 255], 0);
    await expect(io.decodeImage(gif, { animation: "refuse" })).rejects.toThrow(
      /one frame, got 2; use animation/,
    );
  });

  it("crops, contains, stretches and cuts regions", async () => {
    const wide = await plain(40, 20).png().toBuffer();
    const corner = async (fit: "crop" | "contain" | "stretch"): Promise<number[]> =>
      first(await io.decodeImage(wide, { size: 10, fit }));
    near(await corner("crop"), [255, 0, 0], 0);
    near(await corner("contain"), [255, 255, 255], 0);
    near(await corner("stretch"), [255, 0, 0], 0);
    const region = await io.decodeImage(wide, { region: { left: 5, top: 5, width: 7, height: 3 } });
    expect([region.width, region.height]).toEqual([7, 3]);
    const outside = io.decodeImage(wide, { region: { left: 35, top: 5, width: 7, height: 3 } });
    await expect(outside).rejects.toThrow(/region inside/);
  });

  it.each([
    ["an empty file", Buffer.alloc(0), /empty file/],
    ["text", Buffer.from("hello, I am not a picture at all"), /something else or a damaged header/],
    ["PDF", Buffer.from("%PDF-1.4\n%\n1 0 obj<<>>endobj"), /expected PNG, JPEG|decodable/],
  ])("refuses %s", async (_, bytes, message) => {
    await expect(io.decodeImage(bytes)).rejects.toThrow(message);
    await expect(io.decodeImage(bytes)).rejects.toBeInstanceOf(DiffusionError);
  });

  it("refuses truncated files of every format", async () => {
    const noise = Buffer.from(
      Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 2654435761) >>> 24),
    );
    const source = (): Sharp => sharp(noise, { raw: { width: 64, height: 64, channels: 3 } });
    for (const whole of [
      await source().png().toBuffer(),
      await source().jpeg().toBuffer(),
      await source().webp().toBuffer(),
    ]) {
      const cut = whole.subarray(0, Math.floor(whole.length * 0.6));
      await expect(io.decodeImage(cut)).rejects.toMatchObject({ code: "data" });
    }
  });

  it("refuses enormous pictures before decoding them, whatever the header claims", async () => {
    const picture = await plain(300, 300).png().toBuffer();
    await expect(io.decodeImage(picture, { maxPixels: 1000 })).rejects.toThrow(
      /at most 1000 pixels.*maxPixels/,
    );
    const bomb = Buffer.from(picture);
    bomb.writeUInt32BE(100_000, 16);
    bomb.writeUInt32BE(100_000, 20);
    await expect(io.decodeImage(bomb)).rejects.toMatchObject({ code: "data" });
  });

  it("says what is wrong with a path", async () => {
    const folder = await mkdtemp(join(tmpdir(), "smalti-"));
    await expect(io.decodeImage(join(folder, "no.png"))).rejects.toThrow(/no\.png: .*no such file/);
    await expect(io.decodeImage(folder)).rejects.toThrow(/a folder/);
    await expect(io.decodeImage("x", { sise: 3 } as never)).rejects.toThrow(/sise/);
  });

  it("survives damaged bytes", async () => {
    const good = await plain(16, 16).png().toBuffer();
    const damage = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), {
      minLength: 1,
      maxLength: 8,
    });
    await fc.assert(
      fc.asyncProperty(damage, async (changes) => {
        const bytes = Buffer.from(good);
        for (const [at, value] of changes) bytes[at] = value;
        const result = await io.decodeImage(bytes).catch((error: unknown) => error);
        expect(result instanceof DiffusionError || "data" in (result as object)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });
});

describe("range", () => {
  it("maps bytes to [-1, 1] and back exactly", () => {
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
    const signed = bytesToSigned(bytes);
    expect([signed[0], signed[255]]).toEqual([-1, 1]);
    expect(signedToBytes(signed)).toEqual(bytes);
  });

  it("clamps, and refuses NaN", () => {
    expect([...signedToBytes(new Float32Array([-5, 5, -Infinity, Infinity]))]).toEqual([
      0, 255, 0, 255,
    ]);
    expect(() => signedToBytes(new Float32Array([0, NaN]))).toThrow(/NaN in 1 of 2/);
  });
});

describe("PNG with settings", () => {
  const image: io.FloatImage = {
    width: 5,
    height: 3,
    data: Float32Array.from({ length: 45 }, (_, i) => i / 22 - 1),
  };
  const metadata = {
    model: "emoji-64",
    prompt: 'ein "Apfel" 🍎',
    seed: 7,
    settings: { steps: 20, guidanceScale: 4 },
  };

  it("comes back with the same pixels and settings, from bytes and from a file", async () => {
    const folder = await mkdtemp(join(tmpdir(), "smalti-"));
    const path = join(folder, "new", "a.png");
    await io.writePng(path, image, metadata);
    expect(await io.readPngMetadata(path)).toEqual(metadata);
    expect((await io.decodeImage(path)).data).toEqual(io.toByteImage(image).data);
    expect(await readdir(join(folder, "new"))).toEqual(["a.png"]);
    expect(await io.readPngMetadata(await io.encodePng(image))).toBeUndefined();
  });

  it("is seen by other readers, replaces an older text and reads compressed ones", async () => {
    const png = await io.encodePng(image, metadata);
    const comments = (await sharp(png).metadata()).comments ?? [];
    expect(comments.map(({ keyword }) => keyword)).toContain("smalti");
    const twice = withPngText(withPngText(png, "smalti", "1"), "smalti", '{"model":"b"}');
    expect([...readPngTexts(twice)]).toEqual([["smalti", '{"model":"b"}']]);
    const packed = deflateSync(Buffer.from("hidden"));
    const body = Buffer.concat([
      Buffer.from("zTXt"),
      Buffer.from("k\0\0"),
      packed,
      Buffer.alloc(4),
    ]);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(body.length - 8);
    const at = 33;
    const withPacked = Buffer.concat([twice.subarray(0, at), length, body, twice.subarray(at)]);
    expect(readPngTexts(withPacked).get("k")).toBe("hidden");
  });

  it("refuses what is no PNG, truncated or no JSON", async () => {
    const png = await io.encodePng(image, metadata);
    await expect(io.readPngMetadata(await plain(2, 2).jpeg().toBuffer())).rejects.toThrow(
      /PNG files only/,
    );
    await expect(io.readPngMetadata(png.subarray(0, png.length - 20))).rejects.toThrow(/truncated/);
    await expect(io.readPngMetadata(withPngText(png, "smalti", "{"))).rejects.toThrow(
      /JSON object/,
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(png.length), (noise, at) => {
        const bytes = Buffer.concat([png.subarray(0, at), noise]);
        try {
          readPngTexts(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(DiffusionError);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it("refuses pixels that do not fit the size", async () => {
    await expect(io.encodePng({ width: 2, height: 2, data: new Uint8Array(3) })).rejects.toThrow(
      /2x2x3 = 12 values, got 3/,
    );
    await expect(io.writePng("/proc/nowhere/a.png", image)).rejects.toMatchObject({ code: "data" });
    const file = join(await mkdtemp(join(tmpdir(), "smalti-")), "file");
    await writeFile(file, "");
    await expect(io.writePng(join(file, "a.png"), image)).rejects.toThrow(
      /a parent that is a file/,
    );
  });
});

describe("resize", () => {
  it("uses the filter that was asked for", async () => {
    const image = { width: 2, height: 1, data: Uint8Array.from([0, 0, 0, 255, 255, 255]) };
    const png = await io.encodePng(image);
    const big = await io.decodeImage(png, { size: { width: 4, height: 2 }, filter: "nearest" });
    expect([...big.data.subarray(0, 12)]).toEqual([0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255]);
    await expect(io.decodeImage(png, { size: 0 })).rejects.toThrow(/from 1 to 16384, got 0x0/);
  });
});
