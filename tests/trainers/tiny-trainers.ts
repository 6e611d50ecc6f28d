// Trainers small enough for tests: eight pictures of coloured blocks, or eight token grids with captions and styles.
import { memoryDataset } from "../../lib/data/dataset.js";
import { textToToken } from "../../lib/models/text-to-token.js";
import { TextTokenizer } from "../../lib/text/tokenizer.js";
import { trainWordVocabulary } from "../../lib/text/vocabulary.js";
import type { AutoencoderTrainerOptions } from "../../lib/trainers/autoencoder.js";
import {
  denoiserTask,
  type DenoiserTaskOptions,
  type ProcessTraining,
} from "../../lib/trainers/denoiser.js";
import { discreteTask } from "../../lib/trainers/discrete.js";
import type { GaussianTrainingOptions } from "../../lib/trainers/gaussian-process.js";
import type { InterpolantLossOptions } from "../../lib/trainers/interpolant-process.js";
import { TaskTrainer, type TaskTrainerOptions } from "../../lib/trainers/task-trainer.js";
import { tinyCodec } from "../pipelines/tiny.js";

const captions = ["a blue block", "a red block"];

/** Eight pictures of coloured blocks. */
export const blocks = memoryDataset({
  name: "blocks",
  width: 16,
  height: 16,
  channels: 3,
  pixels: Uint8Array.from({ length: 8 * 768 }, (_, i) => ((Math.floor(i / 768) * 37 + (i % 3) * 80 + Math.floor((i % 48) / 24) * 90) % 256)),
  captions: Array.from({ length: 8 }, (_, i) => [captions[i % 2]!]),
}); // prettier-ignore

export const tinyAutoencoder: AutoencoderTrainerOptions = {
  model: tinyCodec,
  dataset: blocks,
  batchSize: 4,
  seed: 5,
  optimiser: { emaDecay: 0.99, clipNorm: 1 },
};

const tokenizer = new TextTokenizer(trainWordVocabulary(captions));

export const tinyDiscrete = (): TaskTrainerOptions => ({
  task: discreteTask({
    model: textToToken({
      condition: {
        text: { vocabulary: tokenizer.vocabularySize, length: 6, width: 16, layers: 1, heads: 2 },
        attributes: { style: 2 },
      },
      transformer: { codes: 10, grid: [4, 4], width: 24, layers: 1, heads: 2, timesteps: 20, condition: { kind: "text", width: 16 } },
    }),
    process: { timesteps: 20 },
    data: {
      images: blocks,
      tokens: Int32Array.from({ length: 8 * 16 }, (_, i) => (Math.floor(i / 16) + i) % 10),
      attributes: { style: { names: ["a", "b"], values: Int32Array.from({ length: 8 }, (_, i) => i % 2) } },
    },
    tokenizer,
    loss: { auxiliaryWeight: 0.1 },
  }),
  dataset: blocks,
  batchSize: 4,
  seed: 9,
}); // prettier-ignore

/** A denoiser and how it is trained. */
export interface DenoiserSetting
  extends Omit<TaskTrainerOptions, "task">, Omit<DenoiserTaskOptions, "process" | "loss"> {
  process: ProcessTraining["process"];
  loss?: GaussianTrainingOptions | InterpolantLossOptions;
}

export async function denoiserTrainer(setting: DenoiserSetting): Promise<TaskTrainer> {
  const { network, process, loss, conditions, derived, pairDropShare, ...trainer } = setting;
  const task = denoiserTask({
    ...({ process, ...(loss && { loss }) } as ProcessTraining),
    network,
    ...(conditions && { conditions }),
    ...(derived && { derived }),
    ...(pairDropShare !== undefined && { pairDropShare }),
  });
  return TaskTrainer.create({ task, ...trainer });
}
