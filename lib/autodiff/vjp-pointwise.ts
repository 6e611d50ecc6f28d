// Gradients of the pointwise ops. Where a derivative jumps (abs, relu, clamp, maximum) one of the two sides is taken.
import { realTypes } from "../ir/dtype.js";
import type { Attrs } from "../ir/graph.js";
import { erf, less, sign, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { nonDifferentiable, onlyUpstream, unbroadcast } from "./rule.js";
import type { Rule, RuleTable } from "./rule.js";

/** A one-input rule from dx = f(upstream g, input x, output y). */
const unary =
  (dx: (g: Tensor, x: Tensor, y: Tensor, attrs: Attrs) => Tensor): Rule =>
  (context) => [dx(onlyUpstream(context), context.inputs[0]!, context.outputs[0]!, context.attrs)];

type BinaryPart = (g: Tensor, a: Tensor, b: Tensor, y: Tensor) => Tensor;

/** A two-input rule from its two partial gradients, each summed back to its input's shape. */
const binary =
  (da: BinaryPart, db: BinaryPart): Rule =>
  (context) => {
    const [a, b] = context.inputs as [Tensor, Tensor];
    const parts = [da, db].map((part, i) => {
      if (!context.wanted[i]) return undefined;
      return unbroadcast(
        part(onlyUpstream(context), a, b, context.outputs[0]!),
        context.inputs[i]!.shape,
      );
    });
    return parts;
  };

const zerosLike = (x: Tensor): Tensor => x.trace.constant(0, [], x.dtype);

/** g where the condition holds, else 0. */
const gate = (condition: Tensor, g: Tensor): Tensor => where(condition, g, zerosLike(g));

/** Phi(x) + x phi(x), with Phi and phi the normal distribution and density. */
function geluSlope(x: Tensor): Tensor {
  const distribution = erf(x.mul(Math.SQRT1_2)).add(1).mul(0.5);
  const density = x
    .square()
    .mul(-0.5)
    .exp()
    .mul(1 / Math.sqrt(2 * Math.PI));
  return distribution.add(x.mul(density));
}

/** s (1 - s) (2 + x (1 - 2 s)) with s = sigmoid(x). */
function siluCurvature(x: Tensor): Tensor {
  const s = x.sigmoid();
  const spread = s.mul(x.neg().sigmoid());
  return spread.mul(x.mul(s.mul(-2).add(1)).add(2));
}

/** s (1 - s) (2 v + x v' + x v^2 (1 - 2 s)) with s = sigmoid(u), u = 2 sqrt(2 / pi) (x + 0.044715 x^3), v = u'. */
function geluTanhCurvature(x: Tensor): Tensor {
  const [c, cubic] = [Math.sqrt(8 / Math.PI), 0.044715 * Math.sqrt(8 / Math.PI)];
  const squared = x.square();
  const u = x.mul(squared.mul(cubic).add(c));
  const s = u.sigmoid();
  const v = squared.mul(3 * cubic).add(c);
  const bend = v.mul(2).add(squared.mul(6 * cubic));
  const spread = s.mul(u.neg().sigmoid());
  return spread.mul(bend.add(x.mul(v.square()).mul(s.mul(-2).add(1))));
}

/** The derivative as one op. */
const slope = (op: "siluSlope" | "geluTanhSlope", x: Tensor): Tensor => x.trace.append(op, [x])[0]!;

/** Gradients of stored 16-bit values are f32: no arithmetic takes 16 bits. */
const cast: Rule = (context) => {
  const { dtype } = context.inputs[0]!;
  return [onlyUpstream(context).cast(realTypes.includes(dtype) ? dtype : "f32")];
};

const unaryRules: RuleTable = {
  neg: unary((g) => g.neg()),
  abs: unary((g, x) => g.mul(sign(x))),
  exp: unary((g, _, y) => g.mul(y)),
  log: unary((g, x) => g.div(x)),
  log1p: unary((g, x) => g.div(x.add(1))),
  sqrt: unary((g, _, y) => g.mul(0.5).div(y)),
  rsqrt: unary((g, _, y) => g.mul(y.mul(y.square()).mul(-0.5))),
  reciprocal: unary((g, _, y) => g.mul(y.square()).neg()),
  square: unary((g, x) => g.mul(x).mul(2)),
  sin: unary((g, x) => g.mul(x.cos())),
  cos: unary((g, x) => g.mul(x.sin()).neg()),
  tanh: unary((g, _, y) => g.mul(y.square().neg().add(1))),
  sigmoid: unary((g, _, y) => g.mul(y.mul(y.neg().add(1)))),
  silu: unary((g, x) => g.mul(slope("siluSlope", x))),
  quickGelu: unary((g, x) => g.mul(slope("siluSlope", x.mul(1.702)))), // x sigmoid(k x)
  gelu: unary((g, x) => g.mul(geluSlope(x))),
  geluTanh: unary((g, x) => g.mul(slope("geluTanhSlope", x))),
  siluSlope: unary((g, x) => g.mul(siluCurvature(x))),
  geluTanhSlope: unary((g, x) => g.mul(geluTanhCurvature(x))),
  relu: unary((g, x) => gate(less(zerosLike(x), x), g)),
  softplus: unary((g, x) => g.mul(x.sigmoid())),
  erf: unary((g, x) =>
    g.mul(
      x
        .square()
        .neg()
        .exp()
        .mul(2 / Math.sqrt(Math.PI)),
    ),
  ),
  leakyRelu: unary((g, x, _, { slope }) => where(x.lessEqual(0), g.mul(slope as number), g)),
  clamp: unary((g, x, y) => gate(x.equal(y), g)),
  cast,
};

const binaryRules: RuleTable = {
  add: binary(
    (g) => g,
    (g) => g,
  ),
  sub: binary(
    (g) => g,
    (g) => g.neg(),
  ),
  mul: binary(
    (g, _, b) => g.mul(b),
    (g, a) => g.mul(a),
  ),
  div: binary(
    (g, _, b) => g.div(b),
    (g, _, b, y) => g.mul(y).div(b).neg(),
  ),
  pow: binary(
    (g, a, b) => g.mul(b).mul(a.pow(b.sub(1))),
    // d/db a^b = a^b log a; taken as 0 at a <= 0, where only integer b make sense
    (g, a, _, y) => {
      const positive = less(zerosLike(a), a);
      return gate(
        positive,
        g.mul(y).mul(where(positive, a, a.trace.constant(1, [], a.dtype)).log()),
      );
    },
  ),
  maximum: binary(
    (g, a, b) => where(less(a, b), zerosLike(g), g),
    (g, a, b) => gate(less(a, b), g),
  ),
  minimum: binary(
    (g, a, b) => where(less(b, a), zerosLike(g), g),
    (g, a, b) => gate(less(b, a), g),
  ),
  mod: binary(
    (g) => g,
    (g, a, b) => g.mul(a.div(b).floor()).neg(),
  ),
};

const whereRule: Rule = (context) => {
  const [condition, a, b] = context.inputs as [Tensor, Tensor, Tensor];
  const g = onlyUpstream(context);
  return [
    undefined,
    context.wanted[1] ? unbroadcast(gate(condition, g), a.shape) : undefined,
    context.wanted[2] ? unbroadcast(where(condition, zerosLike(g), g), b.shape) : undefined,
  ];
};

const flat = [
  ...["floor", "ceil", "round", "sign", "isFinite", "logicalNot", "stopGradient"],
  ...["equal", "less", "lessEqual", "logicalAnd", "logicalOr"],
];

export const pointwiseRules: RuleTable = {
  ...unaryRules,
  ...binaryRules,
  where: whereRule,
  ...Object.fromEntries(flat.map((op) => [op, nonDifferentiable])),
};
