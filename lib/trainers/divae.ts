// Training of a tokenizer with a diffusion decoder: codebook and denoising together, or the decoder alone behind a tokenizer
// that stays. Losses, hidden codes and restarts as in apple/ml-4m run_training_divae.py and fourm/vq/vqvae.py. Sources: Shi
// et al. 2022, arXiv:2206.00386; Mizrahi et al. 2023, arXiv:2312.06647, appendix.
import { DiffusionError } from "../errors.js";
import type { Shape } from "../ir/shape.js";
import {
  checkFields,
  object,
  oneOf,
  optional,
  real,
  whole,
  type Rule,
} from "../models/check-config.js";
import { divae, type Divae, type DivaeConfig } from "../models/divae.js";
import { perplexity } from "../models/vector-quantizer.js";
import type { TensorData } from "../runtime/buffer.js";
import { randomNormal } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { denoiserProcess, type ProcessTraining } from "./denoiser.js";
import type { DenoiserProcess } from "./denoiser-process.js";
import { restartDeadCodes } from "./restart-codes.js";
import type { BatchPlace, TrainingTask } from "./task-trainer.js";
import type { LossTerms } from "./train-step.js";

/** What stands beside model and process. */
export interface DivaeTrainingOptions {
  /** "decoder": encoder and codebook stay as they are, so that every picture keeps its tokens. Default "all". */
  trains?: "all" | "decoder";
  /** Of the codebook loss, which only moves the encoder; default 1. */
  codebookWeight?: number;
  /** Share of samples whose codes the decoder does not see, for guidance; default 0. */
  dropShare?: number;
  /** What such a sample hides: "all" codes, or "some", anything from none to all of them. Default "all". */
  dropCodes?: "all" | "some";
  /** Steps between restarts of codes used less than 0.03 times the mean; 0 = never. Default 1. */
  restartEvery?: number;
}

export type DivaeTaskOptions = ProcessTraining & DivaeTrainingOptions & { model: DivaeConfig };

const share = optional(real(0, 1));

export const divaeTrainingRules: Readonly<Record<keyof DivaeTrainingOptions, Rule>> = {
  trains: optional(oneOf("all", "decoder")),
  codebookWeight: optional(real(0, 1e6)),
  dropShare: share,
  dropCodes: optional(oneOf("all", "some")),
  restartEvery: optional(whole(0, 1e9)),
};

const rules: Readonly<Record<"model" | "process" | "loss" | keyof DivaeTrainingOptions, Rule>> = {
  model: object,
  process: object,
  loss: optional(object),
  ...divaeTrainingRules,
};

/** Parts that make tokens of a picture. */
const tokenPath = ["encoder", "quant_proj", "quantize"];

const noisePurpose = 1;

/** Which of N codes of each sample are hidden, 1 or 0: (B, N). */
function hiddenCodes(
  N: number,
  { dropShare = 0, dropCodes = "all" }: DivaeTrainingOptions,
  place: BatchPlace,
): Float32Array {
  const drops = place.uniform("drop");
  if (dropCodes === "all")
    return Float32Array.from({ length: drops.length * N }, (_, i) =>
      Number(drops[Math.floor(i / N)]! < dropShare),
    );
  const shares = place.uniform("hidden");
  const order = Array.from({ length: N }, (_, n) => place.uniform(`code.${n}`));
  const hidden = new Float32Array(drops.length * N);
  drops.forEach((drop, b) => {
    if (drop >= dropShare) return;
    const ranked = [...order.keys()].sort((m, n) => order[m]![b]! - order[n]![b]!);
    const count = Math.floor(shares[b]! * (N + 1));
    for (const n of ranked.slice(0, count)) hidden[b * N + n] = 1;
  });
  return hidden;
}

function divaeLoss(
  model: Divae,
  process: DenoiserProcess,
  { trains = "all", codebookWeight = 1 }: DivaeTrainingOptions,
  batch: Record<string, Tensor>,
): LossTerms {
  const { images, times, table, weights, key } = batch as Record<
    "images" | "times" | "table" | "weights" | "key",
    Tensor
  >;
  const learnsCodes = trains === "all";
  const latents = learnsCodes ? model.encode(images, key) : model.encode(images);
  const { quantised, indices, loss: codebook, compared, errors } = model.quantizer.quantise(latents); // prettier-ignore
  const noise = randomNormal(key, { shape: images.shape, purpose: noisePurpose });
  const x = process.corrupt({ x0: images, noise, table });
  const hidden = batch["hidden"] && { hidden: batch["hidden"] };
  const output = model.denoise({ x, times, condition: quantised, dropoutKey: key, ...hidden });
  const { perSample, metrics } = process.loss({ x0: images, noise, table, xt: x, output });
  const denoising = perSample.mul(weights).mean();
  return {
    loss: learnsCodes ? denoising.add(codebook.mul(codebookWeight)) : denoising,
    outputs: {
      perSample,
      ...metrics,
      denoising,
      codebook,
      perplexity: perplexity(indices, model.config.quantizer.codes),
      ...(learnsCodes && { compared, errors }),
    },
    ...(learnsCodes && { updates: model.quantizer.updates(latents, indices) }),
  };
}

/** Throws "option" for tokenizers of class maps, and pictures whose sides patches do not fill. */
function checkPictures({ config, patch, decoder }: Divae, [, H, W, C]: Shape): void {
  const { imageChannels = 3 } = config;
  const fits = [patch, decoder.stride].every((side) => H! % side === 0 && W! % side === 0);
  if (fits && C === imageChannels) return;
  throw new DiffusionError(
    "option",
    `divae: expected pictures of ${imageChannels} channels and sides divisible by ${patch} and ${decoder.stride}, got ${H} x ${W} x ${C}`,
  );
}

function checkOptions(options: DivaeTaskOptions): void {
  checkFields("divae", options, rules);
  if (options.model.labels !== undefined)
    throw new DiffusionError(
      "option",
      `divae: expected a tokenizer of pictures to train, got one of maps with ${options.model.labels} classes`,
    );
}

/** A tokenizer with a diffusion decoder to train; give it to a TaskTrainer. Throws "option" for what does not fit. */
export function divaeTask(options: DivaeTaskOptions): TrainingTask {
  checkOptions(options);
  const model = divae(options.model);
  const process = denoiserProcess(options);
  const { trains = "all", dropShare = 0, restartEvery = 1 } = options;
  const gridOf = ([, H, W]: readonly number[]): [number, number] => [
    H! / model.patch,
    W! / model.patch,
  ];
  return {
    configuration: { ...options },
    parameters: model.parameters,
    states: model.states,
    ...(trains === "decoder" && { frozen: tokenPath }),
    inputs(pictures) {
      checkPictures(model, pictures);
      const [B] = pictures as [number];
      return {
        images: { shape: pictures },
        times: { shape: [B] },
        table: { shape: [B, process.columns] },
        weights: { shape: [B] },
        key: { shape: [B, 4], dtype: "i32" },
        ...(dropShare > 0 && { hidden: { shape: [B, ...gridOf(pictures)] } }),
      };
    },
    loss: (batch) => divaeLoss(model, process, options, batch),
    values({ images, shape }, place) {
      const { observe, ...drawn } = process.draw(place);
      const inputs: Record<string, TensorData> = { images, ...drawn, key: place.key };
      const [h, w] = gridOf(shape);
      if (dropShare > 0) inputs["hidden"] = hiddenCodes(h * w, options, place);
      return { inputs, ...(observe && { observe: (found) => observe(found["perSample"]!) }) };
    },
    metrics: ["denoising", "codebook", "perplexity", "bound"],
    ...(trains === "all" && {
      afterStep({ index, seed, isNew, outputs, buffers }) {
        const batch = {
          latents: outputs["compared"] as Float32Array,
          errors: outputs["errors"] as Float32Array,
        };
        const isUnit = model.config.quantizer.metric !== "euclidean";
        const options = { seed, step: index, every: restartEvery, isNew };
        restartDeadCodes({ ...model.quantizer, isUnit }, buffers, batch, options);
        return []; // as often as every step: the perplexity tells how it goes
      },
    }),
    ...(process.memory && { memory: process.memory }),
  };
}
