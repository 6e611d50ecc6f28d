// What every training run on batches of pictures has: its batches, what decides it, and its state in a file.
import {
  loadTrainingState,
  saveTrainingState,
  type RunConfiguration,
} from "../checkpoint/training-state.js";
import type { ImageDataset } from "../data/dataset.js";
import type { LoaderOptions } from "../data/loader.js";
import type { ParamSpec } from "../ir/param.js";
import type { Buffer } from "../runtime/buffer.js";
import { BatchStream } from "./batches.js";
import { given } from "./given.js";
import type { StepReport, Trainable } from "./loop.js";
import type { OptimiserOptions } from "./train-step.js";

/** Numbers beside the weights that steps change. */
export interface RunMemory {
  read(): Record<string, readonly number[]>;
  write(lists: Readonly<Record<string, readonly number[]>>): void;
}

export interface RunOptions {
  dataset: ImageDataset;
  batchSize: number;
  /** Of initial weights, order and draws; default 0. */
  seed?: number;
  augment?: LoaderOptions["augment"];
  optimiser?: OptimiserOptions;
  /** Parts that stay as they are, by the first words of their names. Default none. */
  freeze?: readonly string[];
}

/** What learns. */
export interface RunSubject {
  /** Plain data that decides it; a run with another one is not resumed. */
  readonly configuration: RunConfiguration;
  readonly parameters: readonly ParamSpec[];
  /** Kept beside them: what the loss reads and updates, e.g. a codebook of moving averages. */
  readonly states?: readonly ParamSpec[];
  /** What is saved beside the weights. */
  readonly memory?: RunMemory;
}

export abstract class TrainingRun<Options extends RunOptions> implements Trainable {
  readonly samplesPerStep: number;
  protected readonly stream: BatchStream;
  readonly #subject: RunSubject;

  protected constructor(
    readonly options: Options,
    subject: RunSubject,
  ) {
    const { batchSize, dataset, seed = 0 } = options;
    this.#subject = subject;
    this.samplesPerStep = batchSize * this.parts;
    this.stream = new BatchStream(dataset, { batchSize, seed, ...given(options, "augment") });
  }

  /** All state of the run, by name. */
  protected abstract readonly buffers: ReadonlyMap<string, Buffer>;

  /** What else than its subject, seed, batches and optimiser decides the run: one with other values is not resumed. */
  protected get decisions(): RunConfiguration {
    return given(this.options, "augment");
  }

  get #configuration(): RunConfiguration {
    const { seed = 0, batchSize, optimiser = {}, freeze = [] } = this.options;
    return {
      ...{ ...this.#subject.configuration, seed, batchSize, optimiser },
      ...(freeze.length > 0 && { freeze }),
      ...this.decisions,
    };
  }

  /** Batches of a step. */
  protected get parts(): number {
    return this.options.optimiser?.accumulate ?? 1;
  }

  abstract prefetch(index: number): Promise<unknown>;
  abstract step(index: number, lr: number, batches: unknown): Promise<StepReport>;

  async save(path: string, done: number): Promise<void> {
    const lists = this.#subject.memory?.read();
    await saveTrainingState(path, this.buffers, this.#configuration, {
      done,
      cursor: this.stream.cursor,
      ...(lists && { lists }),
    });
  }

  async restore(path: string): Promise<number> {
    const { memory } = this.#subject;
    const sizes = Object.entries(memory?.read() ?? {}).map(([name, { length }]) => [name, length]);
    const { done, cursor, lists } = await loadTrainingState(path, this.buffers, {
      configuration: this.#configuration,
      lists: Object.fromEntries(sizes) as Record<string, number>,
    });
    this.stream.seek(cursor);
    memory?.write(lists ?? {});
    return done;
  }

  /** Weights and states by name; the averaged weights when they are kept. */
  weights(): Map<string, Float32Array> {
    const { buffers } = this;
    const { parameters, states = [] } = this.#subject;
    return new Map(
      [...parameters, ...states].map(({ name }) => [
        name,
        (buffers.get(`ema.${name}`) ?? buffers.get(name)!).read() as Float32Array,
      ]),
    );
  }
}
