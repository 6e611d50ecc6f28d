// Graphs of the gradients of a case: of its outputs projected on fixed random weights.
import { gradients } from "../../lib/autodiff/differentiate.js";
import type { Graph } from "../../lib/ir/graph.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace } from "../../lib/trace/trace.js";
import type { Trace } from "../../lib/trace/trace.js";
import { opCases } from "./cases.js";
import type { OpCase } from "./cases.js";
import { largeCases } from "./cases-large.js";
import { applyCase } from "./harness.js";
import type { Real } from "./harness.js";
import { gaussian, hashName, uniformStream } from "./operand.js";

const isDifferentiated = (c: OpCase, i: number): boolean =>
  c.inputs[i]!.dtype === "real" && !c.inputs[i]!.isFixed;

const isSmooth = (c: OpCase): boolean =>
  (c.isSmooth ?? true) && c.inputs.some((_, i) => isDifferentiated(c, i));

export const smoothCases = opCases.filter(isSmooth);
export const largeSmoothCases = largeCases.filter(isSmooth);

export function noise(name: string, count: number): number[] {
  const draw = uniformStream(hashName(name));
  return Array.from({ length: count }, (_, i) => Math.fround(gaussian(draw, i, count)));
}

/** Sum over the real outputs of output times a fixed random weight: its gradient tests every output at once. */
function projection(t: Trace, outputs: readonly Tensor[]): Tensor {
  const terms = outputs
    .filter(({ dtype }) => dtype === t.dtype)
    .map((y, i) => y.mul(t.constant(noise(`weight ${i}`, y.size), [...y.shape])).sum());
  return terms.reduce((sum, term) => sum.add(term));
}

/** Outputs: "loss", and "d<i>" for each differentiated input. */
export function gradientGraph(c: OpCase, dtype: Real): Graph {
  return trace(
    (t) => {
      const { inputs, outputs } = applyCase(t, c, dtype);
      const loss = projection(t, outputs);
      const active = inputs.map((_, i) => i).filter((i) => isDifferentiated(c, i));
      const grads = gradients(loss, active.map((i) => inputs[i]!)); // prettier-ignore
      t.output("loss", loss);
      grads.forEach((g, i) => t.output(`d${active[i]!}`, g));
    },
    { dtype },
  );
}

/** Outputs: the gradient's projection on fixed directions as "loss", and its gradient as "d<i>". */
export function secondGraph(c: OpCase): Graph {
  return trace(
    (t) => {
      const { inputs, outputs } = applyCase(t, c, "f64");
      const active = inputs.map((_, i) => i).filter((i) => isDifferentiated(c, i));
      const wrt = active.map((i) => inputs[i]!);
      const first = gradients(projection(t, outputs), wrt);
      const loss = first
        .map((g, i) => g.mul(t.constant(noise(`second ${i}`, g.size), [...g.shape])).sum())
        .reduce((sum, term) => sum.add(term));
      t.output("loss", loss);
      gradients(loss, wrt).forEach((g, i) => t.output(`d${active[i]!}`, g));
    },
    { dtype: "f64" },
  );
}
