// What a training needs of a process between data and noise: draws, corruption and loss. One file a process:
// gaussian-process.ts, interpolant-process.ts.
import type { Tensor } from "../trace/tensor.js";
import type { BatchPlace } from "./task-trainer.js";
import type { RunMemory } from "./training-run.js";

/** Numbers of a batch that the process draws. */
export interface ProcessDraw {
  /** What the network is told, (B). */
  times: Float32Array;
  /** Numbers of each sample, (B, columns). */
  table: Float32Array;
  /** Factor of each sample's loss, (B). */
  weights: Float32Array;
  /** Told the loss of each sample. */
  observe?: (perSample: ArrayLike<number>) => void;
}

/** Tensors of a batch; all but the table (B, H, W, C). */
export interface ProcessTensors {
  x0: Tensor;
  noise: Tensor;
  table: Tensor;
  pair?: Tensor;
}

/** A process as the trainer sees it. */
export interface DenoiserProcess {
  readonly columns: number;
  readonly memory?: RunMemory;
  draw(place: BatchPlace): ProcessDraw;
  corrupt(tensors: ProcessTensors): Tensor;
  /** Loss of each sample (B), and scalars worth reporting. */
  loss(tensors: ProcessTensors & { xt: Tensor; output: Tensor }): {
    perSample: Tensor;
    metrics?: Record<string, Tensor>;
  };
}
