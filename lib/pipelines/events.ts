// What a sampling run tells: one typed union, yielded by `stream` of every pipeline.
import { DiffusionError } from "../errors.js";
import type { CommonOptions } from "./generate-options.js";
import type { GeneratedImage } from "./generated-image.js";
import type { ByteImage } from "../image/image-io.js";

export type GenerateEvent =
  | { type: "warning"; message: string }
  | { type: "step"; step: number; steps: number; ms: number }
  | { type: "preview"; step: number; images: ByteImage[] }
  | { type: "done"; images: GeneratedImage[] };

/** What `generate` does with the events of `stream`: tells of steps and warnings, and returns the pictures. */
export async function picturesOf(
  events: AsyncIterable<GenerateEvent>,
  { onProgress, onWarning }: Pick<CommonOptions, "onProgress" | "onWarning">,
): Promise<{ images: GeneratedImage[] }> {
  for await (const event of events) {
    if (event.type === "step") onProgress?.(event);
    else if (event.type === "warning") onWarning?.(event.message);
    else if (event.type === "done") return { images: event.images };
  }
  throw new DiffusionError("internal", "generate: expected a last event, got none");
}

/** What is made of a batch. */
export interface BatchMaker<Job, Step extends { index: number; steps: number }> {
  steps(batch: readonly Job[]): AsyncIterable<Step>;
  preview(step: Step): Promise<ByteImage[]>;
  pictures(last: Step): Promise<ByteImage[]>;
  finished(picture: ByteImage, job: Job): GeneratedImage;
}

/** Makes pictures batch by batch, yielding steps, previews and, at the end, the pictures. */
export async function* batchEvents<Job, Step extends { index: number; steps: number }>(
  jobs: readonly Job[],
  { batchSize = 8, previewEvery = 0 }: { batchSize?: number; previewEvery?: number },
  make: BatchMaker<Job, Step>,
): AsyncGenerator<GenerateEvent> {
  const images: GeneratedImage[] = [];
  const batches = Math.ceil(jobs.length / batchSize);
  for (let b = 0; b < batches; ++b) {
    const batch = jobs.slice(b * batchSize, (b + 1) * batchSize);
    let last: Step | undefined;
    let before = performance.now();
    for await (const step of make.steps(batch)) {
      const now = performance.now();
      const place = { step: b * step.steps + step.index + 1, steps: batches * step.steps };
      yield { type: "step", ...place, ms: now - before };
      before = now;
      last = step;
      const done = step.index + 1;
      if (previewEvery > 0 && done % previewEvery === 0 && done < step.steps)
        yield { type: "preview", step: done, images: await make.preview(step) };
    }
    if (!last) throw new DiffusionError("internal", "generate: expected steps, got none");
    const pictures = await make.pictures(last);
    images.push(...pictures.map((picture, i) => make.finished(picture, batch[i]!)));
  }
  yield { type: "done", images };
}
