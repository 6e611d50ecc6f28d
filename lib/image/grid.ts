// Pictures of pictures: contact sheets with captions, before and after side by side, and pixels
// made large.
import { checkOptions, DiffusionError } from "../errors.js";
import { toByteImage, type ByteImage, type Image, type Rgb } from "./image-io.js";
import { loadSharp } from "./sharp.js";

export interface SheetOptions {
  /** Pictures in a row. Default: about as many as rows. */
  columns?: number;
  /** Pixels between pictures and around them. Default 4. */
  gap?: number;
  /** Whole factor by which every pixel is repeated. Default 1. */
  zoom?: number;
  /** One text a picture, written below it, cut to two lines. */
  captions?: readonly string[];
  /** Default white. */
  background?: Rgb;
}

const fontSize = 11;
const lineHeight = 13;
const characterWidth = 5.9; // mean advance of the sans fonts at 11 px, for cutting lines

/**
 * Repeats every pixel `factor` times in both directions: shows what the model made, not what a
 * filter made of it.
 */
export function zoomNearest(image: Image, factor: number): ByteImage {
  if (!Number.isInteger(factor) || factor < 1 || factor > 64)
    throw new DiffusionError(
      "option",
      `zoomNearest: expected a whole factor from 1 to 64, got ${factor}`,
    );
  const { width, height, data } = toByteImage(image);
  const zoomed = {
    width: width * factor,
    height: height * factor,
    data: new Uint8Array(data.length * factor * factor),
  };
  for (let y = 0; y < zoomed.height; ++y) {
    const source = Math.floor(y / factor) * width;
    for (let x = 0; x < zoomed.width; ++x) {
      const from = (source + Math.floor(x / factor)) * 3;
      zoomed.data.set(data.subarray(from, from + 3), (y * zoomed.width + x) * 3);
    }
  }
  return zoomed;
}

/**
 * Puts pictures (of any sizes) on one sheet in reading order, each centred in a cell of the largest
 * size.
 */
export async function contactSheet(
  images: readonly Image[],
  options: SheetOptions = {},
): Promise<ByteImage> {
  checkOptions("contactSheet", options, ["columns", "gap", "zoom", "captions", "background"]);
  if (images.length === 0)
    throw new DiffusionError("option", "contactSheet: expected at least one image, got none");
  const { gap = 4, zoom = 1, captions, background = [255, 255, 255] } = options;
  if (captions && captions.length !== images.length)
    throw new DiffusionError(
      "option",
      `contactSheet: expected ${images.length} captions, got ${captions.length}`,
    );
  const { columns = Math.ceil(Math.sqrt(images.length)) } = options;
  const pictures = images.map((image) => zoomNearest(image, zoom));
  const cellWidth = Math.max(...pictures.map((p) => p.width));
  const cellHeight = Math.max(...pictures.map((p) => p.height));
  const lines = captions?.map((caption) => wrap(caption, Math.floor(cellWidth / characterWidth)));
  const captionHeight = lines ? Math.max(...lines.map((l) => l.length)) * lineHeight + 3 : 0;
  const rows = Math.ceil(images.length / columns);
  const sheet = blank(
    gap + columns * (cellWidth + gap),
    gap + rows * (cellHeight + captionHeight + gap),
    background,
  );
  const texts: string[] = [];
  pictures.forEach((picture, i) => {
    const left = gap + (i % columns) * (cellWidth + gap);
    const top = gap + Math.floor(i / columns) * (cellHeight + captionHeight + gap);
    paste(
      sheet,
      picture,
      left + ((cellWidth - picture.width) >> 1),
      top + ((cellHeight - picture.height) >> 1),
    );
    lines?.[i]!.forEach((line, row) =>
      texts.push(
        textElement(line, left + cellWidth / 2, top + cellHeight + fontSize + row * lineHeight),
      ),
    );
  });
  return lines ? drawTexts(sheet, texts, background) : sheet;
}

/**
 * Two pictures (or two equally long lists) next to each other: the left column before, the right
 * one after.
 */
export async function sideBySide(
  before: Image | readonly Image[],
  after: Image | readonly Image[],
  options: {
    zoom?: number;
    gap?: number;
    labels?: readonly [string, string];
    background?: Rgb;
  } = {},
): Promise<ByteImage> {
  checkOptions("sideBySide", options, ["zoom", "gap", "labels", "background"]);
  const lefts = [before].flat() as Image[];
  const rights = [after].flat() as Image[];
  if (lefts.length !== rights.length)
    throw new DiffusionError(
      "option",
      `sideBySide: expected as many images after as before (${lefts.length}), got ${rights.length}`,
    );
  const { labels, ...rest } = options;
  const captions = labels && lefts.flatMap(() => [...labels]);
  return contactSheet(
    lefts.flatMap((left, i) => [left, rights[i]!]),
    { columns: 2, ...rest, ...(captions && { captions }) },
  );
}

function blank(width: number, height: number, background: Rgb): ByteImage {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < data.length; ++i) data[i] = background[i % 3]!;
  return { width, height, data };
}

function paste(sheet: ByteImage, picture: ByteImage, left: number, top: number): void {
  for (let y = 0; y < picture.height; ++y)
    sheet.data.set(
      picture.data.subarray(y * picture.width * 3, (y + 1) * picture.width * 3),
      ((top + y) * sheet.width + left) * 3,
    );
}

// Words fill up to two lines; what does not fit ends in an ellipsis.
function wrap(caption: string, characters: number): string[] {
  const width = Math.max(characters, 4);
  const lines = [""];
  for (const word of caption.split(/\s+/).filter(Boolean)) {
    const line = lines.at(-1)!;
    if (line === "") lines[lines.length - 1] = word;
    else if (line.length + 1 + word.length <= width) lines[lines.length - 1] = `${line} ${word}`;
    else lines.push(word);
  }
  const shown = lines.slice(0, 2);
  if (lines.length > 2) shown[1] = `${shown[1]} …`;
  return shown.map((line) => (line.length <= width ? line : `${line.slice(0, width - 1)}…`));
}

const escapes: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

// Control characters and halves of surrogate pairs are not allowed in XML at all.
const escapeXml = (text: string): string =>
  text.replace(/\p{Cc}|\p{Cs}|[\ufffe\uffff]/gu, "").replace(/[&<>"]/g, (c) => escapes[c]!);

const textElement = (line: string, x: number, y: number): string =>
  `<text x="${x}" y="${y}" text-anchor="middle">${escapeXml(line)}</text>`;

async function drawTexts(sheet: ByteImage, texts: string[], [r, g, b]: Rgb): Promise<ByteImage> {
  const { width, height, data } = sheet;
  const ink = r * 0.299 + g * 0.587 + b * 0.114 > 127 ? "#222" : "#eee";
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ` +
    `font-family="DejaVu Sans, Arial, Helvetica, sans-serif" font-size="${fontSize}" ` +
    `fill="${ink}">${texts.join("")}</svg>`;
  const drawn = await loadSharp()(data, {
    raw: { width, height, channels: 3 },
    limitInputPixels: false,
  })
    .composite([{ input: Buffer.from(svg), top: 0, left: 0, limitInputPixels: false }])
    .removeAlpha()
    .raw()
    .toBuffer();
  return { width, height, data: new Uint8Array(drawn.buffer, drawn.byteOffset, drawn.byteLength) };
}
