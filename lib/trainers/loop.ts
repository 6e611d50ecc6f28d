// The loop that every trainer shares: steps, learning rate, checkpoints, resume, interruption. Batches are a pure function
// of the step, so a resumed run sees exactly what the interrupted one would have seen.
import { DiffusionError } from "../errors.js";
import type { TrainEvent } from "./events.js";

export interface StepReport {
  loss: number;
  gradNorm: number;
  metrics: Record<string, number>;
  /** Things a person should know, e.g. "restarted 12 unused codes". */
  warnings?: string[];
}

/** What a trainer gives to the loop. */
export interface Trainable {
  /** Samples in one step, for the throughput. */
  readonly samplesPerStep: number;
  /** Everything after which a step is a pure function of `index`: fetch the batch of step `index`. */
  prefetch(index: number): Promise<unknown>;
  /** Runs step `index` on what prefetch gave. */
  step(index: number, lr: number, batch: unknown): Promise<StepReport>;
  /** Writes all state after `done` steps; atomic. */
  save(path: string, done: number): Promise<void>;
  /** Restores what save wrote and returns the number of steps done. */
  restore(path: string): Promise<number>;
}

export interface TrainLoopOptions {
  steps: number;
  /** Learning rate of step `index` (from 0). */
  lr: (index: number) => number;
  /** File of the training state. */
  checkpoint: string;
  /** Continue from the checkpoint; default false. */
  resume?: boolean;
  /** Minutes between checkpoints; default 5. */
  saveMinutes?: number;
  /** Steps between "step" events; default 1. */
  reportEvery?: number;
  /** Saves and stops when aborted. */
  signal?: AbortSignal;
}

/** Averages of the reports since the last event. */
class Meter {
  #loss = 0;
  #gradNorm = 0;
  #metrics = new Map<string, number>();
  #count = 0;
  #since = performance.now();

  add(report: StepReport): void {
    this.#loss += report.loss;
    this.#gradNorm += report.gradNorm;
    this.#count += 1;
    for (const [name, value] of Object.entries(report.metrics)) {
      this.#metrics.set(name, (this.#metrics.get(name) ?? 0) + value);
    }
  }

  take(
    samplesPerStep: number,
  ): Pick<StepReport, "loss" | "gradNorm" | "metrics"> & { samplesPerSecond: number } {
    const n = this.#count;
    const now = performance.now();
    const summary = {
      loss: this.#loss / n,
      gradNorm: this.#gradNorm / n,
      metrics: Object.fromEntries([...this.#metrics].map(([name, sum]) => [name, sum / n])),
      samplesPerSecond: (1000 * n * samplesPerStep) / (now - this.#since),
    };
    this.#loss = this.#gradNorm = this.#count = 0;
    this.#metrics.clear();
    this.#since = now;
    return summary;
  }
}

/**
 * Trains until `steps`, yielding events. When the signal aborts, the state is saved, a "done" event tells so and the
 * generator ends. Throws "numeric" when the loss is not finite; the last checkpoint then stays as it was.
 */
export async function* trainLoop(
  trainable: Trainable,
  options: TrainLoopOptions,
): AsyncGenerator<TrainEvent> {
  const { steps, lr, checkpoint, saveMinutes = 5, reportEvery = 1, signal } = options;
  if (!(steps > 0)) throw new DiffusionError("option", `train: expected steps > 0, got ${steps}`);
  const first = options.resume ? await trainable.restore(checkpoint) : 0;
  const meter = new Meter();
  let done = first;
  let saved = performance.now();
  let next = done < steps ? trainable.prefetch(done) : undefined;
  while (done < steps && !signal?.aborted) {
    const batch = await next;
    next = done + 1 < steps ? trainable.prefetch(done + 1) : undefined;
    next?.catch(() => undefined); // awaited in the next turn; a failure of this step must not leave it unhandled
    const rate = lr(done);
    const report = await trainable.step(done, rate, batch);
    done += 1;
    meter.add(report);
    for (const message of report.warnings ?? []) yield { type: "warning", step: done, message };
    if (done % reportEvery === 0 || done === steps) {
      yield { type: "step", step: done, steps, lr: rate, ...meter.take(trainable.samplesPerStep) };
    }
    if (performance.now() - saved > saveMinutes * 60_000) {
      await trainable.save(checkpoint, done);
      saved = performance.now();
      yield { type: "checkpoint", step: done, path: checkpoint };
    }
  }
  await next?.catch(() => undefined);
  await trainable.save(checkpoint, done);
  yield {
    type: "done",
    step: done,
    reason: done >= steps ? "finished" : "interrupted",
    path: checkpoint,
  };
}
