// One network in training on batches of pictures: what denoisers, autoencoders and classifiers have in common. What sets
// them apart, their inputs and their loss, is a TrainingTask.
import type { Batch } from "../data/loader.js";
import { checkOptions } from "../errors.js";
import type { Shape } from "../ir/shape.js";
import { initialValues } from "../nn/init.js";
import { normalStream, uniformStream } from "../nn/random.js";
import type { Buffer, TensorData } from "../runtime/buffer.js";
import { keyTable } from "../samplers/discrete.js";
import type { Tensor } from "../trace/tensor.js";
import type { InputSpec } from "../trace/trace.js";
import { splitFrozen } from "./freeze.js";
import { given } from "./given.js";
import type { StepReport } from "./loop.js";
import { TrainStep, type LossTerms, type Values } from "./train-step.js";
import { TrainingRun, type RunOptions, type RunSubject } from "./training-run.js";

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

export interface TrainingTask extends RunSubject {
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
  /** Frees what the task was given. */
  dispose?(): void;
}

export interface TaskTrainerOptions extends RunOptions {
  task: TrainingTask;
  /** Weights to start from, by name; default: drawn by the seed. */
  initial?: Values;
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

/** A network in training; give it to trainLoop. */
export class TaskTrainer extends TrainingRun<TaskTrainerOptions> {
  private constructor(
    options: TaskTrainerOptions,
    readonly trainStep: TrainStep,
  ) {
    super(options, options.task);
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

  protected get buffers(): ReadonlyMap<string, Buffer> {
    return this.trainStep.buffers;
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
    for (const [part, batch] of (await this.stream.take(this.parts)).entries()) {
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
    this.stream.used(used.at(-1)!.batch);
    values.at(-1)!.observe?.(outputs);
    const { seed = 0, initial } = this.options;
    const { buffers } = this.trainStep;
    const warnings = task.afterStep?.({ index, seed, isNew: !initial, outputs, buffers }) ?? [];
    const found = task.metrics.filter((name) => outputs[name] !== undefined);
    const metrics = Object.fromEntries(found.map((name) => [name, Number(outputs[name]![0])]));
    return { loss, gradNorm, metrics, ...(warnings.length > 0 && { warnings }) };
  }

  dispose(): void {
    this.trainStep.dispose();
    this.options.task.dispose?.();
  }
}
