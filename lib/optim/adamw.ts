// Update rules on tensors, appended to a training graph: AdamW, Adam and SGD with momentum.
import type { Tensor } from "../trace/tensor.js";

/** A parameter and what belongs to it, all of its shape. */
export interface AdamState {
  param: Tensor;
  grad: Tensor;
  /** Averages of the gradient and of its square; 0 before the first update. */
  m: Tensor;
  v: Tensor;
}

export interface AdamWOptions {
  /** Scalar learning rate. */
  lr: Tensor;
  /** Scalars 1 - beta1^n and 1 - beta2^n of update n (from 1). */
  biasCorrection1: Tensor;
  biasCorrection2: Tensor;
  /** Default [0.9, 0.999]. */
  betas?: readonly [number, number];
  /** Default 1e-8. */
  eps?: number;
  /** Decoupled decay; default 0, which is Adam (Kingma and Ba 2015, arXiv:1412.6980). */
  weightDecay?: number;
}

/**
 * The next parameter and averages. Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2: theta <- theta (1 - lr wd) - lr mhat /
 * (sqrt(vhat) + eps). Differs: the decay is scaled by the learning rate, as in PyTorch.
 */
export function adamw(
  { param, grad, m, v }: AdamState,
  options: AdamWOptions,
): Omit<AdamState, "grad"> {
  const {
    lr,
    biasCorrection1,
    biasCorrection2,
    betas = [0.9, 0.999],
    eps = 1e-8,
    weightDecay = 0,
  } = options;
  const [b1, b2] = betas;
  const nextM = m.mul(b1).add(grad.mul(1 - b1));
  const nextV = v.mul(b2).add(grad.square().mul(1 - b2));
  // Both corrections are scalars: as Kingma and Ba, end of section 2, they cost no pass over a tensor of their own.
  const root = biasCorrection2.sqrt();
  const change = nextM.div(nextV.sqrt().add(root.mul(eps)));
  const kept = weightDecay === 0 ? param : param.mul(lr.mul(-weightDecay).add(1));
  const step = lr.mul(root).div(biasCorrection1).neg();
  return { param: kept.add(change.mul(step)), m: nextM, v: nextV };
}

/**
 * The next parameter and velocity, which is 0 before the first update; `lr` is a scalar, `momentum` 0 by default.
 * Polyak 1964: buf <- momentum buf + g; theta <- theta - lr buf. With `nesterov` (Sutskever et al. 2013, section 2.1, as
 * PyTorch writes it) theta <- theta - lr (g + momentum buf).
 */
export function sgd(
  { param, grad, velocity }: { param: Tensor; grad: Tensor; velocity: Tensor },
  { lr, momentum = 0, nesterov = false }: { lr: Tensor; momentum?: number; nesterov?: boolean },
): { param: Tensor; velocity: Tensor } {
  const next = velocity.mul(momentum).add(grad);
  const change = nesterov ? grad.add(next.mul(momentum)) : next;
  return { param: param.sub(change.mul(lr)), velocity: next };
}
