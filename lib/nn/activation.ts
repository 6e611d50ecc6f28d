// Activations that blocks can be built with, by name.
import { gelu, quickGelu, silu, softplus, tanh } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";

/** Misra 2019, arXiv:1908.08681: x tanh(softplus(x)). */
export const mish = (x: Tensor): Tensor => x.mul(tanh(softplus(x)));

export const activations = { silu, mish, gelu, quickGelu } as const;

export type ActivationName = keyof typeof activations;
