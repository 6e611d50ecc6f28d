// Runs a trainer in a test: the losses and metrics of its steps.
import type { TrainEvent } from "../../lib/trainers/events.js";
import { trainLoop, type Trainable, type TrainLoopOptions } from "../../lib/trainers/loop.js";

export type StepEvent = Extract<TrainEvent, { type: "step" }>;

/** Step events of a run with a constant learning rate. */
export async function runTrainer(
  trainer: Trainable,
  steps: number,
  checkpoint: string,
  { rate = 2e-3, ...options }: Partial<TrainLoopOptions> & { rate?: number } = {},
): Promise<StepEvent[]> {
  const events: StepEvent[] = [];
  for await (const event of trainLoop(trainer, { steps, lr: () => rate, checkpoint, ...options }))
    if (event.type === "step") events.push(event);
  return events;
}

export const lossesOf = (events: readonly StepEvent[]): number[] => events.map(({ loss }) => loss);

/** Whether `steps` at once and in two parts are the same bit for bit: losses and weights. */
export async function resumesExactly(
  create: () => Promise<
    Trainable & { weights(): ReadonlyMap<string, Float32Array>; dispose(): void }
  >,
  checkpoint: string,
  { steps = 6, first = 3 } = {},
): Promise<{ whole: unknown; parts: unknown }> {
  const whole = await create();
  const curve = lossesOf(await runTrainer(whole, steps, `${checkpoint}-whole`));
  const part = await create();
  const begun = lossesOf(await runTrainer(part, first, checkpoint));
  part.dispose();
  const rest = await create();
  const ended = lossesOf(await runTrainer(rest, steps, checkpoint, { resume: true }));
  const both = {
    whole: { curve, weights: whole.weights() },
    parts: { curve: [...begun, ...ended], weights: rest.weights() },
  };
  whole.dispose();
  rest.dispose();
  return both;
}
