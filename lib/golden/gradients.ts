// Gradients that a case asks for: entries `<prefix><name>` of its io, where name is an input or a
// foreign parameter.
import { gradients } from "../autodiff/differentiate.js";
import type { ParamSpec } from "../ir/param.js";
import { split } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { GoldenCase, Values } from "./case.js";
import type { Tensors } from "./evaluate.js";
import { inForeignLayout, originOf } from "./weights.js";
import type { LoadedWeights } from "./weights.js";

/** Names after `prefix` of the io entries that begin with it. */
export const namesAfter = (golden: GoldenCase, prefix: string): string[] =>
  [...golden.io.keys()]
    .filter((name) => name.startsWith(prefix))
    .map((name) => name.slice(prefix.length));

export interface GradientRequest {
  golden: GoldenCase;
  /** For example "grad.linear.". */
  prefix: string;
  inputs: Tensors;
  weights: LoadedWeights;
  specs: readonly ParamSpec[];
  /** Extra key in front of a parameter's name in this case, e.g. "discriminator.". */
  weightPrefix?: string;
}

/** Gradient tensors of a scalar loss, named as in the case. */
export function gradientResults(loss: Tensor, request: GradientRequest): Tensors {
  const { golden, prefix, inputs, weights, specs, weightPrefix = "" } = request;
  const names = namesAfter(golden, prefix);
  const t = loss.trace;
  const targets = names.map((name) => {
    if (inputs[name]) return inputs[name];
    const ours = originOf(weights, weightPrefix + name).name;
    return t.parameter(specs.find((spec) => spec.name === ours)!);
  });
  const grads = gradients(loss, targets);
  const partOf = (name: string, whole: Tensor): Tensor => {
    const part = inputs[name] ? undefined : originOf(weights, weightPrefix + name).part;
    return part ? split(whole, part.of, -1)[part.index]! : whole;
  };
  return Object.fromEntries(names.map((name, i) => [prefix + name, partOf(name, grads[i]!)]));
}

/** Puts the gradients of parameters back into the foreign layout. */
export function gradientsInForeignLayout(
  results: Record<string, Values>,
  {
    prefix,
    inputs,
    weights,
    weightPrefix = "",
  }: Pick<GradientRequest, "prefix" | "weights" | "weightPrefix"> & {
    inputs: Record<string, unknown>;
  },
): void {
  for (const [name, values] of Object.entries(results)) {
    if (!name.startsWith(prefix)) continue;
    const target = name.slice(prefix.length).split("@")[0]!;
    if (target in inputs) continue;
    results[name] = inForeignLayout(weights, weightPrefix + target, values);
  }
}
