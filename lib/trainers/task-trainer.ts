// One network in training on batches of pictures: what denoisers, autoencoders and classifiers have in common. What sets
// them apart, their inputs and their loss, is a TrainingTask.
import {
  loadTrainingState,
  saveTrainingState,
  type RunConfiguration,
} from "../checkpoint/training-state.js";
import type { ImageDataset } from "../data/dataset.js";
import type { Batch, LoaderOptions } from "../data/loader.js";
import { checkOptions } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import type { Shape } from "../ir/shape.js";
import { initialValues } from "../nn/init.js";
import { normalStream, uniformStream } from "../nn/random.js";
import type { Buffer, TensorData } from "../runtime/buffer.js";
import { keyTable } from "../samplers/discrete.js";
import type { Tensor } from "../trace/tensor.js";
import type { InputSpec } from "../trace/trace.js";
import { BatchStream } from "./batches.js";
import { splitFrozen } from "./freeze.js";
import { given } from "./given.js";
import type { StepReport, Trainable } from "./loop.js";
import { TrainStep, type LossTerms, type OptimiserOptions, type Values } from "./train-step.js";

/** Where a batch stands in a run. Everything random is a function of it, so that a resumed run repeats the whole one. */
export interface BatchPlace {
  /** Draws in [0, 1), one a sample, by name. */
  uniform(name: string): Float64Array;
  /** Standard normal draws, one a sample, by name. */
  normal(name: string): Float64Array;
  /** Key i32 (B, 4) of random operations. */
  readonly key: Int32Array;
}

/** What a step reads of one batch. */
export interface BatchValues {
  inputs: Record<string, TensorData>;
  /** Told the outputs of the step; only of the last batch where gradients are accumulated. */
  observe?: (outputs: Readonly<Record<string, TensorData>>) => void;
}

/** Numbers beside the weights that steps change. */
export interface TaskMemory {
  read(): Record<string, readonly number[]>;
  write(lists: Readonly<Record<string, readonly number[]>>): void;
}

/** A step that was just made. */
export interface FinishedStep {
  index: number;
  seed: number;
  /** The run began with weights that the seed drew. */
  isNew: boolean;
  outputs: Readonly<Record<string, TensorData>>;
  /** All state of the run, by name. */
  buffers: ReadonlyMap<string, Buffer>;
}

export interface TrainingTask {
  /** Plain data that decides the task; a run with another one is not resumed. */
  readonly configuration: RunConfiguration;
  readonly parameters: readonly ParamSpec[];
  /** Kept beside them: what the loss reads and updates, e.g. a codebook of moving averages. */
  readonly states?: readonly ParamSpec[];
  /** Parts that the task leaves as they are, beside those of `freeze`. */
  readonly frozen?: readonly string[];
  /** Inputs of the step for pictures (B, H, W, C). */
  inputs(pictures: Shape): Record<string, InputSpec>;
  loss(batch: Record<string, Tensor>): LossTerms;
  /** Inputs that take time to make: they are made while the step before runs. */
  prefetch?(batch: Batch, place: BatchPlace): Promise<Record<string, TensorData>>;
  /** The other inputs. */
  values(batch: Batch, place: BatchPlace): BatchValues;
  /** Scalar outputs of the loss that are reported, where it has them. */
  readonly metrics: readonly string[];
  /** Changes state between steps; returns warnings. */
  afterStep?(step: FinishedStep): string[];
  /** What is saved beside the weights. */
  readonly memory?: TaskMemory;
  /** Frees what the task was given. */
  dispose?(): void;
}

export interface TaskTrainerOptions {
  task: TrainingTask;
  dataset: ImageDataset;
  batchSize: number;
  /** Of initial weights, order and draws; default 0. */
  seed?: number;
  /** Weights to start from, by name; default: drawn by the seed. */
  initial?: Values;
  augment?: LoaderOptions["augment"];
  optimiser?: OptimiserOptions;
  /** Parts that stay as they are, by the first words of their names. Default none. */
  freeze?: readonly string[];
  /** Less memory for more time, same results; default false. */
  rematerialise?: boolean;
  /** Instruction set, or "ref"; default the best that the machine has. */
  isa?: string;
}

const optionNames: readonly (keyof TaskTrainerOptions)[] = [
  "task", "dataset", "batchSize", "seed", "initial", "augment", "optimiser", "freeze", "rematerialise", "isa",
]; // prettier-ignore

/** A batch, where it stands, and what was made of it ahead of time. */
interface FetchedBatch {
  batch: Batch;
  place: BatchPlace;
  made: Record<string, TensorData>;
}

/** What a run has learned, by name: the averaged weights when they are kept. */
export const keptWeights = (
  { parameters, states = [] }: Pick<TrainingTask, "parameters" | "states">,
  buffers: ReadonlyMap<string, Buffer>,
): Map<string, Float32Array> =>
  new Map(
    [...parameters, ...states].map(({ name }) => [
      name,
      (buffers.get(`ema.${name}`) ?? buffers.get(name)!).read() as Float32Array,
    ]),
  );

/** A network in training; give it to trainLoop. */
export class TaskTrainer implements Trainable {
  readonly samplesPerStep: number;
  readonly #stream: BatchStream;

  private constructor(
    readonly options: TaskTrainerOptions,
    readonly trainStep: TrainStep,
  ) {
    const { batchSize, dataset, seed = 0 } = options;
    this.samplesPerStep = batchSize * this.#parts;
    this.#stream = new BatchStream(dataset, { batchSize, seed, ...given(options, "augment") });
  }

  /** Compiles the step. Throws "option" for unknown options. */
  static async create(options: TaskTrainerOptions): Promise<TaskTrainer> {
    checkOptions("TaskTrainer", options, optionNames);
    const { task, dataset, batchSize, seed = 0 } = options;
    const { height, width, channels } = dataset;
    const { states = [] } = task;
    const { trained, frozen } = splitFrozen(task, [
      ...(task.frozen ?? []),
      ...(options.freeze ?? []),
    ]);
    const trainStep = await TrainStep.create(
      {
        inputs: task.inputs([batchSize, height, width, channels]),
        loss: (_, batch) => task.loss(batch),
        parameters: trained,
        extraState: Object.fromEntries(
          [...states, ...frozen].map(({ name, shape }) => [name, { shape }]),
        ),
        ...given(options, "optimiser", "rematerialise", "isa"),
      },
      options.initial ?? initialValues([...task.parameters, ...states], seed),
    );
    return new TaskTrainer(options, trainStep);
  }

  get #parts(): number {
    return this.options.optimiser?.accumulate ?? 1;
  }

  get #configuration(): RunConfiguration {
    const { task, seed = 0, batchSize, optimiser = {}, freeze = [] } = this.options;
    return {
      ...{ ...task.configuration, seed, batchSize, optimiser },
      ...(freeze.length > 0 && { freeze }),
      ...given(this.options, "augment"),
    };
  }

  #place(step: number, part: number): BatchPlace {
    const { seed = 0, batchSize: B } = this.options;
    const stream = (name: string): string => `${name}.${step}.${part}`;
    return {
      uniform: (name) => uniformStream(seed, stream(name), B),
      normal: (name) => normalStream(seed, stream(name), B),
      key: keyTable(seed, part * B, step, B),
    };
  }

  async prefetch(index: number): Promise<FetchedBatch[]> {
    const fetched: FetchedBatch[] = [];
    for (const [part, batch] of (await this.#stream.take(this.#parts)).entries()) {
      const place = this.#place(index, part);
      const made = (await this.options.task.prefetch?.(batch, place)) ?? {};
      fetched.push({ batch, place, made });
    }
    return fetched;
  }

  async step(index: number, lr: number, batches: unknown): Promise<StepReport> {
    const { task } = this.options;
    const used = batches as FetchedBatch[];
    const values = used.map(({ batch, place }) => task.values(batch, place));
    const { loss, gradNorm, outputs } = await this.trainStep.run(
      index,
      lr,
      used.map(({ made }, i) => ({ ...made, ...values[i]!.inputs })),
    );
    this.#stream.used(used.at(-1)!.batch);
    values.at(-1)!.observe?.(outputs);
    const { seed = 0, initial } = this.options;
    const { buffers } = this.trainStep;
    const warnings = task.afterStep?.({ index, seed, isNew: !initial, outputs, buffers }) ?? [];
    const found = task.metrics.filter((name) => outputs[name] !== undefined);
    const metrics = Object.fromEntries(found.map((name) => [name, Number(outputs[name]![0])]));
    return { loss, gradNorm, metrics, ...(warnings.length > 0 && { warnings }) };
  }

  async save(path: string, done: number): Promise<void> {
    const lists = this.options.task.memory?.read();
    await saveTrainingState(path, this.trainStep.buffers, this.#configuration, {
      done,
      cursor: this.#stream.cursor,
      ...(lists && { lists }),
    });
  }

  async restore(path: string): Promise<number> {
    const { memory } = this.options.task;
    const sizes = Object.entries(memory?.read() ?? {}).map(([name, { length }]) => [name, length]);
    const { done, cursor, lists } = await loadTrainingState(path, this.trainStep.buffers, {
      configuration: this.#configuration,
      lists: Object.fromEntries(sizes) as Record<string, number>,
    });
    this.#stream.seek(cursor);
    memory?.write(lists ?? {});
    return done;
  }

  /** Weights and states by name; the averaged weights when they are kept. */
  weights(): Map<string, Float32Array> {
    return keptWeights(this.options.task, this.trainStep.buffers);
  }

  dispose(): void {
    this.trainStep.dispose();
    this.options.task.dispose?.();
  }
}
