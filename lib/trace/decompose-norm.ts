// Softmax and normalisation, with their gradients, as smaller ops.
import type { Decomposition, DecompositionTable } from "./decomposition.js";
import { betweenBatchAndLast, siluSlope } from "./decomposition.js";
import { logSumExp } from "./composites.js";
import { gatherLast, logSoftmax } from "./ops.js";
import type { Tensor } from "./tensor.js";

const softmax: Decomposition = ([x]) => {
  const weights = x!.sub(x!.max(-1, true)).exp();
  return [weights.div(weights.sum(-1, true))];
};

/** y (dy - sum(y dy)). */
const softmaxGrad: Decomposition = ([y, dy]) => [y!.mul(dy!.sub(y!.mul(dy!).sum(-1, true)))];

/** dy - exp(y) sum(dy). */
const logSoftmaxGrad: Decomposition = ([y, dy]) => [dy!.sub(y!.exp().mul(dy!.sum(-1, true)))];

const crossEntropy: Decomposition = ([logits, target]) => [
  gatherLast(logSoftmax(logits!), target!).neg(),
];

/** Statistics of (B, S, G, C / G) over axes 1 and 3. */
const groupAxes = [1, 3];

interface Normalised {
  /** (x - mean) rstd. */
  unit: Tensor;
  rstd: Tensor;
}

function normalise(x: Tensor, axes: readonly number[], eps: number): Normalised {
  const centered = x.sub(x.mean(axes, true));
  const rstd = centered.square().mean(axes, true).add(eps).rsqrt();
  return { unit: centered.mul(rstd), rstd };
}

/** dx of unit = (x - mean) rstd: rstd (g - mean(g) - unit mean(g unit)). */
function normaliseGrad({ unit, rstd }: Normalised, g: Tensor, axes: readonly number[]): Tensor {
  const along = unit.mul(g.mul(unit).mean(axes, true));
  return g.sub(g.mean(axes, true)).sub(along).mul(rstd);
}

/** (B, ..., C) -> (B, S, G, C / G). */
function inGroups(x: Tensor, groups: number): Tensor {
  const B = x.shape[0]!;
  const C = x.shape.at(-1)!;
  return x.reshape([B, x.size / (B * C), groups, C / groups]);
}

/** Wu and He 2018, arXiv:1803.08494, eq. 1-3. */
const groupNorm: Decomposition = ([x, gamma, beta], attrs) => {
  const { unit } = normalise(inGroups(x!, attrs.groups as number), groupAxes, attrs.eps as number);
  const y = unit.reshape(x!.shape).mul(gamma!).add(beta!);
  return [attrs.activation === "silu" ? y.silu() : y];
};

const groupNormGrad: Decomposition = ([x, gamma, beta, dy], attrs) => {
  const groups = attrs.groups as number;
  const normalised = normalise(inGroups(x!, groups), groupAxes, attrs.eps as number);
  const unit = normalised.unit.reshape(x!.shape);
  const before = unit.mul(gamma!).add(beta!);
  const g = attrs.activation === "silu" ? dy!.mul(siluSlope(before)) : dy!;
  const others = x!.shape.map((_, axis) => axis).slice(0, -1);
  const dx = normaliseGrad(normalised, inGroups(g.mul(gamma!), groups), groupAxes).reshape(
    x!.shape,
  );
  return [dx, g.mul(unit).sum(others), g.sum(others)];
};

/** The factor and offset of each affine kind. */
function affine(
  unit: Tensor,
  kind: unknown,
  scale: Tensor | undefined,
  shift: Tensor | undefined,
): Tensor {
  if (!scale || !shift) return unit;
  if (kind === "shared") return unit.mul(scale).add(shift);
  return unit
    .mul(betweenBatchAndLast(scale, unit.rank).add(1))
    .add(betweenBatchAndLast(shift, unit.rank));
}

/** Ba et al. 2016, arXiv:1607.06450, eq. 4; modulation by (1 + scale): Peebles and Xie 2023, arXiv:2212.09748. */
const layerNorm: Decomposition = ([x, scale, shift], attrs) => {
  const { unit } = normalise(x!, [x!.rank - 1], attrs.eps as number);
  return [affine(unit, attrs.affine, scale, shift)];
};

const layerNormGrad: Decomposition = (inputs, attrs) => {
  const [x, dy] = [inputs[0]!, inputs.at(-1)!];
  const last = x.rank - 1;
  const normalised = normalise(x, [last], attrs.eps as number);
  if (attrs.affine === "none") return [normaliseGrad(normalised, dy, [last])];
  const scale = inputs[1]!;
  const isShared = attrs.affine === "shared";
  const factor = isShared ? scale : betweenBatchAndLast(scale, x.rank).add(1);
  // a shared vector sums over all rows, a modulating one over the rows of its sample
  const rows = x.shape.map((_, axis) => axis).slice(isShared ? 0 : 1, -1);
  const dx = normaliseGrad(normalised, dy.mul(factor), [last]);
  return [dx, dy.mul(normalised.unit).sum(rows), dy.sum(rows)];
};

/** Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4. */
const rmsNorm: Decomposition = ([x, gamma], attrs) => [
  x!
    .mul(
      x!
        .square()
        .mean(-1, true)
        .add(attrs.eps as number)
        .rsqrt(),
    )
    .mul(gamma!),
];

export const normDecompositions: DecompositionTable = {
  softmax,
  logSoftmax: ([x]) => [x!.sub(logSumExp(x!, -1, true))],
  softmaxGrad,
  logSoftmaxGrad,
  crossEntropy,
  groupNorm,
  groupNormGrad,
  layerNorm,
  layerNormGrad,
  rmsNorm,
};
