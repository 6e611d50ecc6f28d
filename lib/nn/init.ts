// Initial values of parameters, on the host; each parameter has a random stream of its own name.
import type { Init, ParamSpec } from "../ir/param.js";
import { normalStream, uniformStream } from "./random.js";

type Filler<Kind extends Init["kind"]> = (
  init: Extract<Init, { kind: Kind }>,
  name: string,
  seed: number,
  count: number,
) => Float32Array;

const fillers: { [Kind in Init["kind"]]: Filler<Kind> } = {
  zeros: (_init, _name, _seed, count) => new Float32Array(count),
  ones: (_init, _name, _seed, count) => new Float32Array(count).fill(1),
  constant: ({ value }, _name, _seed, count) => new Float32Array(count).fill(value),
  normal: ({ std, mean = 0 }, name, seed, count) =>
    Float32Array.from(normalStream(seed, name, count), (x) => mean + std * x),
  uniform: ({ low, high }, name, seed, count) =>
    Float32Array.from(uniformStream(seed, name, count), (x) => low + (high - low) * x),
};

/** Initial values of one parameter. */
export function initialValue({ name, shape, init }: ParamSpec, seed: number): Float32Array {
  const count = shape.reduce((product, extent) => product * extent, 1);
  const fill = fillers[init.kind] as (...args: [Init, string, number, number]) => Float32Array;
  return fill(init, name, seed, count);
}

/** Initial values of all parameters, by name. */
export const initialValues = (
  specs: readonly ParamSpec[],
  seed: number,
): Map<string, Float32Array> => new Map(specs.map((spec) => [spec.name, initialValue(spec, seed)]));

// Initialisers shared by several models.

export const zeros: Init = { kind: "zeros" };
export const ones: Init = { kind: "ones" };
export const normal = (std: number, mean = 0): Init => ({ kind: "normal", std, mean });

/**
 * PyTorch's default for linear and convolution layers: uniform within 1 / sqrt(fan in) (He et al.
 * 2015, arXiv:1502.01852, with a = sqrt 5).
 */
export const fanInUniform = (fanIn: number): Init => ({
  kind: "uniform",
  low: -1 / Math.sqrt(fanIn),
  high: 1 / Math.sqrt(fanIn),
});

/** Initialisers of a linear layer by its input and output width. */
export type LinearInits = (from: number, to: number) => { weightInit: Init; biasInit: Init };

/** Glorot and Bengio 2010, eq. 16: uniform within sqrt(6 / (fan in + fan out)). */
export const xavierUniform = (fanIn: number, fanOut: number): Init => {
  const high = Math.sqrt(6 / (fanIn + fanOut));
  return { kind: "uniform", low: -high, high };
};

/** Linear layers of vision transformers: Glorot uniform and no bias. */
export const xavierLinear: LinearInits = (from, to) => ({
  weightInit: xavierUniform(from, to),
  biasInit: zeros,
});

/** Linear layers with normal weights of one deviation and no bias. */
export const normalLinear =
  (std: number): LinearInits =>
  () => ({ weightInit: normal(std), biasInit: zeros });
