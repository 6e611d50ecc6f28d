// The transformer at the bottom of a U-ViT: tokens of the deepest map, modulated and gated by the time, that see the
// condition by addition or attention. Topology and parameter names of apple/ml-4m fourm/vq/models/uvit.py
// (TransformerConcatCond, TransformerXattnCond). Source: Hoogeboom et al. 2023, arXiv:2301.11093, section 3.
import type { Dropout, DropoutSites } from "../nn/dropout.js";
import { fusedAttention } from "../nn/fused-attention.js";
import { xavierLinear, xavierUniform, zeros } from "../nn/init.js";
import { linear } from "../nn/linear.js";
import type { Layer } from "../nn/linear.js";
import { mlp } from "../nn/mlp.js";
import type { ParamScope } from "../nn/module.js";
import { layerNorm } from "../nn/norm.js";
import {
  attention as attend,
  concat,
  gelu,
  resize,
  split,
  unstack,
  where,
} from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { resizedPositions } from "./vit-encoder.js";
import type { UvitConfig } from "./uvit-config.js";

/** What the transformer sees beside the map. */
export interface BottomCall {
  /** Of the time: (B, E). */
  embedding: Tensor;
  /** (B, h, w, conditionWidth). */
  condition: Tensor;
  /** (B, h, w): 1 where the condition is hidden. */
  hidden?: Tensor;
  dropoutKey?: Tensor;
}

/** What a block sees beside its tokens. */
interface BlockCall {
  embedding: Tensor;
  /** Condition tokens (B, M, conditionWidth) and the mask over them, for attention. */
  context?: Tensor;
  mask?: Tensor | undefined;
  skip?: Tensor | undefined;
  dropoutKey?: Tensor | undefined;
}

type Block = (x: Tensor, call: BlockCall) => Tensor;

const normEps = 1e-5;
/** Added to scores of hidden keys. */
const kHidden = -1e30;

const project = (scope: ParamScope, from: number, to: number): Layer =>
  linear(scope, { in: from, out: to, ...xavierLinear(from, to) });

/** Attention of tokens to others, with one projection for keys and values; names of the reference. */
function crossAttention(scope: ParamScope, width: number, heads: number, contextWidth: number) {
  const inits = (from: number) => ({ weightInit: xavierUniform(from, width), biasInit: zeros });
  const q = linear(scope.child("q"), { in: width, out: width, ...inits(width) });
  const kv = linear(scope.child("kv"), {
    in: contextWidth,
    out: 2 * width,
    ...inits(contextWidth),
  });
  const out = project(scope.child("proj"), width, width);
  return (x: Tensor, context: Tensor, mask?: Tensor): Tensor => {
    const [B, N, D] = x.shape as [number, number, number];
    const M = context.shape[1]!;
    const [k, v] = unstack(kv(context).reshape([B, M, 2, heads, D / heads]), 2) as [Tensor, Tensor];
    const query = q(x).reshape([B, N, heads, D / heads]);
    const y = out(attend(query, k, v, mask ? { mask } : {}).out.reshape([B, N, D]));
    x.trace.record(scope.path, y);
    return y;
  };
}

/** A residual branch: a norm that time modulates, what follows it, and a gate that starts at zero. */
interface Branch {
  norm: Layer;
  run: (x: Tensor, call: BlockCall) => Tensor;
  dropout: Dropout;
}

const selfAttention = (scope: ParamScope, { width, heads }: UvitConfig): Branch["run"] => {
  const inits = { weightInit: xavierUniform(width, width), biasInit: zeros };
  const mix = fusedAttention(scope, { width, heads, ...inits });
  return (x) => mix(x);
};

function branchesOf(scope: ParamScope, config: UvitConfig, sites: DropoutSites): Branch[] {
  const { width, heads, mlpRatio = 4, conditionWidth, conditionKind = "add" } = config;
  const hidden = Math.floor(width * mlpRatio);
  const norm = (name: string, of = width): Layer =>
    layerNorm(scope.child(name), { width: of, eps: normEps });
  const attends = conditionKind === "attention";
  const first: Branch = {
    norm: norm("norm1"),
    run: selfAttention(scope.child(attends ? "self_attn" : "attn"), config),
    dropout: sites.next(),
  };
  const middle: Branch[] = [];
  if (attends) {
    const cross = crossAttention(scope.child("cross_attn"), width, heads, conditionWidth);
    const query = norm("query_norm");
    const context = norm("context_norm", conditionWidth);
    middle.push({
      norm: query,
      run: (x, call) => cross(x, context(call.context!), call.mask),
      dropout: sites.next(),
    });
  }
  const network = mlp(scope.child("mlp"), gelu, {
    in: width,
    hidden,
    ...xavierLinear(width, hidden),
  });
  const lastNorm = norm("norm2");
  return [first, ...middle, { norm: lastNorm, run: (x) => network(x), dropout: sites.next() }];
}

/** x += gate dropout(branch(norm(x) (1 + scale) + shift)) for each branch; (shift, scale) pairs, then gates, in order. */
function block(
  scope: ParamScope,
  config: UvitConfig,
  sites: DropoutSites,
  hasSkip: boolean,
): Block {
  const { width, widths } = config;
  const branches = branchesOf(scope, config, sites);
  const timeWidth = 4 * widths[0]!;
  const modulate = project(scope.child("adaLN_modulation"), timeWidth, 2 * branches.length * width);
  const gate = linear(scope.child("adaLN_gate"), {
    in: timeWidth,
    out: branches.length * width,
    weightInit: zeros,
    biasInit: zeros,
  });
  const join = hasSkip ? project(scope.child("skip_linear"), 2 * width, width) : undefined;
  return (x, call) => {
    const B = x.shape[0]!;
    const active = call.embedding.silu();
    const vectors = (layer: Layer, count: number): Tensor[] =>
      split(layer(active).reshape([B, 1, count * width]), count, 2);
    const shifts = vectors(modulate, 2 * branches.length);
    const gates = vectors(gate, branches.length);
    let h = join && call.skip ? join(concat([x, call.skip], 2)) : x;
    branches.forEach(({ norm, run, dropout }, i) => {
      const [shift, scale] = [shifts[2 * i]!, shifts[2 * i + 1]!];
      const branch = run(norm(h).mul(scale.add(1)).add(shift), call);
      h = h.add(gates[i]!.mul(dropout(branch, call.dropoutKey)));
    });
    x.trace.record(scope.path, h);
    return h;
  };
}

/** (B, h, w, C) -> (B, h w, C). */
const tokensOf = (map: Tensor): Tensor => {
  const [B, H, W, C] = map.shape as [number, number, number, number];
  return map.reshape([B, H * W, C]);
};

/** A mask (B, h, w) on another grid, as (B, h w, 1). */
const maskOn = (hidden: Tensor, size: readonly [number, number]): Tensor =>
  tokensOf(resize(hidden.reshape([...hidden.shape, 1]), { size, method: "nearest" }));

/** What is added to the tokens: the projected condition, or a learned vector where it is hidden. */
function additive(scope: ParamScope, { width, conditionWidth }: UvitConfig) {
  const layer = project(scope.child("mid_cond_proj"), conditionWidth, width);
  const token = scope.param("mask_token", [width], zeros);
  return ({ condition, hidden }: BottomCall, size: readonly [number, number]): Tensor => {
    const t = condition.trace;
    const rows = layer(tokensOf(resize(condition, { size, method: "nearest" })));
    if (!hidden) return rows;
    const replaced = t.parameter(token).reshape([1, 1, width]).broadcastTo(rows.shape);
    return where(maskOn(hidden, size).greater(0.5).broadcastTo(rows.shape), replaced, rows);
  };
}

/** Map (B, H, W, widths.at(-1)) -> the same shape. */
export function uvitBottom(scope: ParamScope, config: UvitConfig, sites: DropoutSites) {
  const { widths, width, layers, longSkip = false, positionSide = 32 } = config;
  const adds = (config.conditionKind ?? "add") === "add";
  const channels = widths.at(-1)!;
  const half = Math.floor(layers / 2);
  const blocks = Array.from({ length: layers }, (_, i) =>
    block(scope.child("mid_block").child(i), config, sites, longSkip && i > half),
  );
  const condition = adds ? additive(scope, config) : undefined;
  const enter = project(scope.child("mid_proj_in"), channels, width);
  const leave = project(scope.child("mid_proj_out"), width, channels);
  return (map: Tensor, call: BottomCall): Tensor => {
    const [, H, W] = map.shape as [number, number, number];
    const grid = [H, W] as const;
    const positions = resizedPositions(
      map.trace,
      { side: positionSide, grid, width },
      adds ? "bicubic" : "nearest",
    );
    let x = enter(tokensOf(map));
    if (condition) x = x.add(condition(call, grid));
    x = x.add(positions);
    const { embedding, dropoutKey } = call;
    const mask = adds ? undefined : call.hidden && attentionMask(call.hidden);
    const shared: BlockCall = { embedding, dropoutKey, context: tokensOf(call.condition), mask };
    const skips: Tensor[] = [];
    blocks.forEach((run, i) => {
      x = run(x, { ...shared, skip: longSkip && i > half ? skips.pop() : undefined });
      if (longSkip && i < half) skips.push(x);
    });
    const y = leave(x).reshape(map.shape);
    map.trace.record(scope.path, y);
    return y;
  };
}

/** (B, h, w) -> additive (B, 1, 1, h w). */
const attentionMask = (hidden: Tensor): Tensor =>
  hidden.mul(kHidden).reshape([hidden.shape[0]!, 1, 1, hidden.shape[1]! * hidden.shape[2]!]);
