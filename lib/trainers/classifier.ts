// Training of a classifier of noisy pictures, whose gradients guide sampling: cross entropy at the times and levels of the
// process that it will guide. Sources: Dhariwal and Nichol 2021, arXiv:2105.05233, section 4 and appendix H;
// openai/guided-diffusion scripts/classifier_train.py.
import { DiffusionError } from "../errors.js";
import { admEncoderUnet, type AdmEncoderUnetConfig } from "../models/adm-encoder-unet.js";
import { checkFields, object } from "../models/check-config.js";
import { argMax, crossEntropy, randomNormal } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { denoiserProcess, type ProcessTraining } from "./denoiser.js";
import type { TrainingTask } from "./task-trainer.js";
import type { LossTerms } from "./train-step.js";

export interface ClassifierTaskOptions {
  model: AdmEncoderUnetConfig;
  /** Corrupts the pictures; its times are drawn evenly, or as a flow draws them. What it predicts does not matter. */
  process: ProcessTraining["process"];
}

const noisePurpose = 1;

/** Mean of -log p(class | x_t), and the share of samples whose class is the likeliest. */
function classifierTerms(logits: Tensor, labels: Tensor): LossTerms {
  const loss = crossEntropy(logits, labels).mean();
  return { loss, outputs: { top1: argMax(logits).equal(labels).cast(logits.dtype).mean() } };
}

/** Throws "data" for a picture without one of the classes. */
function checkLabels(labels: Int32Array, outputs: number): void {
  const wrong = labels.find((label) => !(label >= 0 && label < outputs));
  if (wrong === undefined) return;
  throw new DiffusionError(
    "data",
    `classifier: expected a class from 0 to ${outputs - 1} for every picture, got ${wrong}; put the pictures of each class into a sub-folder, and set outputs to their number`,
  );
}

/** A classifier of noisy pictures to train; give it to a TaskTrainer. Throws "option" for what does not fit. */
export function classifierTask(options: ClassifierTaskOptions): TrainingTask {
  checkFields("classifier", options, { model: object, process: object });
  const model = admEncoderUnet(options.model);
  const process = denoiserProcess({ process: options.process } as ProcessTraining);
  const { imageChannels = 3, outputs } = model.config;
  return {
    configuration: { ...options },
    parameters: model.parameters,
    inputs(pictures) {
      const [B, , , C] = pictures as [number, number, number, number];
      if (C !== imageChannels)
        throw new DiffusionError(
          "option",
          `classifier: expected pictures of ${imageChannels} channels, got ${C}`,
        );
      return {
        images: { shape: pictures },
        times: { shape: [B] },
        table: { shape: [B, process.columns] },
        labels: { shape: [B], dtype: "i32" },
        key: { shape: [B, 4], dtype: "i32" },
      };
    },
    loss(batch) {
      const { images, times, table, labels, key } = batch as Record<
        "images" | "times" | "table" | "labels" | "key",
        Tensor
      >;
      const noise = randomNormal(key, { shape: images.shape, purpose: noisePurpose });
      const x = process.corrupt({ x0: images, noise, table });
      return classifierTerms(model.forward({ x, times, dropoutKey: key }), labels);
    },
    values({ images, labels }, place) {
      checkLabels(labels, outputs);
      const { times, table } = process.draw(place);
      return { inputs: { images, times, table, labels, key: place.key } };
    },
    metrics: ["top1"],
  };
}
