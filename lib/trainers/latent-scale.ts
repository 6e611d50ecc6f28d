// The factor that gives latents unit deviation, measured on the first batches of a training. Source: Rombach et al. 2022,
// arXiv:2112.10752, appendix G.
import type { ImageDataset } from "../data/dataset.js";
import { loadBatches } from "../data/loader.js";
import { keyTable } from "../samplers/discrete.js";
import type { FrozenStage } from "./frozen-stage.js";

const batchesSeen = 4;

/** 1 / the deviation of the "x0" of a stage; depends on data, batch size and seed only. */
export async function latentScale(
  stage: FrozenStage,
  dataset: ImageDataset,
  { batchSize, seed }: { batchSize: number; seed: number },
): Promise<number> {
  let [count, sum, squares] = [0, 0, 0];
  let first = 0;
  for await (const batch of loadBatches(dataset, { batchSize, seed, prefetch: 1 })) {
    const key = keyTable(seed, first, 0, batchSize);
    const { x0 } = await stage.read(batch, { key });
    for (const value of x0!) {
      sum += value;
      squares += value * value;
    }
    count += x0!.length;
    first += batchSize;
    if (first >= batchesSeen * batchSize) break;
  }
  return 1 / Math.sqrt(squares / count - (sum / count) ** 2);
}
