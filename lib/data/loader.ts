// Batches for training: shuffled, augmented and captioned by counters, prepared ahead of time in
// small slices so that the event loop stays free, and resumable at any batch from two numbers.
import { setImmediate as nextTurn } from "node:timers/promises";
import { checkOptions, DiffusionError, throwIfAborted } from "../errors.js";
import { below, counterHash, epochOrder, purposes } from "./counter-hash.js";
import type { ImageDataset } from "./dataset.js";

/** Where the stream of visits stands: the next visit is number `position` of epoch `epoch`. */
export interface Cursor {
  epoch: number;
  position: number;
}

export interface Batch {
  /** (size, H, W, C) in [-1, 1]. */
  images: Float32Array;
  shape: [size: number, height: number, width: number, channels: number];
  size: number;
  /** Class per picture, -1 when there is none. */
  labels: Int32Array;
  /** One caption per picture, "" when there is none. */
  captions: string[];
  /** Which samples of the dataset these are. */
  indices: Int32Array;
  /** Pass as `from` to continue after this batch. */
  cursor: Cursor;
}

export interface LoaderOptions {
  batchSize: number;
  /** Default 0. */
  seed?: number;
  /** Default true. */
  shuffle?: boolean;
  /** Stop after this many epochs. Default: never. */
  epochs?: number;
  /**
   * A batch at the end of an epoch: "continue" fills it from the next epoch (default; every batch
   * is full and nothing is lost), "drop" leaves the rest out, "short" gives a smaller batch.
   */
  tail?: "continue" | "drop" | "short";
  /** Continue after a batch. Default the beginning. */
  from?: Cursor;
  augment?: {
    /** Mirror half of the visits left to right. Default false. */
    flip?: boolean;
    /** Shift by up to this many pixels each way, repeating the edge. Default 0. */
    shift?: number;
  };
  /** Batches prepared ahead. Default 2. */
  prefetch?: number;
  signal?: AbortSignal;
}

interface Visit {
  index: number;
  epoch: number;
  position: number;
}

const optionNames = [
  "batchSize",
  "seed",
  "shuffle",
  "epochs",
  "tail",
  "from",
  "augment",
  "prefetch",
  "signal",
];
const maxSliceMs = 4;
/** Where a byte lies in [-1, 1]. */
const unitOfByte = Float32Array.from({ length: 256 }, (_, byte) => byte / 127.5 - 1);

/**
 * Yields batches without end (or for `epochs`). Throws "data" for an empty set, "aborted" on the
 * signal.
 */
export async function* loadBatches(
  dataset: ImageDataset,
  options: LoaderOptions,
): AsyncGenerator<Batch, void, void> {
  checkLoader(dataset, options);
  const { prefetch = 2, signal } = options;
  const plan = planBatches(dataset, options);
  const ahead: Promise<Batch>[] = [];
  const left = new AbortController();
  const refill = (): void => {
    while (ahead.length < 1 + prefetch) {
      const next = plan.next();
      if (next.done) return;
      // One batch at a time: the next one starts when the one before it is complete.
      const batch = (ahead.at(-1) ?? Promise.resolve()).then(() =>
        assemble(dataset, next.value, options, left.signal),
      );
      batch.catch(() => undefined); // reported when its turn comes
      ahead.push(batch);
    }
  };
  try {
    for (refill(); ahead.length > 0; refill()) {
      throwIfAborted(signal, "loader");
      const batch = await ahead[0]!;
      void ahead.shift();
      throwIfAborted(signal, "loader");
      yield batch;
    }
  } finally {
    left.abort(); // nobody waits for the batches ahead
  }
}

const weightsOf = (dataset: ImageDataset): Float64Array =>
  Float64Array.from({ length: dataset.length }, (_, i) => dataset.weight(i));

function checkLoader(dataset: ImageDataset, options: LoaderOptions): void {
  checkOptions("loadBatches", options, optionNames);
  checkOptions("loadBatches.augment", options.augment ?? {}, ["flip", "shift"]);
  const whole = (name: string, value: number, least: number): void => {
    if (!Number.isSafeInteger(value) || value < least)
      throw new DiffusionError(
        "option",
        `loadBatches: expected ${name} to be a whole number of at least ${least}, got ${value}`,
      );
  };
  whole("batchSize", options.batchSize, 1);
  whole("seed", options.seed ?? 0, 0);
  whole("prefetch", options.prefetch ?? 0, 0);
  whole("shift", options.augment?.shift ?? 0, 0);
  whole("from.epoch", options.from?.epoch ?? 0, 0);
  whole("from.position", options.from?.position ?? 0, 0);
  if (options.epochs !== undefined) whole("epochs", options.epochs, 1);
  if (dataset.length === 0)
    throw new DiffusionError(
      "data",
      `${dataset.name}: expected at least one image, got an empty set`,
    );
  if (options.tail === "drop" && dataset.length < options.batchSize)
    throw new DiffusionError(
      "data",
      `${dataset.name}: expected at least ${options.batchSize} images for one batch, got ` +
        `${dataset.length}; use a smaller batchSize or tail: "continue"`,
    );
}

interface PlannedBatch {
  visits: Visit[];
  cursor: Cursor;
}

function* planBatches(dataset: ImageDataset, options: LoaderOptions): Generator<PlannedBatch> {
  const {
    batchSize,
    seed = 0,
    shuffle = true,
    epochs = Infinity,
    tail = "continue",
    from,
  } = options;
  const weights = weightsOf(dataset);
  let visits: Visit[] = [];
  let position = from?.position ?? 0;
  for (let epoch = from?.epoch ?? 0; epoch < epochs; ++epoch, position = 0) {
    const order = epochOrder(weights, seed, epoch, shuffle);
    if (order.length === 0)
      throw new DiffusionError(
        "data",
        `${dataset.name}: expected weights that visit at least one image, got none`,
      );
    for (; position < order.length; ++position) {
      visits.push({ index: order[position]!, epoch, position });
      if (visits.length < batchSize) continue;
      yield { visits, cursor: { epoch, position: position + 1 } };
      visits = [];
    }
    const isLast = epoch + 1 === epochs;
    if (visits.length > 0 && (tail === "short" || (tail === "continue" && isLast)))
      yield { visits, cursor: { epoch: epoch + 1, position: 0 } };
    if (tail !== "continue") visits = [];
  }
}

async function assemble(
  dataset: ImageDataset,
  { visits, cursor }: PlannedBatch,
  options: LoaderOptions,
  signal: AbortSignal,
): Promise<Batch> {
  const { height, width, channels } = dataset;
  const size = visits.length;
  await nextTurn(); // the batch before it ended in this one
  throwIfAborted(signal, "loader");
  let sliceStart = performance.now(); // room for a large batch takes its time too
  const images = new Float32Array(size * height * width * channels);
  // Start all decoding at once; sharp's own threads take it from there.
  const pixels = visits.map(({ index }) => dataset.pixels(index));
  for (const pending of pixels) if (pending instanceof Promise) pending.catch(() => undefined);
  for (const [i, visit] of visits.entries()) {
    const pending = pixels[i]!;
    const bytes = pending instanceof Promise ? await pending : pending;
    place(bytes, dataset, images.subarray(i * height * width * channels), shiftOf(visit, options));
    if (performance.now() - sliceStart < maxSliceMs) continue;
    await nextTurn();
    throwIfAborted(signal, "loader");
    sliceStart = performance.now();
  }
  return {
    images,
    shape: [size, height, width, channels],
    size,
    labels: Int32Array.from(visits, ({ index }) => dataset.label(index)),
    captions: visits.map((visit) => captionOf(dataset, visit, options.seed ?? 0)),
    indices: Int32Array.from(visits, ({ index }) => index),
    cursor,
  };
}

function captionOf(dataset: ImageDataset, { index, epoch, position }: Visit, seed: number): string {
  const key = counterHash(seed, epoch, position, purposes.caption);
  let count = 0;
  return dataset.caption(index, (n) => below(n, counterHash(key, count++)));
}

interface Shift {
  flip: boolean;
  x: number;
  y: number;
}

function shiftOf({ epoch, position }: Visit, { seed = 0, augment = {} }: LoaderOptions): Shift {
  const { flip = false, shift = 0 } = augment;
  const draw = (purpose: number, n: number): number =>
    below(n, counterHash(seed, epoch, position, purpose));
  return {
    flip: flip && draw(purposes.flip, 2) === 1,
    x: draw(purposes.shiftX, 2 * shift + 1) - shift,
    y: draw(purposes.shiftY, 2 * shift + 1) - shift,
  };
}

// Bytes to [-1, 1], mirrored and shifted; pixels from outside repeat the edge.
function place(
  bytes: Uint8Array,
  set: ImageDataset,
  out: Float32Array,
  { flip, x, y }: Shift,
): void {
  const { width, height, channels } = set;
  if (bytes.length !== width * height * channels)
    throw new DiffusionError(
      "data",
      `${set.name}: expected ${height}x${width}x${channels} bytes a picture, got ${bytes.length}`,
    );
  const columns = Int32Array.from({ length: width }, (_, column) => {
    const source = clamp(column - x, width);
    return (flip ? width - 1 - source : source) * channels;
  });
  for (let row = 0, to = 0; row < height; ++row) {
    const line = clamp(row - y, height) * width * channels;
    for (let column = 0; column < width; ++column) {
      const from = line + columns[column]!;
      for (let c = 0; c < channels; ++c) out[to++] = unitOfByte[bytes[from + c]!]!;
    }
  }
}

function clamp(index: number, size: number): number {
  return Math.min(Math.max(index, 0), size - 1);
}
