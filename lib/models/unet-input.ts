// What a pixel-space denoising U-Net is called with, and the checks that all of them share.
import { DiffusionError, formatShape } from "../errors.js";
import type { Tensor } from "../trace/tensor.js";

export interface UnetInput {
  /** Noisy image (B, H, W, C). */
  x: Tensor;
  /** Timesteps (B), i32 or fractional f32, in the units of the training schedule. */
  times: Tensor;
  /** Classes (B), i32: exactly when the model has classes. */
  labels?: Tensor;
  /** Conditioning image (B, h, w, C), resized to x: exactly when the model has one. */
  lowRes?: Tensor;
  /** Latent vector (B, D), only for a model with a projection for it; without one nothing is added. */
  latent?: Tensor;
  /** Key i32 (B, 4): dropout acts when it is given. */
  dropoutKey?: Tensor;
}

/** What a model expects of its input. */
export interface UnetContract {
  where: string;
  channels: number;
  /** Sides are multiples of this. */
  stride: number;
  classes?: number | undefined;
  latentWidth?: number | undefined;
  /** Whether lowRes belongs to the input; default false. */
  conditional?: boolean;
}

const shapeError = (where: string, expected: string, found: string): DiffusionError =>
  new DiffusionError("shape", `${where}: expected ${expected}, got ${found}`);

const named = (x: Tensor | undefined): string => (x ? formatShape(x.shape) : "none");

function checkVector(contract: UnetContract, name: string, x: Tensor, shape: number[]): void {
  if (formatShape(x.shape) === formatShape(shape)) return;
  throw shapeError(contract.where, `${name} ${formatShape(shape)}`, formatShape(x.shape));
}

/** Present exactly when wanted. */
function checkPresence(
  { where }: UnetContract,
  name: string,
  x: Tensor | undefined,
  wanted: boolean,
): void {
  if ((x !== undefined) === wanted) return;
  throw shapeError(
    where,
    wanted ? `${name} for this model` : `no ${name} for this model`,
    named(x),
  );
}

/** Throws "shape" when an input is missing, unwanted or of the wrong shape. */
export function checkUnetInput(contract: UnetContract, input: UnetInput): void {
  const { where, channels, stride, classes, latentWidth, conditional = false } = contract;
  const { x, times, labels, lowRes, latent, dropoutKey } = input;
  const [B = 0, H = 0, W = 0, C] = x.shape;
  if (x.rank !== 4 || C !== channels || H % stride !== 0 || W % stride !== 0) {
    const sides = stride > 1 ? ` with sides divisible by ${stride}` : "";
    throw shapeError(where, `x (B, H, W, ${channels})${sides}`, formatShape(x.shape));
  }
  checkVector(contract, "times", times, [B]);
  checkPresence(contract, "labels", labels, classes !== undefined);
  checkPresence(contract, "lowRes", lowRes, conditional);
  if (latentWidth === undefined) checkPresence(contract, "latent", latent, false);
  if (labels) checkVector(contract, "labels", labels, [B]);
  if (latent) checkVector(contract, "latent", latent, [B, latentWidth!]);
  if (dropoutKey) checkVector(contract, "dropoutKey", dropoutKey, [B, 4]);
  if (lowRes && (lowRes.rank !== 4 || lowRes.shape[0] !== B || lowRes.shape[3] !== channels))
    throw shapeError(where, `lowRes [${B}, h, w, ${channels}]`, formatShape(lowRes.shape));
}
