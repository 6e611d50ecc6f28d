// The public surface as users see it, checked by the compiler alone: `npm run types` reads this file, nothing runs it.
import {
  DiffusionError,
  loadPipeline,
  savePipeline,
  trainLoop,
  type AutoencoderTrainer,
  type DiffusionPipeline,
  type ErrorCode,
  type GenerateEvent,
  type GeneratedImage,
  type Pipeline,
  type TrainEvent,
  type VqDiffusionPipeline,
} from "../../lib/index.js";

/** Compiles only when both types are the same. */
type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(areSame: Same<A, B>): void => void areSame;

export async function pipelines(): Promise<void> {
  using pipe = await loadPipeline("emoji-64", { device: "cpu" });
  same<typeof pipe, VqDiffusionPipeline>(true);
  // @ts-expect-error this version has no CUDA backend
  await loadPipeline("emoji-64", { device: "cuda" });
  // @ts-expect-error a misspelled option
  await loadPipeline("emoji-64", { devise: "cpu" });
  await savePipeline(pipe, "copy");
}

export async function kinds(): Promise<void> {
  using dit = await loadPipeline("folder", { kind: "diffusion" });
  same<typeof dit, DiffusionPipeline>(true);
  using any = await loadPipeline("folder");
  same<typeof any, Pipeline>(true);
  await any.generate({ prompt: "a cat", seed: 1, steps: 20 });
  if (any.kind === "vq-diffusion") same<typeof any, VqDiffusionPipeline>(true);
  await dit.generate({ class: 207, sampler: "dpm-solver-2m", spacing: "karras", eta: 0 });
  // @ts-expect-error no such spacing
  await dit.generate({ spacing: "karas" });
  // @ts-expect-error the mask belongs to tokens
  await dit.generate({ mask: new Uint8Array(1) });
}

export async function generate(pipe: VqDiffusionPipeline): Promise<void> {
  const { images } = await pipe.generate({ prompt: "a heart", seed: 1, sampler: "purity" });
  await images[0]?.save("heart.png");
  same<typeof images, GeneratedImage[]>(true);
  await pipe.generate({ prompt: ["a", "b"], style: ["x", "y"] });
  // @ts-expect-error a misspelled option
  await pipe.generate({ promt: "a red heart" });
  // @ts-expect-error no such sampler
  await pipe.generate({ sampler: "purty" });
  // @ts-expect-error previews belong to stream
  await pipe.generate({ previewEvery: 5 });
}

export async function stream(pipe: VqDiffusionPipeline): Promise<void> {
  for await (const event of pipe.stream({ prompt: "a red heart", previewEvery: 5 })) {
    same<typeof event, GenerateEvent>(true);
    // @ts-expect-error only some events have pictures
    void event.images;
    if (event.type === "step") same<typeof event.steps, number>(true);
    else if (event.type === "warning") same<typeof event.message, string>(true);
    else if (event.type === "done") same<typeof event.images, GeneratedImage[]>(true);
    else same<typeof event.type, "preview">(true);
  }
}

export async function train(trainer: AutoencoderTrainer): Promise<void> {
  const options = { steps: 10, lr: () => 1e-3, checkpoint: "state.safetensors" };
  for await (const event of trainLoop(trainer, options)) {
    same<typeof event, TrainEvent>(true);
    if (event.type === "step") same<typeof event.loss, number>(true);
  }
  // @ts-expect-error a misspelled option
  trainLoop(trainer, { ...options, saveMinuts: 1 });
  // @ts-expect-error the learning rate is a function of the step
  trainLoop(trainer, { ...options, lr: 1e-3 });
}

export function errors(error: unknown): ErrorCode | undefined {
  if (!(error instanceof DiffusionError)) return undefined;
  // @ts-expect-error codes are a closed set
  if (error.code === "datta") return undefined;
  return error.code;
}
