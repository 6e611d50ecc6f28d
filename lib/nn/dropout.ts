// Dropout whose mask is a pure function of a random key: the same key gives the same mask on every
// machine, and without a key nothing is dropped. Source: Srivastava et al. 2014, "Dropout: a simple
// way to prevent neural networks from overfitting".
import { DiffusionError } from "../errors.js";
import { less, randomUniform, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";

/** Drops elements when a key i32 (B, 4) is given, and is the identity without one. */
export type Dropout = (x: Tensor, key?: Tensor) => Tensor;

/** Draws of a key that belong to dropout start here; lower purposes are the process's and loss's. */
const firstPurpose = 0x10000;

/** The places of one model that drop, each with a mask of its own. */
export class DropoutSites {
  readonly #rate: number;
  #count = 0;

  /** `rate`: probability that an element becomes 0; the others are divided by 1 - rate. */
  constructor(rate: number) {
    if (!(rate >= 0 && rate < 1)) {
      throw new DiffusionError("option", `dropout: expected a rate from 0 to below 1, got ${rate}`);
    }
    this.#rate = rate;
  }

  /** The next place, in order of construction. */
  next(): Dropout {
    const purpose = firstPurpose + this.#count++;
    const keep = 1 - this.#rate;
    return (x, key) => {
      if (!key || keep === 1) return x;
      const uniform = randomUniform(key, { shape: x.shape, purpose });
      return where(less(uniform, keep), x.mul(1 / keep), 0);
    };
  }
}
