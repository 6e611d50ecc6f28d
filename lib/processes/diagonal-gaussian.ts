// The posterior of a variational autoencoder: independent normal distributions given by channels of means and log
// variances. Source: Kingma and Welling 2013, arXiv:1312.6114; bounds of CompVis/latent-diffusion
// ldm/modules/distributions/distributions.py.
import type { Tensor } from "../trace/tensor.js";
import { split } from "../trace/functions.js";

export interface DiagonalGaussian {
  /** (B, …, C). */
  readonly mean: Tensor;
  /** Logarithm of the variance, clamped to [-30, 20]. */
  readonly logVariance: Tensor;
  /** mean + deviation * noise, noise standard normal and shaped like the mean. */
  sample(noise: Tensor): Tensor;
  /** KL divergence to the standard normal distribution, summed over all but the batch: (B). */
  kl(): Tensor;
  /** Negative log-likelihood of a value, summed over all but the batch: (B). */
  nll(value: Tensor): Tensor;
}

const kLogVarianceBounds = { min: -30, max: 20 };

const sumOfSample = (x: Tensor): Tensor => {
  const B = x.shape[0]!;
  return x.reshape([B, x.size / B]).sum([1]);
};

/** Moments (B, …, 2 C), means first. */
export function diagonalGaussian(moments: Tensor): DiagonalGaussian {
  const [mean, raw] = split(moments, 2, moments.rank - 1) as [Tensor, Tensor];
  const logVariance = raw.clamp(kLogVarianceBounds.min, kLogVarianceBounds.max);
  return {
    mean,
    logVariance,
    sample: (noise) => mean.add(logVariance.mul(0.5).exp().mul(noise)),
    kl: () => sumOfSample(mean.square().add(logVariance.exp()).sub(1).sub(logVariance)).mul(0.5),
    nll: (value) =>
      sumOfSample(
        value
          .sub(mean)
          .square()
          .div(logVariance.exp())
          .add(logVariance)
          .add(Math.log(2 * Math.PI)),
      ).mul(0.5),
  };
}
