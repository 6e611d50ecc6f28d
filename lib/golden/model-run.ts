// What the golden kinds of networks share: inputs, weights, taps by the reference's names, the results,
// and gradients in the reference's layouts.
import type { ParamSpec } from "../ir/param.js";
import type { KeyMap } from "../nn/key-map.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import type { GoldenCase, Values } from "./case.js";
import type { Evaluate, Tensors } from "./evaluate.js";
import { gradientResults, gradientsInForeignLayout, namesAfter } from "./gradients.js";
import { channelsFirst } from "./layouts.js";
import { loadWeights } from "./weights.js";

export interface ModelRun {
  t: Trace;
  /** The inputs. */
  x: Tensors;
  /** Gradients of a loss that the case asks for, by names after `prefix`; default "grad.". */
  gradientsOf: (loss: Tensor, prefix?: string) => Tensors;
}

export interface ModelOptions {
  parameters: readonly ParamSpec[];
  /** Names of the case's weights. */
  keys: KeyMap;
  inputs: Readonly<Record<string, Values>>;
}

/** Inputs and constants of a case. */
export const givenValues = (golden: GoldenCase): Record<string, Values> =>
  Object.fromEntries([...golden.io].filter(([, { role }]) => role === "input" || role === "const"));

/** Taps that the case asks for and the trace has: maps channels first, tokens as they are. */
export function tapResults(
  golden: GoldenCase,
  t: Trace,
  ourName: (name: string) => string = (name) => name,
): Tensors {
  const names = namesAfter(golden, "tap.").filter((name) => t.recorded.has(ourName(name)));
  return Object.fromEntries(
    names.map((name) => {
      const y = t.recorded.get(ourName(name))!;
      return [`tap.${name}`, y.rank === 4 ? channelsFirst(y) : y];
    }),
  );
}

/** Evaluates a model with the weights of a case. */
export async function runModel(
  golden: GoldenCase,
  evaluate: Evaluate,
  { parameters: specs, keys, inputs }: ModelOptions,
  build: (run: ModelRun) => Tensors,
): Promise<Record<string, Values>> {
  const weights = loadWeights(golden, specs, keys);
  const prefixes = new Set<string>();
  const results = await evaluate(
    (t, x) => {
      const gradientsOf = (loss: Tensor, prefix = "grad."): Tensors => {
        prefixes.add(prefix);
        return gradientResults(loss, { golden, prefix, inputs: x, weights, specs });
      };
      return build({ t, x, gradientsOf });
    },
    { inputs, parameters: weights.parameters },
  );
  for (const prefix of prefixes) gradientsInForeignLayout(results, { prefix, weights, inputs });
  return results;
}
