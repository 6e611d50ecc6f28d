// Gradients of ops that only move elements: each is the transpose of the move.
import { gather, gatherLast, pad, scatterAdd, scatterLast } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { nonDifferentiable, onlyUpstream, unbroadcast } from "./rule.js";
import type { Rule, RuleTable } from "./rule.js";

const list = (attribute: unknown): number[] => [...(attribute as readonly number[])];

/** Put `stride - 1` zeros after every element of each axis. */
function spread(x: Tensor, strides: readonly number[]): Tensor {
  const shape = x.shape.flatMap((size) => [size, 1]);
  const high = strides.flatMap((stride) => [0, stride - 1]);
  const low = high.map(() => 0);
  return pad(x.reshape(shape), low, high).reshape(x.shape.map((size, i) => size * strides[i]!));
}

const slice: Rule = (context) => {
  const x = context.inputs[0]!;
  const starts = list(context.attrs.starts);
  const strides = list(context.attrs.strides);
  let g = onlyUpstream(context);
  if (strides.some((stride) => stride > 1)) {
    const spans = g.shape.map((size, i) => (size - 1) * strides[i]! + 1);
    g = spread(g, strides).slice(
      spans.map(() => 0),
      spans,
    );
  }
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
