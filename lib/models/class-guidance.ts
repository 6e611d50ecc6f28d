// Classifier-free guidance of a network that sees a doubled batch: rows with their class first, the
// same rows without one after them. Source: Ho and Salimans 2022, arXiv:2207.12598, eq. 6.
import { DiffusionError, formatShape } from "../errors.js";
import { concat } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";

/** What a class-conditional network reads. */
export interface ClassInput {
  /** (B, H, W, channels). */
  x: Tensor;
  /** (B), f32 or i32, in the convention of the network: DiT 0 … 999, SiT and FiT 0 (noise) … 1 (data). */
  times: Tensor;
  /** i32 (B); index `classes` is the null class. */
  labels: Tensor;
  /** f32 (B): 1 replaces the label by the null class; default keeps all. */
  isNull?: Tensor;
}

/** One number for all, or a tensor (B) with one for each sample. */
export type GuidanceScale = number | Tensor;

export interface GuidanceOptions {
  scale: GuidanceScale;
  /**
   * How many channels are guided. The references guide the first 3 of 4, and their published figures
   * come from that; "all" guides every channel of the prediction. Default 3.
   */
  channels?: number | "all";
}

/**
 * u + s (c - u) of the first `channels` channels, in both halves of (2 B, H, W, C); the other
 * channels keep the value of their own row.
 */
export function guideHalves(output: Tensor, scale: GuidanceScale, channels: number): Tensor {
  const [rows, H, W, C] = output.shape as [number, number, number, number];
  if (output.rank !== 4 || rows % 2 !== 0) {
    throw new DiffusionError(
      "shape",
      `guideHalves: expected (2 B, H, W, C), got ${formatShape(output.shape)}`,
    );
  }
  const B = rows / 2;
  const guided = Math.min(channels, C);
  const part = (row: number): Tensor => output.slice([row, 0, 0, 0], [B, H, W, guided]);
  const [conditional, unconditional] = [part(0), part(B)];
  const strength = typeof scale === "number" ? scale : scale.reshape([scale.size, 1, 1, 1]);
  const mixed = unconditional.add(conditional.sub(unconditional).mul(strength));
  const both = concat([mixed, mixed], 0);
  if (guided === C) return both;
  return concat([both, output.slice([0, 0, 0, guided], [rows, H, W, C - guided])], 3);
}

export interface GuidedNetwork {
  forward: (input: ClassInput) => Tensor;
  classes: number;
  /** Channels of the prediction, which come first in the output. */
  channels: number;
}

/** The guided output (B, ...) of a network, from one pass over twice the batch. */
export function guidedPass(
  { forward, classes, channels }: GuidedNetwork,
  { x, times, labels }: Omit<ClassInput, "isNull">,
  { scale, channels: guided = 3 }: GuidanceOptions,
): Tensor {
  const twice = (rows: Tensor): Tensor => concat([rows, rows], 0);
  const B = x.shape[0]!;
  const none = x.trace.constant(classes, [B], "i32");
  const both = forward({ x: twice(x), times: twice(times), labels: concat([labels, none], 0) });
  const mixed = guideHalves(both, scale, guided === "all" ? channels : guided);
  return mixed.slice(
    mixed.shape.map(() => 0),
    [B, ...mixed.shape.slice(1)],
  );
}

/**
 * A scale that falls from `scale` at t = 0 (noise) to 1 at t = 1 (data), sooner for a large `power`:
 * 1 + (scale - 1) (1 - cos(pi (1 - t)^power)) / 2. Gao et al. 2023, arXiv:2303.14389, with the t of
 * whlzy/FiT. Times (B) -> (B).
 */
export const powerCosineScale = (
  times: Tensor,
  { scale, power }: { scale: number; power: number },
): Tensor => {
  const left = times.minimum(1).neg().add(1).pow(power);
  const share = left.mul(Math.PI).cos().neg().add(1).mul(0.5);
  return share.mul(scale - 1).add(1);
};
