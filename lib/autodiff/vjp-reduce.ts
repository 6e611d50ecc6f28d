// Gradients of reductions and scans. argMax, argMin and the indices of topK have none.
import type { Attrs } from "../ir/graph.js";
import { iota, scatterAdd, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { nonDifferentiable, onlyUpstream } from "./rule.js";
import type { Rule, RuleTable } from "./rule.js";

/** Shape with the reduced axes kept as 1. */
function keptShape(shape: readonly number[], axes: readonly number[]): number[] {
  return shape.map((size, axis) => (axes.includes(axis) ? 1 : size));
}

/** Rule of a reduction from dx = f(upstream g and output y with the reduced axes kept, input x). */
const reduction =
  (dx: (g: Tensor, x: Tensor, y: Tensor, axes: readonly number[]) => Tensor): Rule =>
  (context) => {
    const x = context.inputs[0]!;
    const axes = context.attrs.axes as readonly number[];
    const kept = keptShape(x.shape, axes);
    const g = onlyUpstream(context).reshape(kept);
    return [dx(g, x, context.outputs[0]!.reshape(kept), axes)];
  };

/** Elements that reach the extremum share its gradient equally. */
const extremum = reduction((g, x, y, axes) => {
  const reached = x.equal(y).cast(x.dtype);
  return reached.mul(g.div(reached.sum([...axes], true)));
});

/** d prod / dx_i = product of the others: right with no zero, and with one (the others vanish). */
const product = reduction((g, x, _, axes) => {
  const isZero = x.equal(x.trace.constant(0, [], x.dtype));
  const zeros = isZero.cast(x.dtype);
  const otherZeros = zeros.sum([...axes], true).sub(zeros);
  const nonZero = where(isZero, x.trace.constant(1, [], x.dtype), x);
  const others = nonZero
    .prod([...axes], true)
    .div(nonZero)
    .mul(g);
  const none = x.trace.constant(0, [], x.dtype);
  return where(otherZeros.equal(none), others, none);
});

const axesSize = (x: Tensor, axes: readonly number[]): number =>
  axes.reduce((product, axis) => product * x.shape[axis]!, 1);

const topK: Rule = ({ inputs, outputs, upstream }) => {
  const [x, indices, g] = [inputs[0]!, outputs[1]!, upstream[0]];
  if (!g) return [undefined];
  const size = x.shape.at(-1)!;
  const k = indices.shape.at(-1)!;
  const rows = x.size / size;
  const start = iota(x.trace, [rows, k], 0, "i32").mul(size);
  const target = indices
    .reshape([rows, k])
    .add(start)
    .reshape([rows * k]);
  return [scatterAdd(g.reshape([rows * k]), target, { size: rows * size }).reshape([...x.shape])];
};

const scan = ({ reverse }: Attrs, g: Tensor): Tensor => g.cumulativeSum({ reverse: !reverse });

export const reduceRules: RuleTable = {
  sum: reduction((g, x) => g.broadcastTo([...x.shape])),
  mean: reduction((g, x, _, axes) => g.div(axesSize(x, axes)).broadcastTo([...x.shape])),
  max: extremum,
  min: extremum,
  prod: product,
  sumSquares: reduction((g, x) => x.mul(g.mul(2))),
  argMax: nonDifferentiable,
  argMin: nonDifferentiable,
  cumulativeSum: (context) => [scan(context.attrs, onlyUpstream(context))],
  topK,
};
