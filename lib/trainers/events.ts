// What a training run tells: one typed union, yielded by every trainer.

export type TrainEvent =
  | {
      type: "step";
      /** Steps done, from 1. */
      step: number;
      steps: number;
      loss: number;
      lr: number;
      /** Norm of the gradient before clipping. */
      gradNorm: number;
      samplesPerSecond: number;
      metrics: Record<string, number>;
    }
  | { type: "checkpoint"; step: number; path: string }
  | { type: "warning"; step: number; message: string }
  | { type: "done"; step: number; reason: "finished" | "interrupted"; path: string };
