// Golden kind torch_ops: primitive operations with gradients, to find a fault before looking for it
// inside a network.
import { gradients } from "../autodiff/differentiate.js";
import { DiffusionError, nearestName } from "../errors.js";
import {
  checkFields,
  flag,
  limits,
  listOf,
  oneOf,
  optional,
  real,
  text,
  whole,
} from "../models/check-config.js";
import type { Rules } from "../models/check-config.js";
import { unitLength } from "../models/vector-quantizer.js";
import { logAddExp } from "../processes/discrete.js";
import {
  attention,
  avgPool2d,
  batchNorm,
  conv2d,
  crossEntropy,
  gelu,
  geluTanh,
  groupNorm,
  layerNorm,
  leakyRelu,
  logSoftmax,
  logSumExp,
  matmul,
  maxPool2d,
  quickGelu,
  relu,
  resize,
  sigmoid,
  silu,
  softmax,
  softplus,
  standardise,
  tanh,
} from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { maybe, only } from "./adm-models.js";
import type { GoldenCase, Values } from "./case.js";
import { ioValues } from "./case.js";
import type { Evaluate, GoldenRunner, Tensors } from "./evaluate.js";
import { channelsFirst, channelsLast } from "./layouts.js";

/** Attributes of an operation, with the types that the operation knows them to have. */
interface OpAttrs {
  kernel: number;
  stride: number;
  padding: number;
  groups: number;
  pad_ltrb: [number, number, number, number];
  eps: number;
  dim: number;
  scale: number;
  size: [number, number];
  reduction: "mean" | "sum";
  min: number;
  max: number;
  keepdim: boolean;
  antialias: boolean;
}

type Compute = (x: Tensors, attrs: OpAttrs) => Tensor;

/** Applies an operation on maps to the reference's layout. */
const onMap = (x: Tensor, fn: (map: Tensor) => Tensor): Tensor =>
  channelsFirst(fn(channelsLast(x)));

const unary =
  (fn: (x: Tensor) => Tensor): Compute =>
  ({ x }) =>
    fn(x!);

/** Brings axis `dim` to the end, applies, and brings it back. */
function alongAxis(x: Tensor, at: number, fn: (x: Tensor) => Tensor): Tensor {
  const dim = at < 0 ? at + x.rank : at;
  const axes = x.shape.map((_, axis) => axis).filter((axis) => axis !== dim);
  const order = [...axes, dim];
  const back = order.map((_, axis) => order.indexOf(axis));
  return fn(x.transpose(order)).transpose(back);
}

const convolution = (
  x: Tensors,
  padding: [number, number, number, number],
  attrs: OpAttrs,
): Tensor =>
  onMap(x["x"]!, (map) => {
    const weight = x["weight"]!.transpose([2, 3, 1, 0]);
    const { stride = 1, groups = 1 } = attrs;
    const y = conv2d(map, weight, { stride, padding, groups });
    return x["bias"] ? y.add(x["bias"]) : y;
  });

function linear(x: Tensor, weight: Tensor, bias: Tensor | undefined): Tensor {
  const y = matmul(x, weight, { transposeB: true });
  return bias ? y.add(bias) : y;
}

/** (B, heads, T, d) as in the cases. */
const attend = ({ q, k, v }: Tensors, causal: boolean): Tensor => {
  const heads = (y: Tensor): Tensor => y.transpose([0, 2, 1, 3]);
  return heads(attention(heads(q!), heads(k!), heads(v!), { causal }).out);
};

const reduced = (x: Tensor, { reduction }: OpAttrs): Tensor =>
  reduction === "sum" ? x.sum() : x.mean();

/** Mean over the source rows that an output row covers, at least in part. */
function areaMatrix(source: number, target: number): number[] {
  return Array.from({ length: target }, (_, i) => {
    const first = Math.floor((i * source) / target);
    const end = Math.ceil(((i + 1) * source) / target);
    return Array.from({ length: source }, (__, j) =>
      j >= first && j < end ? 1 / (end - first) : 0,
    );
  }).flat();
}

/** Adaptive average pooling (B, C, H, W) by one constant matrix an axis. */
function areaResize(x: Tensor, [height, width]: readonly [number, number]): Tensor {
  const [, , H, W] = x.shape as [number, number, number, number];
  const t = x.trace;
  const across = t.constant(areaMatrix(W, width), [width, W]);
  const down = t.constant(areaMatrix(H, height), [height, H]);
  return matmul(down, matmul(x, across, { transposeB: true }));
}

const resized =
  (method: "nearest" | "bilinear" | "bicubic"): Compute =>
  ({ x }, { size, antialias = false }) =>
    onMap(x!, (map) => resize(map, { size, method, antialias }));

const operations: Readonly<Record<string, Compute>> = {
  conv2d: (x, attrs) => {
    const { padding: p = 0 } = attrs;
    return convolution(x, [p, p, p, p], attrs);
  },
  conv2d_asym_pad: (x, attrs) => {
    const [left, top, right, bottom] = attrs.pad_ltrb;
    return convolution(x, [top, bottom, left, right], attrs);
  },
  conv1d: ({ x, weight, bias }) =>
    channelsFirst(linear(channelsLast(x!), weight!.reshape(weight!.shape.slice(0, 2)), bias)),
  linear: ({ x, weight, bias }) => linear(x!, weight!, bias),
  group_norm: ({ x, weight, bias }, { groups, eps }) =>
    onMap(x!, (map) => groupNorm(map, weight!, bias!, { groups, eps })),
  layer_norm: ({ x, weight, bias }, { eps }) =>
    layerNorm(x!, weight && bias ? { scale: weight, shift: bias, eps } : { eps }),
  batch_norm2d_train: ({ x, weight, bias }, { eps }) =>
    onMap(x!, (map) => batchNorm(map, weight!, bias!, { eps })),
  instance_norm1d: ({ x }, { eps }) => standardise(x!, 2, { eps }),
  silu: unary(silu),
  gelu_erf: unary(gelu),
  gelu_tanh: unary(geluTanh),
  quick_gelu: unary(quickGelu),
  "leaky_relu_0.2": ({ x }) => leakyRelu(x!, { slope: 0.2 }),
  softplus: unary(softplus),
  sigmoid: unary(sigmoid),
  tanh: unary(tanh),
  relu: unary(relu),
  softmax: ({ x }, { dim }) => alongAxis(x!, dim, softmax),
  log_softmax: ({ x }, { dim }) => alongAxis(x!, dim, logSoftmax),
  logsumexp: ({ x }, { dim, keepdim = false }) => logSumExp(x!, dim, keepdim),
  attention: (x) => attend(x, false),
  attention_causal: (x) => attend(x, true),
  interpolate_nearest: ({ x }, { scale }) =>
    onMap(x!, (map) =>
      resize(map, { size: [map.shape[1]! * scale, map.shape[2]! * scale], method: "nearest" }),
    ),
  interpolate_nearest_size: resized("nearest"),
  interpolate_bilinear: resized("bilinear"),
  interpolate_bicubic: resized("bicubic"),
  interpolate_area: ({ x }, { size }) => areaResize(x!, size),
  avg_pool2d: ({ x }, { kernel, stride }) => onMap(x!, (map) => avgPool2d(map, { kernel, stride })),
  max_pool2d: ({ x }, { kernel, stride }) => onMap(x!, (map) => maxPool2d(map, { kernel, stride })),
  mse_loss: ({ x, y }, attrs) => reduced(x!.sub(y!).square(), attrs),
  l1_loss: ({ x, y }, attrs) => reduced(x!.sub(y!).abs(), attrs),
  cross_entropy: ({ x, target }, attrs) => reduced(crossEntropy(channelsLast(x!), target!), attrs),
  embedding: ({ weight, index }) => weight!.gather(index!, 0),
  l2_normalize: ({ x }, { dim }) => alongAxis(x!, dim, unitLength),
  clamp: ({ x }, { min, max }) => x!.clamp(min, max),
  cumsum: ({ x }, { dim }) => alongAxis(x!, dim, (y) => y.cumulativeSum()),
  logaddexp: ({ x, y }) => logAddExp(x!, y!),
};

const count = whole(1, limits.width);
const pair = listOf(count, 2, 2);
const eps = { eps: real(0, 1) };
const dim = { dim: whole(-8, 7) };
const convolutionRules = { kernel: count, stride: optional(count), groups: optional(count) };
const attentionRules = { scale: maybe(only("1/sqrt(d)")), layout: maybe(only("B,heads,T,d")) };
const sized = { size: pair, align_corners: maybe(only(false)), antialias: optional(flag) };
const pooled = { kernel: count, stride: count };
const reduction = { reduction: oneOf("mean", "sum") };

/** Attributes that an operation has; those without any are not listed. */
const attributes: Readonly<Record<string, Rules>> = {
  conv2d: { ...convolutionRules, padding: optional(whole(0, limits.side)) },
  conv2d_asym_pad: { ...convolutionRules, pad_ltrb: listOf(whole(0, limits.side), 4, 4) },
  conv1d: { kernel: only(1) },
  group_norm: { groups: count, ...eps },
  layer_norm: { ...eps, affine: optional(flag) },
  batch_norm2d_train: eps,
  instance_norm1d: { ...eps, layout: maybe(only("B,C,L")) },
  softmax: dim,
  log_softmax: dim,
  logsumexp: { ...dim, keepdim: optional(flag) },
  attention: attentionRules,
  attention_causal: attentionRules,
  interpolate_nearest: { scale: count },
  interpolate_nearest_size: { size: pair },
  interpolate_bilinear: sized,
  interpolate_bicubic: sized,
  interpolate_area: { size: pair },
  avg_pool2d: pooled,
  max_pool2d: pooled,
  mse_loss: reduction,
  l1_loss: reduction,
  cross_entropy: { ...reduction, layout: maybe(only("B,C,L")) },
  l2_normalize: { ...dim, eps: maybe(only(1e-12)) },
  clamp: { min: real(-1e9, 1e9), max: real(-1e9, 1e9) },
  cumsum: dim,
};

function checkOp([op, attrs]: OpEntry, index: number): void {
  const where = `torch_ops: entry ${index}`;
  if (!Object.hasOwn(operations, op)) {
    const near = nearestName(op, Object.keys(operations));
    throw new DiffusionError(
      "option",
      `${where}: expected a known operation, got "${op}"${near ? `; did you mean "${near}"?` : ""}`,
    );
  }
  checkFields(`${where}, ${op}`, attrs, { ...attributes[op], note: maybe(text(1000)) });
}

type OpEntry = [op: string, attrs: OpAttrs, names: string[]];

async function runOp(
  golden: GoldenCase,
  index: number,
  [op, attrs, names]: OpEntry,
  evaluate: Evaluate,
) {
  const inputs = Object.fromEntries(
    [...names, "upstream"].map((name) => [name, ioValues(golden, `${index}.${name}`)]),
  );
  const compute = operations[op]!;
  const results = await evaluate(
    (_, x) => {
      const y = compute(x, attrs);
      const wanted = names.filter((name) => golden.io.has(`${index}.grad.${name}`));
      const grads = gradients(
        y.mul(x["upstream"]!).sum(),
        wanted.map((name) => x[name]!),
      );
      return {
        output: y,
        ...Object.fromEntries(wanted.map((name, i) => [`grad.${name}`, grads[i]!])),
      };
    },
    { inputs },
  );
  return Object.fromEntries(
    Object.entries(results).map(([name, values]) => [`${index}.${name}`, values]),
  );
}

async function torchOps(golden: GoldenCase, evaluate: Evaluate): Promise<Record<string, Values>> {
  checkFields(golden.kind, golden.config, { ops: listOf(() => undefined, 0, 10_000) });
  const { ops } = golden.config as { ops: OpEntry[] };
  ops.forEach(checkOp);
  const results: Record<string, Values> = {};
  // One operation that fails leaves its tensors out and so fails alone.
  for (const [index, entry] of ops.entries()) {
    Object.assign(results, await runOp(golden, index, entry, evaluate).catch(() => ({})));
  }
  return results;
}

export const torchOpsRunners: Readonly<Record<string, GoldenRunner>> = { torch_ops: torchOps };
