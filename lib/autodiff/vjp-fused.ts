// Gradients of fused ops that have a gradient op of their own. The rest, and the gradient ops, go through "decompose".
import type { Attrs } from "../ir/graph.js";
import {
  attentionGrad,
  groupNormGrad,
  layerNormGrad,
  logSoftmaxGrad,
  maskReplaceLossGrad,
  scatterLast,
  softmax,
  softmaxGrad,
} from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { nonDifferentiable, onlyUpstream } from "./rule.js";
import type { Rule, RuleTable } from "./rule.js";

const filled = (g: Tensor | undefined, like: Tensor): Tensor =>
  g ?? like.trace.constant(0, [...like.shape], like.dtype);

/** d nll / d logits = softmax - one-hot target. */
const crossEntropy: Rule = (context) => {
  const [logits, target] = context.inputs as [Tensor, Tensor];
  const g = onlyUpstream(context);
  const spreadG = g.reshape([...g.shape, 1]);
  const onTarget = scatterLast(g, target, logits.shape.at(-1)!);
  return [softmax(logits).mul(spreadG).sub(onTarget), undefined];
};

const groupNormRule: Rule = (context) => {
  const [x, gamma, beta] = context.inputs as [Tensor, Tensor, Tensor];
  const { groups, eps, activation } = context.attrs as Attrs & {
    groups: number;
    eps: number;
    activation: "none" | "silu";
  };
  return groupNormGrad(x, gamma, beta, onlyUpstream(context), { groups, eps, activation });
};

const layerNormRule: Rule = (context) => {
  const [x, scale] = context.inputs as [Tensor, Tensor | undefined];
  const { eps, affine } = context.attrs as Attrs & {
    eps: number;
    affine: "none" | "shared" | "modulate";
  };
  return layerNormGrad(x, scale, onlyUpstream(context), { eps, affine });
};

/** The gradient op knows neither a gradient of the log-sum-exp nor one of the mask. */
const attentionRule: Rule = (context) => {
  const [q, k, v, mask] = context.inputs as [Tensor, Tensor, Tensor, Tensor | undefined];
  const [out, lse] = context.outputs as [Tensor, Tensor];
  const [dout, dlse] = context.upstream;
  if (!dout || dlse || context.wanted[3]) return "decompose";
  const { scale, causal } = context.attrs as Attrs & { scale: number; causal: boolean };
  const options = mask ? { scale, causal, mask } : { scale, causal };
  const { dq, dk, dv } = attentionGrad({ q, k, v, out, lse, dout }, options);
  return mask ? [dq, dk, dv, undefined] : [dq, dk, dv];
};

const maskReplaceLossRule: Rule = (context) => {
  const [logits, x0, xt, coeffs] = context.inputs as [Tensor, Tensor, Tensor, Tensor];
  const [kl, nll] = context.outputs as [Tensor, Tensor];
  if (context.wanted[3]) return "decompose";
  const dkl = filled(context.upstream[0], kl);
  const dnll = filled(context.upstream[1], nll);
  return [maskReplaceLossGrad(logits, x0, xt, coeffs, dkl, dnll), undefined, undefined, undefined];
};

export const fusedRules: RuleTable = {
  softmax: (context) => [softmaxGrad(context.outputs[0]!, onlyUpstream(context))],
  logSoftmax: (context) => [logSoftmaxGrad(context.outputs[0]!, onlyUpstream(context))],
  crossEntropy,
  groupNorm: groupNormRule,
  layerNorm: layerNormRule,
  attention: attentionRule,
  maskReplaceLoss: maskReplaceLossRule,
  nearestCodes: nonDifferentiable,
  maskReplaceForward: nonDifferentiable,
  maskReplaceStep: nonDifferentiable,
  randomUniform: nonDifferentiable,
  randomNormal: nonDifferentiable,
};
