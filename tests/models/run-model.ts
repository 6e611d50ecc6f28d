// Runs a piece of a model once on drawn weights, for tests that look at numbers.
import type { Tensors } from "../../lib/golden/evaluate.js";
import { evaluator } from "../../lib/golden/evaluate.js";
import type { Values } from "../../lib/golden/case.js";
import type { ParamSpec } from "../../lib/ir/param.js";
import { normalStream } from "../../lib/nn/random.js";
import type { Trace } from "../../lib/trace/trace.js";

/** Normal draws with deviation 0.3, by parameter name. */
export const drawnParameters = (specs: readonly ParamSpec[]): Map<string, Values> =>
  new Map(specs.map(({ name, shape }) => [name, drawn(name, shape, 0.3)]));

/** Normal draws of a named stream. */
export const drawn = (name: string, shape: readonly number[], deviation = 1): Values => ({
  shape,
  data: Float32Array.from(
    normalStream(
      7,
      name,
      shape.reduce((a, b) => a * b, 1),
    ),
    (x) => deviation * x,
  ),
});

export const integers = (...data: number[]): Values => ({
  shape: [data.length],
  data: Int32Array.from(data),
});

/** Outputs of `build` on the reference backend. */
export const run = (
  parameters: ReadonlyMap<string, Values>,
  inputs: Readonly<Record<string, Values>>,
  build: (t: Trace, inputs: Tensors) => Tensors,
): Promise<Record<string, Values>> => evaluator("ref")(build, { inputs, parameters });
