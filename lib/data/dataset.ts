// What the loader needs to know about a set of pictures; every source below implements it.
import { checkOptions, DiffusionError } from "../errors.js";

/**
 * Returns a whole number in [0, n), the same one every time a sample is visited at the same place
 * of the same run.
 */
export type Draw = (n: number) => number;

export interface ImageDataset {
  readonly name: string;
  readonly length: number;
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  /** Names of the classes; empty when there are none. */
  readonly classes: readonly string[];
  /**
   * Bytes of one picture in rows (H, W, C); a view that must not be written to, or a promise where
   * it is decoded.
   */
  pixels(index: number): Uint8Array | Promise<Uint8Array>;
  /** Class of one picture, -1 when there is none. */
  label(index: number): number;
  /** Every text that describes one picture; empty when there is none. */
  captions(index: number): readonly string[];
  /** One text for one visit in training. */
  caption(index: number, draw: Draw): string;
  /** How often a picture is visited in one epoch, on average. */
  weight(index: number): number;
}

/** The given samples of a dataset in the given order, without copying pixels. */
export function selectFrom(dataset: ImageDataset, indices: readonly number[]): ImageDataset {
  const at = (index: number): number => {
    const inner = indices[index];
    if (inner === undefined || !(inner >= 0 && inner < dataset.length))
      throw new DiffusionError(
        "data",
        `${dataset.name}: expected an index below ${indices.length}, got ${index}`,
      );
    return inner;
  };
  return {
    name: dataset.name,
    length: indices.length,
    width: dataset.width,
    height: dataset.height,
    channels: dataset.channels,
    classes: dataset.classes,
    pixels: (i) => dataset.pixels(at(i)),
    label: (i) => dataset.label(at(i)),
    captions: (i) => dataset.captions(at(i)),
    caption: (i, draw) => dataset.caption(at(i), draw),
    weight: (i) => dataset.weight(at(i)),
  };
}

export interface MemoryDatasetOptions {
  name?: string;
  width: number;
  height: number;
  channels?: number;
  /** (count, H, W, C) bytes. */
  pixels: Uint8Array;
  labels?: readonly number[];
  classes?: readonly string[];
  captions?: readonly (string | readonly string[])[];
}

const memoryOptions: readonly (keyof MemoryDatasetOptions)[] = [
  "name", "width", "height", "channels", "pixels", "labels", "classes", "captions",
]; // prettier-ignore

/** A dataset of pictures that are in memory already, for tests and for small sets made by a program. */
export function memoryDataset(options: MemoryDatasetOptions): ImageDataset {
  checkOptions("memoryDataset", options, memoryOptions);
  const { name = "memory", width, height, channels = 3, pixels, classes = [] } = options;
  const bytes = width * height * channels;
  const length = pixels.length / bytes;
  if (!Number.isInteger(length) || length < 1)
    throw new DiffusionError(
      "data",
      `${name}: expected a multiple of ${bytes} bytes, got ${pixels.length}`,
    );
  const captions = (index: number): readonly string[] => [options.captions?.[index] ?? []].flat();
  return {
    ...{ name, length, width, height, channels, classes },
    pixels: (index) => pixels.subarray(index * bytes, (index + 1) * bytes),
    label: (index) => options.labels?.[index] ?? -1,
    captions,
    caption: (index, draw) => chooseCaption(captions(index), draw),
    weight: () => 1,
  };
}

/** One of the captions, all equally often; "" when there is none. */
export const chooseCaption = (captions: readonly string[], draw: Draw): string =>
  captions.length === 0 ? "" : captions[draw(captions.length)]!;
