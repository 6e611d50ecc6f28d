// A stream of batches with a position that can be saved: what a trainer needs of the loader.
import { loadBatches, type Batch, type Cursor, type LoaderOptions } from "../data/loader.js";
import type { ImageDataset } from "../data/dataset.js";
import { DiffusionError } from "../errors.js";

/** Batches in order, and where the stream stood after the last one that was used. */
export class BatchStream {
  #iterator: AsyncGenerator<Batch, void, void>;
  #cursor: Cursor = { epoch: 0, position: 0 };

  constructor(
    private readonly dataset: ImageDataset,
    private readonly options: Omit<LoaderOptions, "from">,
  ) {
    this.#iterator = loadBatches(dataset, options);
  }

  async next(): Promise<Batch> {
    const { value } = await this.#iterator.next();
    if (!value)
      throw new DiffusionError(
        "data",
        `${this.dataset.name}: expected another batch, got the end of the stream`,
      );
    return value;
  }

  async take(count: number): Promise<Batch[]> {
    const batches: Batch[] = [];
    while (batches.length < count) batches.push(await this.next());
    return batches;
  }

  /** Says that a batch was used, so that a resumed run continues after it. */
  used(batch: Batch): void {
    this.#cursor = batch.cursor;
  }

  get cursor(): Cursor {
    return this.#cursor;
  }

  /** Continues after `cursor`. */
  seek(cursor: Cursor): void {
    this.#cursor = cursor;
    this.#iterator = loadBatches(this.dataset, { ...this.options, from: cursor });
  }
}
