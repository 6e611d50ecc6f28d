// Every case traces, differentiates twice, verifies and decomposes; nothing runs.
import { expect, it } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import { verify } from "../../lib/ir/verify.js";
import { lower } from "../../lib/trace/lower.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace } from "../../lib/trace/trace.js";
import type { Trace } from "../../lib/trace/trace.js";
import { caseName, opCases } from "../ops/cases.js";

const sumOfSquares = (xs: readonly Tensor[]): Tensor =>
  xs.map((x) => x.mul(x).sum()).reduce((a, b) => a.add(b));

function appendGradients(t: Trace, order: number, outputs: Tensor[], wrt: Tensor[]): Tensor[] {
  const grads = gradients(sumOfSquares(outputs), wrt);
  grads.forEach((g, i) => {
    expect(g.shape).toEqual(wrt[i]!.shape);
    t.output(`order ${order}, input ${i}`, g);
  });
  return grads;
}

it.each(opCases.map((c) => [caseName(c), c] as const))("%s", (_, c) => {
  const graph = trace((t) => {
    const inputs = c.inputs.map(({ shape, dtype }, i) =>
      t.input(`x${i}`, { shape, dtype: dtype === "real" ? "f32" : dtype }),
    );
    const outputs = t.append(c.op, inputs, c.attrs ?? {});
    outputs.forEach((y, i) => t.output(`y${i}`, y));
    const wrt = inputs.filter((_x, i) => c.inputs[i]!.dtype === "real" && !c.inputs[i]!.isFixed);
    const real = outputs.filter(({ dtype }) => dtype === "f32");
    if (wrt.length === 0 || real.length === 0) return;
    appendGradients(t, 2, appendGradients(t, 1, real, wrt), wrt);
  });
  verify(graph);
  verify(lower(graph, new Set()));
});
