// A parameter as data: what a model needs from a checkpoint, or how to draw it for a new training run.
import type { Shape } from "./shape.js";

export type Init =
  | { readonly kind: "zeros" }
  | { readonly kind: "ones" }
  | { readonly kind: "constant"; readonly value: number }
  | { readonly kind: "normal"; readonly std: number; readonly mean?: number }
  | { readonly kind: "uniform"; readonly low: number; readonly high: number };

export interface ParamSpec {
  /** Dotted path in the module tree. */
  readonly name: string;
  readonly shape: Shape;
  readonly init: Init;
}
