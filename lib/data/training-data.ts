// A data set by name or folder, with its held-out part and what else is known of each picture.
import { existsSync, statSync } from "node:fs";
import { DiffusionError } from "../errors.js";
import type { ImageDataset } from "./dataset.js";
import { emojiFolder } from "./emoji.js";
import { openEmojiDataset, type EmojiDataset } from "./emoji-pack.js";
import { openFashionMnist } from "./fashion-mnist.js";
import { openImageFolder } from "./image-folder.js";

export interface AttributeValues {
  /** Names of the values. */
  names: readonly string[];
  /** Index of the value of each picture. */
  values: Int32Array;
}

export interface TrainingData {
  train: ImageDataset;
  heldOut?: ImageDataset;
  /** What can be asked for beside the caption, for the pictures of `train`. */
  attributes: Record<string, AttributeValues>;
}

function emojiAttributes(set: EmojiDataset): Record<string, AttributeValues> {
  const { styles, categories } = set.index;
  const entries = Array.from({ length: set.length }, (_, i) => set.entry(i));
  return {
    style: {
      names: styles,
      values: Int32Array.from(entries, ({ style }) => styles.indexOf(style)),
    },
    category: { names: categories, values: Int32Array.from(entries, ({ category }) => category) },
  };
}

function classAttribute(set: ImageDataset): Record<string, AttributeValues> {
  if (set.classes.length === 0) return {};
  return {
    category: {
      names: set.classes,
      values: Int32Array.from({ length: set.length }, (_, i) => set.label(i)),
    },
  };
}

const fashionSize = 32;

async function openFashion(size: number): Promise<TrainingData> {
  if (size !== fashionSize)
    throw new DiffusionError(
      "data",
      `fashion-mnist: expected a model of pictures of ${fashionSize} pixels, got ${size}`,
    );
  const options = { size: fashionSize, channels: 3 } as const;
  const train = await openFashionMnist({ ...options, split: "train" });
  const heldOut = await openFashionMnist({ ...options, split: "test" });
  return { train, heldOut, attributes: classAttribute(train) };
}

async function openEmoji(folder: string, size: number): Promise<TrainingData> {
  const train = await openEmojiDataset(folder, { split: "train", styleShare: 0 });
  if (train.width !== size) {
    throw new DiffusionError(
      "data",
      `emoji: expected pictures of ${size} pixels, got ${train.width} in ${folder}; build them with smalti data emoji --size ${size}`,
    );
  }
  const heldOut = await openEmojiDataset(folder, { split: "heldOut", styleShare: 0 });
  return { train, heldOut, attributes: emojiAttributes(train) };
}

/**
 * Opens "emoji" (built by `smalti data emoji`), "fashion-mnist" (Debian's files, at size 32), a folder of a built emoji
 * set, or a folder of pictures. Throws "data" when it is missing or empty.
 */
export async function openTrainingData(source: string, size: number): Promise<TrainingData> {
  if (source === "emoji") return openEmoji(emojiFolder(undefined, size), size);
  if (source === "fashion-mnist") return openFashion(size);
  if (!existsSync(source) || !statSync(source).isDirectory()) {
    throw new DiffusionError(
      "data",
      `data: expected "emoji", "fashion-mnist" or a folder of pictures, got "${source}"`,
    );
  }
  if (existsSync(`${source}/images.bin`)) return openEmoji(source, size);
  const train = await openImageFolder(source, { size });
  return { train, attributes: classAttribute(train) };
}
