// Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747) from the gzipped IDX files of Debian's
// dataset-fashion-mnist or of the authors: 28x28 grey pictures of ten kinds of clothes.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { checkOptions, DiffusionError } from "../errors.js";
import { sizeOf } from "../ir/shape.js";
import { memoryDataset, type ImageDataset } from "./dataset.js";

export const fashionClasses = [
  "t-shirt",
  "trouser",
  "pullover",
  "dress",
  "coat",
  "sandal",
  "shirt",
  "sneaker",
  "bag",
  "ankle boot",
];

export interface FashionMnistOptions {
  /** Default Debian's /usr/share/datasets/fashion-mnist. */
  folder?: string;
  /** Default "train" (60,000); "test" has 10,000. */
  split?: "train" | "test";
  /** 28 as stored, or 32 with a black border (for models that halve four times). Default 28. */
  size?: 28 | 32;
  /** 1, or 3 equal ones. Default 1. */
  channels?: 1 | 3;
}

const maxFileBytes = 1 << 27;

/**
 * Opens a split in memory; the caption of a picture is the name of its class. Throws "data" when
 * files are missing.
 */
export async function openFashionMnist(options: FashionMnistOptions = {}): Promise<ImageDataset> {
  checkOptions("openFashionMnist", options, ["folder", "split", "size", "channels"]);
  const {
    folder = "/usr/share/datasets/fashion-mnist",
    split = "train",
    size = 28,
    channels = 1,
  } = options;
  if (![28, 32].includes(size) || ![1, 3].includes(channels))
    throw new DiffusionError(
      "option",
      `openFashionMnist: expected size 28 or 32 and channels 1 or 3, got ${size} and ${channels}`,
    );
  const prefix = split === "train" ? "train" : "t10k";
  const images = parseIdx(
    await readGzip(join(folder, `${prefix}-images-idx3-ubyte.gz`)),
    3,
    "images",
  );
  const labels = parseIdx(
    await readGzip(join(folder, `${prefix}-labels-idx1-ubyte.gz`)),
    1,
    "labels",
  );
  const [count, height, width] = images.shape as [number, number, number];
  if (
    height !== 28 ||
    width !== 28 ||
    labels.shape[0] !== count ||
    labels.data.some((label) => label > 9)
  )
    throw new DiffusionError(
      "data",
      `fashion-mnist: expected 28x28 images with labels 0 to 9, got ${count} of ` +
        `${height}x${width} and ${labels.shape[0]} labels`,
    );
  return memoryDataset({
    name: `fashion-mnist ${split}`,
    width: size,
    height: size,
    channels,
    pixels: expand(images.data, count, size, channels),
    labels: Array.from(labels.data),
    classes: fashionClasses,
    captions: Array.from(labels.data, (label) => fashionClasses[label]!),
  });
}

async function readGzip(path: string): Promise<Uint8Array> {
  try {
    return await promisify(gunzip)(await readFile(path), { maxOutputLength: maxFileBytes });
  } catch (cause) {
    const isMissing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    throw new DiffusionError(
      "data",
      `fashion-mnist: expected a gzip file "${path}", got ` +
        `${isMissing ? "no such file; install Debian's dataset-fashion-mnist or name the folder" : (cause as Error).message}`,
      { cause },
    );
  }
}

/**
 * The IDX format of MNIST: two zero bytes, 8 (unsigned bytes), rank, sizes as big-endian u32, data.
 */
export function parseIdx(
  bytes: Uint8Array,
  rank: number,
  where: string,
): { shape: number[]; data: Uint8Array } {
  const fault = (got: string): DiffusionError =>
    new DiffusionError(
      "data",
      `${where}: expected an IDX file of bytes with ${rank} sizes, got ${got}`,
    );
  if (bytes.length < 4 + 4 * rank) throw fault(`${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== 0x0800 + rank) throw fault(`magic 0x${view.getUint32(0).toString(16)}`);
  const shape = Array.from({ length: rank }, (_, axis) => view.getUint32(4 + 4 * axis));
  const data = bytes.subarray(4 + 4 * rank);
  const expected = sizeOf(shape);
  if (data.length !== expected) throw fault(`${data.length} bytes of data for ${shape.join("x")}`);
  return { shape, data };
}

function expand(grey: Uint8Array, count: number, size: number, channels: number): Uint8Array {
  if (size === 28 && channels === 1) return grey;
  const border = (size - 28) / 2;
  const out = new Uint8Array(count * size * size * channels);
  let from = 0;
  for (let i = 0; i < count; ++i) {
    for (let row = 0; row < 28; ++row) {
      let to = ((i * size + row + border) * size + border) * channels;
      for (let column = 0; column < 28; ++column, ++from)
        for (let c = 0; c < channels; ++c) out[to++] = grey[from]!;
    }
  }
  return out;
}
