// Pixels from and to files, through sharp: whatever the file holds (alpha, CMYK, 16 bit, rotation
// tags, frames) becomes RGB bytes in rows from the top, and every way a file can be wrong becomes
// one clear error.
import { readFile } from "node:fs/promises";
import type { Metadata, Sharp } from "sharp";
import { checkOptions, DiffusionError } from "../errors.js";
import { writeFileAtomic } from "../files/atomic-write.js";
import { isPng, readPngTexts, withPngText } from "./png-text.js";
import { bytesToSigned, signedToBytes } from "./range.js";
import { loadSharp } from "./sharp.js";

/** RGB, rows from the top, 3 bytes a pixel. */
export interface ByteImage {
  width: number;
  height: number;
  data: Uint8Array;
}

/** RGB, rows from the top, 3 floats in [-1, 1] a pixel: (H, W, 3). */
export interface FloatImage {
  width: number;
  height: number;
  data: Float32Array;
}

export type Image = ByteImage | FloatImage;
export type Rgb = readonly [red: number, green: number, blue: number];

export interface Region {
  left: number;
  top: number;
  width: number;
  height: number;
}

export type Filter = "nearest" | "linear" | "cubic" | "lanczos3";

export interface DecodeOptions {
  /** Cut this region out first, in pixels of the upright picture. */
  region?: Region;
  /** Size of the result: one number for a square. Default: as stored. */
  size?: number | { width: number; height: number };
  /**
   * "crop" fills and cuts the centre (default), "contain" adds background, "stretch" ignores the
   * aspect.
   */
  fit?: "crop" | "contain" | "stretch";
  /** Resampling filter. Default "lanczos3". */
  filter?: Filter;
  /** Colour behind transparent pixels, and the border of "contain". Default white. */
  background?: Rgb;
  /** Animated files: take the first frame (default) or refuse. */
  animation?: "first" | "refuse";
  /** Refuse pictures with more pixels than this, before decoding them. Default 100 million. */
  maxPixels?: number;
}

/** What a picture made by smalti says about itself in its PNG text chunk "smalti". */
export interface GenerationMetadata {
  model: string;
  prompt?: string;
  seed?: number;
  settings?: Record<string, unknown>;
  [key: string]: unknown;
}

const metadataKey = "smalti";
const readable = ["png", "jpeg", "jpg", "webp", "gif", "tiff", "avif", "heif", "svg"];
const white: Rgb = [255, 255, 255];
const fits = { crop: "cover", contain: "contain", stretch: "fill" } as const;
const decodeOptionNames = [
  "region",
  "size",
  "fit",
  "filter",
  "background",
  "animation",
  "maxPixels",
];

/**
 * Decodes PNG, JPEG, WebP, GIF, TIFF, AVIF or SVG from a path or from bytes to RGB bytes. Alpha is
 * composited on white. Throws DiffusionError "data" for a missing, corrupt, truncated, unsupported
 * or too large file.
 */
export async function decodeImage(
  source: string | Uint8Array,
  options: DecodeOptions = {},
): Promise<ByteImage> {
  checkOptions("decodeImage", options, decodeOptionNames);
  const { maxPixels = 1e8, background = white, filter = "lanczos3" } = options;
  const name = nameOf(source);
  const bytes = typeof source === "string" ? await readImageFile(source) : source;
  if (bytes.byteLength === 0)
    throw new DiffusionError("data", `${name}: expected an image, got an empty file`);
  const sharp = loadSharp();
  try {
    const picture = sharp(bytes, {
      limitInputPixels: maxPixels,
      failOn: "error",
      sequentialRead: false,
    });
    checkContent(await picture.metadata(), name, options, maxPixels);
    const { data, info } = await shaped(picture.autoOrient(), options, background, filter)
      .flatten({ background: colour(background) })
      .toColourspace("srgb")
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    return { width: info.width, height: info.height, data: toRgb(data, info.channels) };
  } catch (error) {
    throw asDecodeError(error, name, maxPixels);
  }
}

/** As decodeImage, with values in [-1, 1]. */
export async function decodeFloatImage(
  source: string | Uint8Array,
  options: DecodeOptions = {},
): Promise<FloatImage> {
  return toFloatImage(await decodeImage(source, options));
}

/** The same picture with values in [-1, 1]. */
export const toFloatImage = ({ width, height, data }: Image): FloatImage => ({
  width,
  height,
  data: data instanceof Float32Array ? data : bytesToSigned(data),
});

/** The same picture as bytes; values are rounded and clamped. */
export const toByteImage = ({ width, height, data }: Image): ByteImage => ({
  width,
  height,
  data: data instanceof Uint8Array ? data : signedToBytes(data),
});

/** PNG bytes of a picture, with its generation settings inside when given. */
export async function encodePng(image: Image, metadata?: GenerationMetadata): Promise<Buffer> {
  const { width, height, data } = checkedBytes("encodePng", image);
  const png = await loadSharp()(data, { raw: { width, height, channels: 3 } })
    .png({ compressionLevel: 9 })
    .toBuffer();
  return metadata === undefined ? png : withPngText(png, metadataKey, JSON.stringify(metadata));
}

/** Writes a PNG file atomically. */
export async function writePng(
  path: string,
  image: Image,
  metadata?: GenerationMetadata,
): Promise<void> {
  await writeFileAtomic(path, await encodePng(image, metadata), { where: "writePng" });
}

/**
 * The settings that encodePng stored, or undefined when the PNG carries none. Throws "data" when it
 * is no PNG.
 */
export async function readPngMetadata(
  source: string | Uint8Array,
): Promise<GenerationMetadata | undefined> {
  const bytes = typeof source === "string" ? await readImageFile(source) : source;
  if (!isPng(bytes))
    throw new DiffusionError(
      "data",
      `${nameOf(source)}: expected a PNG file, got another format; generation settings are ` +
        "kept in PNG files only",
    );
  const text = readPngTexts(bytes, nameOf(source)).get(metadataKey);
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value))
      return value as GenerationMetadata;
    throw new Error(`a JSON ${typeof value}`);
  } catch (cause) {
    throw new DiffusionError(
      "data",
      `${nameOf(source)}: expected a JSON object in text chunk "${metadataKey}", got ` +
        `${(cause as Error).message}`,
      { cause },
    );
  }
}

function shaped(picture: Sharp, options: DecodeOptions, background: Rgb, filter: Filter): Sharp {
  const { region, size, fit = "crop" } = options;
  if (region) picture = picture.extract(region);
  if (size === undefined) return picture;
  const { width, height } = typeof size === "number" ? { width: size, height: size } : size;
  if (![width, height].every((edge) => Number.isInteger(edge) && edge > 0 && edge <= 16384))
    throw new DiffusionError(
      "option",
      `image: expected a size of whole pixels from 1 to 16384, got ${width}x${height}`,
    );
  return picture.resize(width, height, {
    fit: fits[fit],
    kernel: filter,
    background: colour(background),
  });
}

function checkContent(
  content: Metadata,
  name: string,
  options: DecodeOptions,
  maxPixels: number,
): void {
  if (!readable.includes(content.format))
    throw new DiffusionError(
      "data",
      `${name}: expected PNG, JPEG, WebP, GIF, TIFF, AVIF or SVG, got ${content.format}; ` +
        "convert it first",
    );
  const pixels = content.width * content.height;
  if (pixels > maxPixels) throw tooLarge(name, `${content.width}x${content.height}`, maxPixels);
  if (options.animation === "refuse" && (content.pages ?? 1) > 1)
    throw new DiffusionError(
      "data",
      `${name}: expected one frame, got ${content.pages}; use animation: "first" to take ` +
        "the first one",
    );
}

async function readImageFile(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const problem = {
      ENOENT: "no such file",
      EISDIR: "a folder",
      EACCES: "a file without read permission",
    }[code ?? ""];
    throw new DiffusionError(
      "data",
      `${path}: expected a readable image file, got ${problem ?? (cause as Error).message}`,
      { cause },
    );
  }
}

function checkedBytes(where: string, image: Image): ByteImage {
  const expected = image.width * image.height * 3;
  if (!(expected > 0) || image.data.length !== expected)
    throw new DiffusionError(
      "shape",
      `${where}: expected ${image.width}x${image.height}x3 = ${expected} values, got ` +
        `${image.data.length}`,
    );
  return toByteImage(image);
}

// sharp hands back one or two channels for grey files even in sRGB.
function toRgb(data: Uint8Array, channels: number): Uint8Array {
  if (channels === 3) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const pixels = data.length / channels;
  const rgb = new Uint8Array(pixels * 3);
  for (let i = 0; i < pixels; ++i)
    for (let c = 0; c < 3; ++c) rgb[i * 3 + c] = data[i * channels + (channels > 2 ? c : 0)]!;
  return rgb;
}

function asDecodeError(error: unknown, name: string, maxPixels: number): DiffusionError {
  if (error instanceof DiffusionError) return error;
  const text = (error as Error).message.replace(/\s+/g, " ").trim();
  if (/pixel limit|exceeds/i.test(text)) return tooLarge(name, "more", maxPixels, error);
  if (/unsupported image format/i.test(text))
    return new DiffusionError(
      "data",
      `${name}: expected PNG, JPEG, WebP, GIF, TIFF, AVIF or SVG, got something else or a ` +
        "damaged header",
      { cause: error },
    );
  if (/bad extract area|extract_area/i.test(text))
    return new DiffusionError(
      "option",
      `${name}: expected a region inside the picture, got one outside`,
      { cause: error },
    );
  return new DiffusionError(
    "data",
    `${name}: expected a decodable image, got a damaged or truncated file (${text})`,
    { cause: error },
  );
}

const tooLarge = (name: string, got: string, maxPixels: number, cause?: unknown): DiffusionError =>
  new DiffusionError(
    "data",
    `${name}: expected at most ${maxPixels} pixels, got ${got}; shrink the picture or ` +
      "raise maxPixels",
    { cause },
  );

const nameOf = (source: string | Uint8Array): string =>
  typeof source === "string" ? source : "image bytes";
const colour = ([r, g, b]: Rgb): { r: number; g: number; b: number } => ({ r, g, b });
