// What a decoder that denoises an image towards a grid of latents is called with, and the checks that both kinds share.
import { DiffusionError, formatShape } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import type { Tensor } from "../trace/tensor.js";

export interface DecoderInput {
  /** Noisy image (B, H, W, C). */
  x: Tensor;
  /** Timesteps (B), i32 or fractional f32, in the units of the training schedule. */
  times: Tensor;
  /** Latents (B, h, w, conditionWidth), resized to the grid of the network by nearest neighbour. */
  condition: Tensor;
  /** f32 (B, h, w): 1 where the condition is hidden, 0 elsewhere; default nothing is hidden. */
  hidden?: Tensor;
  /** Key i32 (B, 4): dropout acts when it is given. */
  dropoutKey?: Tensor;
}

export interface DiffusionDecoder {
  /** Sides of x are multiples of this. */
  readonly stride: number;
  readonly parameters: readonly ParamSpec[];
  /** Prediction (B, H, W, outChannels). Throws "shape" for inputs that do not fit. */
  forward(input: DecoderInput): Tensor;
}

export interface DecoderContract {
  where: string;
  channels: number;
  stride: number;
  conditionWidth: number;
}

/** Throws "shape" when an input does not fit. */
export function checkDecoderInput(contract: DecoderContract, input: DecoderInput): void {
  const { where, channels, stride, conditionWidth } = contract;
  const { x, times, condition, hidden, dropoutKey } = input;
  const [B = 0, H = 0, W = 0, C] = x.shape;
  const expect = (fits: boolean, expected: string, found: Tensor): void => {
    if (fits) return;
    throw new DiffusionError(
      "shape",
      `${where}: expected ${expected}, got ${formatShape(found.shape)}`,
    );
  };
  const isImage = x.rank === 4 && C === channels && H % stride === 0 && W % stride === 0;
  expect(isImage, `x (B, H, W, ${channels}) with sides divisible by ${stride}`, x);
  expect(times.shape.join() === `${B}`, `times [${B}]`, times);
  const [b, , , D] = condition.shape;
  const isGrid = condition.rank === 4 && b === B && D === conditionWidth;
  expect(isGrid, `condition [${B}, h, w, ${conditionWidth}]`, condition);
  const grid = condition.shape.slice(0, 3);
  if (hidden) expect(hidden.shape.join() === grid.join(), `hidden ${formatShape(grid)}`, hidden);
  if (dropoutKey) expect(dropoutKey.shape.join() === `${B},4`, `dropoutKey [${B}, 4]`, dropoutKey);
}
