// Gradients of ops that only move elements: each is the transpose of the move.
import { sizeOf } from "../ir/shape.js";
import { gather, gatherLast, pad, scatterAdd, scatterLast } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { nonDifferentiable, onlyUpstream, unbroadcast } from "./rule.js";
import type { Rule, RuleTable } from "./rule.js";

const list = (attribute: unknown): number[] => [...(attribute as readonly number[])];

/** Put `stride - 1` zeros between the elements of one axis. */
function spread(x: Tensor, axis: number, stride: number): Tensor {
  if (stride === 1) return x;
  const size = x.shape[axis]!;
  const [before, after] = [x.shape.slice(0, axis), x.shape.slice(axis + 1)];
  const rows = pad(x.reshape([sizeOf(before), size, 1, sizeOf(after)]), [0, 0, 0, 0], [0, 0, stride - 1, 0]); // prettier-ignore
  const span = (size - 1) * stride + 1;
  const whole = rows.reshape([sizeOf(before), size * stride, sizeOf(after)]);
  return whole
    .slice([0, 0, 0], [sizeOf(before), span, sizeOf(after)])
    .reshape([...before, span, ...after]);
}

const slice: Rule = (context) => {
  const x = context.inputs[0]!;
  const starts = list(context.attrs.starts);
  const strides = list(context.attrs.strides);
  const g = strides.reduce<Tensor>(
    (part, stride, axis) => spread(part, axis, stride),
    onlyUpstream(context),
  );
  const high = x.shape.map((size, i) => size - starts[i]! - g.shape[i]!);
  return [pad(g, starts, high)];
};

const concatRule: Rule = (context) => {
  const axis = context.attrs.axis as number;
  const g = onlyUpstream(context);
  let start = 0;
  return context.inputs.map((input, i) => {
    const starts = input.shape.map((_, a) => (a === axis ? start : 0));
    start += input.shape[axis]!;
    return context.wanted[i] ? g.slice(starts, [...input.shape]) : undefined;
  });
};

const gatherRule: Rule = (context) => {
  const [table, indices] = context.inputs as [Tensor, Tensor];
  const axis = context.attrs.axis as number;
  return [
    scatterAdd(onlyUpstream(context), indices, { axis, size: table.shape[axis]! }),
    undefined,
  ];
};

export const movementRules: RuleTable = {
  reshape: (context) => [onlyUpstream(context).reshape([...context.inputs[0]!.shape])],
  transpose: (context) => {
    const permutation = list(context.attrs.permutation);
    return [onlyUpstream(context).transpose(permutation.map((_, i) => permutation.indexOf(i)))];
  },
  slice,
  concat: concatRule,
  pad: (context) => [
    onlyUpstream(context).slice(list(context.attrs.low), [...context.inputs[0]!.shape]),
  ],
  broadcastTo: (context) => [unbroadcast(onlyUpstream(context), context.inputs[0]!.shape)],
  gather: gatherRule,
  scatterAdd: (context) => [
    gather(onlyUpstream(context), context.inputs[1]!, context.attrs.axis as number),
    undefined,
  ],
  gatherLast: (context) => [
    scatterLast(onlyUpstream(context), context.inputs[1]!, context.inputs[0]!.shape.at(-1)!),
    undefined,
  ],
  scatterLast: (context) => [gatherLast(onlyUpstream(context), context.inputs[1]!), undefined],
  constant: nonDifferentiable,
  iota: nonDifferentiable,
};
