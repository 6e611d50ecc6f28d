// Losses of a VQGAN in training: reconstruction, codebook, perceptual and adversarial terms, and those of its
// discriminator. Source: Esser et al. 2021, arXiv:2012.09841, section 3.1.
import { gradients } from "../autodiff/differentiate.js";
import type { PatchDiscriminator } from "../models/patch-discriminator.js";
import type { Vqgan } from "../models/vqgan.js";
import {
  adaptiveWeight,
  autoencoderLoss,
  discriminatorLosses,
  generatorLoss,
  l1Loss,
  l2Loss,
  type DiscriminatorLossName,
} from "../processes/adversarial.js";
import { stopGradient } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { PerceptualTerm } from "./perceptual-term.js";
import { mixWithNext } from "./token-mix.js";
import type { LossTerms } from "./train-step.js";

export interface AutoencoderLossOptions {
  /** Weight of the mean absolute error; default 1. */
  l1?: number;
  /** Weight of the mean squared error; default 0. */
  l2?: number;
  /** Weight of the codebook loss; default 1. */
  codebookWeight?: number;
  /** Off by default. */
  perceptual?: PerceptualTerm;
  /** Moves a codebook that is kept by moving averages; default true. */
  learnsCodes?: boolean;
  /** The discriminator to deceive, and the weight of doing so beside the adaptive one (default 0.8). */
  critic?: { model: PatchDiscriminator; weight?: number };
}

/**
 * "images" (B, H, W, C); "foreign" (B, h, w), where tokens come from the next picture, if any do; with a critic "factor",
 * the discriminatorFactor of the step as a scalar, and for its own step "generated" pictures.
 */
export type AutoencoderBatch = Readonly<Record<string, Tensor>>;

/** Mixes pictures or latents as the batch says. */
const mixed = (x: Tensor, { foreign }: AutoencoderBatch): Tensor =>
  foreign ? mixWithNext(x, foreign) : x;

/** The whole loss of one batch; outputs what dead-code replacement and the discriminator's step read. */
export function autoencoderTerms(
  model: Vqgan,
  batch: AutoencoderBatch,
  options: AutoencoderLossOptions = {},
): LossTerms {
  const { l1 = 1, l2 = 0, codebookWeight = 1, perceptual, learnsCodes = true, critic } = options;
  const images = mixed(batch["images"]!, batch);
  const latents = model.encode(batch["images"]!);
  const { quantised, indices, loss: codebook, compared, errors } = model.quantizer.quantise(latents); // prettier-ignore
  const output = model.decode(mixed(quantised, batch));
  const mse = l2Loss(images, output);
  let reconstruction = l1Loss(images, output).mul(l1).add(mse.mul(l2));
  if (perceptual)
    reconstruction = reconstruction.add(perceptual.loss(images, output).mul(perceptual.weight));
  const adversarial = critic && adversarialTerm(model, critic, output, reconstruction);
  const loss = adversarial
    ? autoencoderLoss({ reconstruction, codebook, codebookWeight, factor: batch["factor"]!, ...adversarial })
    : reconstruction.add(codebook.mul(codebookWeight)); // prettier-ignore
  return {
    loss,
    outputs: {
      reconstruction,
      codebook,
      mse,
      compared,
      errors,
      ...(adversarial && { generated: output, adversarialWeight: adversarial.weight }),
    },
    ...(learnsCodes &&
      model.quantizer.averages && { updates: model.quantizer.updates(latents, indices) }),
  };
}

/** The generator's side of the game, and its weight from the gradients of both losses at the last layer. */
function adversarialTerm(
  model: Vqgan,
  { model: critic, weight: discriminatorWeight }: NonNullable<AutoencoderLossOptions["critic"]>,
  output: Tensor,
  reconstruction: Tensor,
): { adversarial: Tensor; weight: Tensor } {
  const t = output.trace;
  const { logits } = critic.forward(output, { mode: "train", state: critic.state(t) });
  const adversarial = generatorLoss(logits);
  const last = t.parameter(model.parameters.find(({ name }) => name === model.lastLayer)!);
  const [fromReconstruction] = gradients(reconstruction, [last]);
  const [fromCritic] = gradients(adversarial, [last]);
  const weight = adaptiveWeight(fromReconstruction!, fromCritic!, {
    ...(discriminatorWeight !== undefined && { discriminatorWeight }),
  });
  return { adversarial, weight };
}

/** Loss of the discriminator on `images` and `generated`, times `factor`, with its running statistics. */
export function discriminatorTerms(
  critic: PatchDiscriminator,
  batch: AutoencoderBatch,
  loss: DiscriminatorLossName = "hinge",
): LossTerms {
  const { images, generated, factor } = batch;
  const state = critic.state(images!.trace);
  const real = critic.forward(mixed(images!, batch), { mode: "train", state });
  const fake = critic.forward(stopGradient(generated!), { mode: "train", state: real.state });
  return {
    loss: discriminatorLosses[loss](real.logits, fake.logits).mul(factor!),
    updates: fake.state,
  };
}
