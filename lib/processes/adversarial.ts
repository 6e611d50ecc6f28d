// Losses of adversarial autoencoder training. Source: Esser et al. 2021, arXiv:2012.09841, section
// 3.1, and CompVis/taming-transformers taming/modules/losses/vqperceptual.py.
import { relu, softplus, stopGradient } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";

/** Logits of real and of generated pictures -> scalar loss of the discriminator. */
export type DiscriminatorLoss = (real: Tensor, generated: Tensor) => Tensor;

export type DiscriminatorLossName = "hinge" | "vanilla";

export const discriminatorLosses: Readonly<Record<DiscriminatorLossName, DiscriminatorLoss>> = {
  /** Lim and Ye 2017, arXiv:1705.02894. */
  hinge: (real, generated) =>
    relu(real.neg().add(1))
      .mean()
      .add(relu(generated.add(1)).mean())
      .mul(0.5),
  /** Goodfellow et al. 2014, arXiv:1406.2661, in logits. */
  vanilla: (real, generated) =>
    softplus(real.neg()).mean().add(softplus(generated).mean()).mul(0.5),
};

/** -mean D(generated): the generator's side of both losses. */
export const generatorLoss = (generated: Tensor): Tensor => generated.mean().neg();

export interface AdaptiveWeightOptions {
  /** Default 0.8. */
  discriminatorWeight?: number;
  /** Guards the quotient; default 1e-4. */
  eps?: number;
  /** Largest quotient; default 1e4. */
  largest?: number;
}

/**
 * Esser et al. 2021, eq. 7: lambda = |grad L_rec| / (|grad L_gan| + eps), gradients with respect to
 * the decoder's last layer, times a fixed weight. It is a constant of the step: no gradient flows
 * through it.
 */
export function adaptiveWeight(
  reconstructionGradient: Tensor,
  adversarialGradient: Tensor,
  { discriminatorWeight = 0.8, eps = 1e-4, largest = 1e4 }: AdaptiveWeightOptions = {},
): Tensor {
  const norm = (g: Tensor): Tensor => g.square().sum().sqrt();
  const quotient = norm(reconstructionGradient).div(norm(adversarialGradient).add(eps));
  return stopGradient(quotient.clamp(0, largest).mul(discriminatorWeight));
}

/** Factor of the adversarial terms: 0 before `start` steps, then `factor`. */
export const discriminatorFactor = (step: number, start: number, factor = 1): number =>
  step < start ? 0 : factor;

export interface GeneratorTerms {
  /** Scalar reconstruction loss, perceptual terms included. */
  reconstruction: Tensor;
  /** Scalar -mean D(generated). */
  adversarial: Tensor;
  /** Scalar codebook loss. */
  codebook: Tensor;
  /** Scalar adaptive weight. */
  weight: Tensor;
  /** Scalar tensor or number: discriminatorFactor of the step. */
  factor: Tensor | number;
  /** Default 1. */
  codebookWeight?: number;
}

/** Total loss of the autoencoder. */
export const autoencoderLoss = (terms: GeneratorTerms): Tensor =>
  terms.reconstruction
    .add(terms.adversarial.mul(terms.weight).mul(terms.factor))
    .add(terms.codebook.mul(terms.codebookWeight ?? 1));

/** Mean absolute difference. */
export const l1Loss = (x: Tensor, y: Tensor): Tensor => x.sub(y).abs().mean();

/** Mean squared difference. */
export const l2Loss = (x: Tensor, y: Tensor): Tensor => x.sub(y).square().mean();
