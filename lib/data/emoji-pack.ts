// The emoji set as it lies in the cache: images.bin (uint8, (count, size, size, 3)) and index.json.
// Opening it reads one file into memory, after which a picture is a view.
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { checkOptions, DiffusionError, nearestName } from "../errors.js";
import type { Draw, ImageDataset } from "./dataset.js";
import { toneWords } from "./emoji-words.js";

export const emojiStyles = ["google", "twitter", "fluent"] as const;
export type EmojiStyle = (typeof emojiStyles)[number];

export interface EmojiEntry {
  unified: string;
  character: string;
  family: string;
  category: number;
  subcategory: number;
  heldOut: boolean;
  captions: string[];
  keywords: string[];
}

export interface EmojiPicture {
  emoji: number;
  style: number;
  /** "" or code points of the skin tones, e.g. "1F3FB" or "1F3FB-1F3FF". */
  tone: string;
  weight: number;
}

export interface EmojiSource {
  package: string;
  version: string;
  content: string;
  licence: string;
}

export interface EmojiIndex {
  format: "smalti-emoji";
  version: 1;
  size: number;
  sources: EmojiSource[];
  styles: string[];
  categories: string[];
  subcategories: string[];
  emoji: EmojiEntry[];
  pictures: EmojiPicture[];
}

export interface EmojiOptions {
  /** Default "train". */
  split?: "train" | "heldOut" | "all";
  /** Default all three. */
  styles?: readonly EmojiStyle[];
  /** Include the skin-tone variants. Default true. */
  skinTones?: boolean;
  /**
   * Share of training captions that name the style (", google style"). Default 0.85; `captions`
   * always lists both.
   */
  styleShare?: number;
}

export interface EmojiDataset extends ImageDataset {
  readonly index: EmojiIndex;
  /** What picture `i` of this selection shows. */
  entry(index: number): EmojiEntry & { style: EmojiStyle; tone: string };
}

export const indexFile = "index.json";
export const imagesFile = "images.bin";

/** "red apple" + "google" -> "red apple, google style". */
const withStyle = (caption: string, style: EmojiStyle): string => `${caption}, ${style} style`;

/** Opens a folder that buildEmojiDataset wrote. Throws "data" when it is missing or incomplete. */
export async function openEmojiDataset(
  folder: string,
  options: EmojiOptions = {},
): Promise<EmojiDataset> {
  checkOptions("openEmojiDataset", options, ["split", "styles", "skinTones", "styleShare"]);
  const index = await readEmojiIndex(folder);
  checkStyles(options.styles ?? emojiStyles);
  const images = await readFile(join(folder, imagesFile));
  return selectEmoji(
    index,
    new Uint8Array(images.buffer, images.byteOffset, images.byteLength),
    options,
  );
}

/** Reads and checks index.json and the length of images.bin. */
export async function readEmojiIndex(folder: string): Promise<EmojiIndex> {
  const problem = (got: string, cause?: unknown): DiffusionError =>
    new DiffusionError(
      "data",
      `emoji set: expected ${imagesFile} and ${indexFile} in "${folder}", got ${got}; ` +
        "build it with buildEmojiDataset (smalti data emoji)",
      { cause },
    );
  const text = await readFile(join(folder, indexFile), "utf8").catch(
    (cause: NodeJS.ErrnoException) => {
      throw problem(cause.code === "ENOENT" ? "no index" : cause.message, cause);
    },
  );
  let index: EmojiIndex;
  try {
    index = JSON.parse(text) as EmojiIndex;
  } catch (cause) {
    throw problem("an index that is no JSON", cause);
  }
  if (index.format !== "smalti-emoji" || index.version !== 1)
    throw problem(`an index of another format (${String(index.format)} ${String(index.version)})`);
  const bytes = index.pictures.length * index.size ** 2 * 3;
  const images = await stat(join(folder, imagesFile)).catch(() => undefined);
  if (images?.size !== bytes)
    throw problem(images ? `${images.size} bytes of pictures instead of ${bytes}` : "no pictures");
  return index;
}

function checkStyles(styles: readonly string[]): void {
  const known: readonly string[] = emojiStyles;
  const bad = styles.find((style) => !known.includes(style));
  if (bad !== undefined)
    throw new DiffusionError(
      "option",
      `openEmojiDataset: expected styles from ${emojiStyles.join(", ")}, got "${bad}"; did ` +
        `you mean "${nearestName(bad, known)}"?`,
    );
}

function selectEmoji(index: EmojiIndex, images: Uint8Array, options: EmojiOptions): EmojiDataset {
  const { split = "train", styles = emojiStyles, skinTones = true, styleShare = 0.85 } = options;
  const wanted = styles.map((style) => index.styles.indexOf(style));
  const kept = index.pictures.flatMap((picture, i) => {
    const inSplit =
      split === "all" || index.emoji[picture.emoji]!.heldOut === (split === "heldOut");
    return inSplit && wanted.includes(picture.style) && (skinTones || picture.tone === "")
      ? [i]
      : [];
  });
  if (kept.length === 0)
    throw new DiffusionError(
      "data",
      "emoji set: expected at least one picture, got none for these options",
    );
  const bytes = index.size ** 2 * 3;
  const pictureAt = (i: number): EmojiPicture => index.pictures[kept[i]!]!;
  const entry: EmojiDataset["entry"] = (i) => {
    const { emoji, style, tone } = pictureAt(i);
    return { ...index.emoji[emoji]!, style: index.styles[style] as EmojiStyle, tone };
  };
  return {
    name: `emoji ${split}`,
    length: kept.length,
    width: index.size,
    height: index.size,
    channels: 3,
    classes: index.categories,
    index,
    entry,
    pixels: (i) => images.subarray(kept[i]! * bytes, (kept[i]! + 1) * bytes),
    label: (i) => index.emoji[pictureAt(i).emoji]!.category,
    weight: (i) => pictureAt(i).weight,
    captions: (i) => {
      const { captions, style, tone } = entry(i);
      const toned = captions.map((caption) => withTone(caption, tone));
      return [...toned.map((caption) => withStyle(caption, style)), ...toned];
    },
    caption: (i, draw) => {
      const { captions, keywords, style, tone } = entry(i);
      const caption = withTone(composeCaption(captions, keywords, draw), tone);
      return draw(1000) < styleShare * 1000 ? withStyle(caption, style) : caption;
    },
  };
}

const withTone = (caption: string, tone: string): string =>
  tone === "" ? caption : `${caption}, ${toneWords(tone)}`;

// 60 % the best name, 15 % any name, 25 % the best name with one or two keywords.
function composeCaption(
  captions: readonly string[],
  keywords: readonly string[],
  draw: Draw,
): string {
  const best = captions[0]!;
  const kind = draw(100);
  if (kind < 60) return best;
  if (kind < 75 || keywords.length === 0) return captions[draw(captions.length)]!;
  const first = draw(keywords.length);
  const second = draw(keywords.length);
  const words =
    first === second || kind < 88 ? [keywords[first]] : [keywords[first], keywords[second]];
  return [best, ...words].join(", ");
}
