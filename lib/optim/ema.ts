// Averages of weights.
import type { Tensor } from "../trace/tensor.js";

/** average <- decay average + (1 - decay) param, with a scalar decay of this step. */
export const ema = (average: Tensor, param: Tensor, decay: Tensor): Tensor =>
  average.sub(average.sub(param).mul(decay.neg().add(1)));

/**
 * Decay that follows the weights closely at first: min(decay, (1 + n) / (10 + n)) for update n = 1,
 * 2, ...; as in CompVis/latent-diffusion ldm/modules/ema.py.
 */
export const warmEmaDecay = (decay: number, update: number): number =>
  Math.min(decay, (1 + update) / (10 + update));
