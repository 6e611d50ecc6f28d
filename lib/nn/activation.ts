// Activations that blocks can be built with, by name.
import { gelu, quickGelu, silu, softplus, split, tanh } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";

/** Misra 2019, arXiv:1908.08681: x tanh(softplus(x)). */
export const mish = (x: Tensor): Tensor => x.mul(tanh(softplus(x)));

export const activations = { silu, mish, gelu, quickGelu } as const;

/** Shazeer 2020, arXiv:2002.05202, eq. 6: the first half of the last axis times gelu of the second. */
export function geglu(x: Tensor): Tensor {
  const [value, gate] = split(x, 2, x.rank - 1) as [Tensor, Tensor];
  return value.mul(gelu(gate));
}
