// Losses of autoencoders in training: reconstruction, codebook or KL, perceptual and adversarial terms, and those of the
// discriminator. Sources: Esser et al. 2021, arXiv:2012.09841, section 3.1; Rombach et al. 2021, arXiv:2112.10752,
// appendix G, and the losses of CompVis/latent-diffusion.
import { gradients } from "../autodiff/differentiate.js";
import type { ParamSpec } from "../ir/param.js";
import type { AutoencoderKl } from "../models/autoencoder-kl.js";
import type { PatchDiscriminator } from "../models/patch-discriminator.js";
import type { Quantised } from "../models/vector-quantizer.js";
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
import { gumbel, randomNormal, stopGradient } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { PerceptualTerm } from "./perceptual-term.js";
import { mixWithNext } from "./token-mix.js";
import type { LossTerms } from "./train-step.js";

/** The discriminator to deceive, and the weight of doing so beside the adaptive one. */
export interface CriticOptions {
  model: PatchDiscriminator;
  /** Default 0.8. */
  weight?: number;
}

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
  critic?: CriticOptions;
}

/**
 * "images" (B, H, W, C); "foreign" (B, h, w), where tokens come from the next picture, if any do; "key" i32 (B, 4) of what
 * is drawn, and for Gumbel codes "temperature", a scalar; with a critic "factor", the discriminatorFactor of the step as a
 * scalar, and for its own step "generated" pictures.
 */
export type AutoencoderBatch = Readonly<Record<string, Tensor>>;

/** Mixes pictures or latents as the batch says. */
const mixed = (x: Tensor, { foreign }: AutoencoderBatch): Tensor =>
  foreign ? mixWithNext(x, foreign) : x;

const noisePurpose = 1;

/** Codes of a training step: Gumbel ones are drawn at the step's temperature. */
function drawnCodes(model: Vqgan, latents: Tensor, batch: AutoencoderBatch): Quantised {
  if (!model.gumbel) return model.quantizer.quantise(latents);
  const shape = [...latents.shape.slice(0, -1), model.quantizer.config.codes];
  const noise = gumbel(batch["key"]!, { shape, purpose: noisePurpose });
  return model.gumbel.quantiseWith(latents, { noise, temperature: batch["temperature"]! });
}

/** The whole loss of one batch; outputs what dead-code replacement and the discriminator's step read. */
export function autoencoderTerms(
  model: Vqgan,
  batch: AutoencoderBatch,
  options: AutoencoderLossOptions = {},
): LossTerms {
  const { l1 = 1, l2 = 0, codebookWeight = 1, perceptual, learnsCodes = true, critic } = options;
  const images = mixed(batch["images"]!, batch);
  const latents = model.encode(batch["images"]!);
  const { quantised, indices, loss: codebook, compared, errors } = drawnCodes(model, latents, batch); // prettier-ignore
  const output = model.decode(mixed(quantised, batch));
  const mse = l2Loss(images, output);
  let reconstruction = l1Loss(images, output).mul(l1).add(mse.mul(l2));
  if (perceptual)
    reconstruction = reconstruction.add(perceptual.loss(images, output).mul(perceptual.weight));
  const adversarial = critic && adversarialTerm(model, critic, { output, loss: reconstruction });
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
  { parameters, lastLayer }: Pick<Vqgan, "parameters" | "lastLayer">,
  { model: critic, weight: discriminatorWeight }: CriticOptions,
  reconstruction: { output: Tensor; loss: Tensor },
): { adversarial: Tensor; weight: Tensor } {
  const t = reconstruction.output.trace;
  const { logits } = critic.forward(reconstruction.output, { mode: "train", state: critic.state(t) }); // prettier-ignore
  const adversarial = generatorLoss(logits);
  const last = t.parameter(parameters.find(({ name }) => name === lastLayer)!);
  const [fromReconstruction] = gradients(reconstruction.loss, [last]);
  const [fromCritic] = gradients(adversarial, [last]);
  const weight = adaptiveWeight(fromReconstruction!, fromCritic!, {
    ...(discriminatorWeight !== undefined && { discriminatorWeight }),
  });
  return { adversarial, weight };
}

export interface AutoencoderKlLossOptions {
  /** Weight of the divergence from the standard normal distribution; default 1e-6. */
  klWeight?: number;
  /** Off by default. */
  perceptual?: PerceptualTerm;
  critic?: CriticOptions;
}

/**
 * The whole loss of one batch of a KL autoencoder: sums over pixels and latents, means over the batch. The error of a pixel
 * is Laplacian with one deviation for all: (|x - y| + LPIPS) / exp(s) + s, s the scalar parameter `logVariance`.
 */
export function autoencoderKlTerms(
  model: AutoencoderKl,
  logVariance: ParamSpec,
  batch: AutoencoderBatch,
  { klWeight = 1e-6, perceptual, critic }: AutoencoderKlLossOptions = {},
): LossTerms {
  const images = batch["images"]!;
  const s = images.trace.parameter(logVariance);
  const posterior = model.encode(images);
  const noise = randomNormal(batch["key"]!, { shape: posterior.mean.shape, purpose: noisePurpose });
  const output = model.decode(posterior.sample(noise));
  const absolute = l1Loss(images, output);
  const reconstruction = perceptual
    ? absolute.add(perceptual.loss(images, output).mul(perceptual.weight))
    : absolute;
  const values = images.size / images.shape[0]!;
  const nll = reconstruction.mul(s.neg().exp()).add(s).mul(values);
  const kl = posterior.kl().mean();
  const adversarial = critic && adversarialTerm(model, critic, { output, loss: nll });
  const loss = adversarial
    ? autoencoderLoss({ reconstruction: nll, codebook: kl, codebookWeight: klWeight, factor: batch["factor"]!, ...adversarial })
    : nll.add(kl.mul(klWeight)); // prettier-ignore
  return {
    loss,
    outputs: {
      reconstruction,
      kl,
      logVariance: s,
      mse: l2Loss(images, output),
      ...(adversarial && { generated: output, adversarialWeight: adversarial.weight }),
    },
  };
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
