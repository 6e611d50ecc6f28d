// Gradients of matrix products and convolutions. All are bilinear, so each gradient is again one of these ops.
import type { Attrs } from "../ir/graph.js";
import { conv2d, conv2dGradInput, conv2dGradWeight, matmul } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { onlyUpstream } from "./rule.js";
import type { Rule, RuleTable } from "./rule.js";

interface Transposes {
  transposeA: boolean;
  transposeB: boolean;
}

/** Sum over the leading axes of x^T y: (..., R, P) and (..., R, Q) -> (P, Q), as one product. */
function contractRows(x: Tensor, y: Tensor): Tensor {
  const flat = (t: Tensor): Tensor => t.reshape([t.size / t.shape.at(-1)!, t.shape.at(-1)!]);
  return matmul(flat(x), flat(y), { transposeA: true, transposeB: false });
}

const swapLast = (x: Tensor): Tensor => {
  const axes = x.shape.map((_, axis) => axis);
  return x.transpose([...axes.slice(0, -2), x.rank - 1, x.rank - 2]);
};

/** dA of y = A B: g B^T; when A alone lacks leading axes, summed over those of g and B. */
function gradA(g: Tensor, a: Tensor, b: Tensor, { transposeA, transposeB }: Transposes): Tensor {
  if (a.rank === g.rank) {
    return transposeA
      ? matmul(b, g, { transposeA: transposeB, transposeB: true })
      : matmul(g, b, { transposeA: false, transposeB: !transposeB });
  }
  const columns = transposeB ? b : swapLast(b); // (..., N, K)
  const rows = swapLast(g); // (..., N, M)
  return transposeA ? contractRows(columns, rows) : contractRows(rows, columns);
}

/** dB of y = A B: A^T g; when B alone lacks leading axes, summed over those of g and A. */
function gradB(g: Tensor, a: Tensor, b: Tensor, { transposeA, transposeB }: Transposes): Tensor {
  if (b.rank === g.rank) {
    return transposeB
      ? matmul(g, a, { transposeA: true, transposeB: transposeA })
      : matmul(a, g, { transposeA: !transposeA, transposeB: false });
  }
  const rows = transposeA ? swapLast(a) : a; // (..., M, K)
  return transposeB ? contractRows(g, rows) : contractRows(rows, g);
}

const matmulRule: Rule = (context) => {
  const [a, b] = context.inputs as [Tensor, Tensor];
  const g = onlyUpstream(context);
  const transposes = context.attrs as unknown as Transposes;
  return [
    context.wanted[0] ? gradA(g, a, b, transposes) : undefined,
    context.wanted[1] ? gradB(g, a, b, transposes) : undefined,
  ];
};

/** The attributes that a convolution shares with its two gradients. */
const convAttrs = (attrs: Attrs) => ({
  stride: attrs.stride as [number, number],
  padding: attrs.padding as [number, number, number, number],
  groups: attrs.groups as number,
});

/** Transpose of nearest upsampling: (B, fH, fW, C) -> (B, H, W, C), summing each f x f block. */
function sumPool(x: Tensor, factor: number): Tensor {
  if (factor === 1) return x;
  const [B, H, W, C] = x.shape as [number, number, number, number];
  const blocks = x.reshape([B, H / factor, factor, W / factor, factor, C]);
  return blocks.sum([4], false).sum([2], false);
}

/** dx of a convolution with an upsampled input: at the upsampled size, then summed over each block. */
function inputGradient(dy: Tensor, w: Tensor, x: Tensor, attrs: Attrs): Tensor {
  const upsample = attrs.upsample as number;
  const inputSize: [number, number] = [x.shape[1]! * upsample, x.shape[2]! * upsample];
  return sumPool(conv2dGradInput(dy, w, { inputSize, ...convAttrs(attrs) }), upsample);
}

const kernelOf = (w: Tensor): [number, number] => [w.shape[0]!, w.shape[1]!];

const conv2dRule: Rule = (context) => {
  const [x, w] = context.inputs as [Tensor, Tensor];
  const g = onlyUpstream(context);
  const { attrs, wanted } = context;
  const options = { kernel: kernelOf(w), ...convAttrs(attrs), upsample: attrs.upsample as number };
  return [
    wanted[0] ? inputGradient(g, w, x, attrs) : undefined,
    wanted[1] ? conv2dGradWeight(x, g, options) : undefined,
  ];
};

/** dx(dy, w): its gradient in dy is the convolution itself. */
const gradInputRule: Rule = (context) => {
  const [dy, w] = context.inputs as [Tensor, Tensor];
  const g = onlyUpstream(context); // shaped as x
  const options = { ...convAttrs(context.attrs), upsample: 1 };
  return [
    context.wanted[0] ? conv2d(g, w, options) : undefined,
    context.wanted[1] ? conv2dGradWeight(g, dy, { kernel: kernelOf(w), ...options }) : undefined,
  ];
};

/** dw(x, dy): its gradient in dy is the convolution with the upstream in place of the weight. */
const gradWeightRule: Rule = (context) => {
  const [x, dy] = context.inputs as [Tensor, Tensor];
  const g = onlyUpstream(context); // shaped as w
  const options = { ...convAttrs(context.attrs), upsample: context.attrs.upsample as number };
  return [
    context.wanted[0] ? inputGradient(dy, g, x, context.attrs) : undefined,
    context.wanted[1] ? conv2d(x, g, options) : undefined,
  ];
};

export const linearRules: RuleTable = {
  matmul: matmulRule,
  conv2d: conv2dRule,
  conv2dGradInput: gradInputRule,
  conv2dGradWeight: gradWeightRule,
};
