// Transformer of VQ-Diffusion: corrupted tokens, timestep and a condition (text tokens, a class or
// nothing) -> logits of the clean tokens. Topology and parameter names of microsoft/VQ-Diffusion
// image_synthesis/modeling/transformers/ transformer_utils.py. Source: Gu et al. 2021,
// arXiv:2111.14822, section 4.2.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { geglu } from "../nn/activation.js";
import { adaptiveNorm } from "../nn/adaln.js";
import type { AdaptiveNorm, AdaptiveNormKind } from "../nn/adaln.js";
import { attention } from "../nn/attention.js";
import { conv2d } from "../nn/conv.js";
import { embedding, gridPositions, sinusoidRows } from "../nn/embedding.js";
import { normal, zeros } from "../nn/init.js";
import { linear } from "../nn/linear.js";
import type { Layer } from "../nn/linear.js";
import { ParamScope } from "../nn/module.js";
import { layerNorm } from "../nn/norm.js";
import { gelu, quickGelu } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import {
  checkFields,
  flag,
  limits,
  listOf,
  object,
  oneOf,
  optional,
  real,
  shown,
  whole,
} from "./check-config.js";
import type { Rule, Rules } from "./check-config.js";

export type VqTransformerCondition =
  | { kind: "text"; /** Width of the condition tokens. */ width: number }
  | {
      kind: "class";
      classes: number;
      /** Default "layer". */
      norm?: AdaptiveNormKind;
      /** A learned table in each norm, or sinusoids of label / classes * 4000, which have no null class. Default "learned". */
      features?: "learned" | "sinusoid";
    };

type ClassCondition = Extract<VqTransformerCondition, { kind: "class" }>;

export interface VqTransformerConfig {
  /** Codebook entries K; the vocabulary has K + 1 tokens, the last is the mask. */
  codes: number;
  /** Rows and columns of tokens. */
  grid: readonly [number, number];
  /**
   * Rows and columns of the position tables, when they differ from the grid: the released class
   * models have 32 x 32 positions for 16 x 16 tokens and read the first 256 of the flattened grid.
   * Default `grid`.
   */
  positions?: readonly [number, number];
  /** Names in checkpoints: a table with ".weight" or a bare parameter. Default "embedding". */
  positionKind?: "embedding" | "parameter";
  width: number;
  layers: number;
  heads: number;
  /** Hidden width of the MLP in widths; default 4. */
  mlpRatio?: number;
  /** "conv": two 3x3 convolutions on the token grid. Default "linear". */
  mlp?: "linear" | "conv";
  /**
   * Default "quickGelu" (GELU2 of the reference). "geglu" has a first layer twice as wide, whose second half gates the
   * first; not with convolutions.
   */
  activation?: "quickGelu" | "gelu" | "geglu";
  /** Biases of query, key and value; default true. */
  projectionBias?: boolean;
  /** Length of the diffusion chain; default 100. */
  timesteps?: number;
  /** Norm that the timestep modulates; default "layer". */
  timeNorm?: AdaptiveNormKind;
  /**
   * A learned table in each norm, or sinusoids of t / timesteps * 4000; "none": plain norms, the timestep is not seen.
   * Default "learned".
   */
  timeFeatures?: "learned" | "sinusoid" | "none";
  condition?: VqTransformerCondition;
  /** The first attention of a text model also attends to the condition, not to the tokens; default false. */
  onlyCrossAttention?: boolean;
}

export interface VqTransformerInput {
  /** x_t, i32 (B, N). */
  tokens: Tensor;
  /** Timesteps 0 … T-1, i32 (B). */
  times: Tensor;
  /** Condition tokens (B, M, width) of a text model. */
  condition?: Tensor;
  /** Additive mask over condition tokens, broadcastable to (B, heads, N, M). */
  conditionMask?: Tensor;
  /** Class ids of a class model, i32 (B); `classes` selects the null class. */
  labels?: Tensor;
}

export interface VqTransformer {
  readonly config: VqTransformerConfig;
  readonly parameters: readonly ParamSpec[];
  /** Logits of p(x0 | x_t) over the K codes: (B, N, K). */
  forward(input: VqTransformerInput): Tensor;
}

const gridRule = listOf(whole(1, limits.side), 2, 2);
const normKind = oneOf("layer", "instance");

/** What each key of a configuration may be. */
export const transformerRules: Readonly<Record<keyof VqTransformerConfig, Rule>> = {
  codes: whole(1, limits.codes),
  grid: gridRule,
  positions: optional(gridRule),
  positionKind: optional(oneOf("embedding", "parameter")),
  width: whole(1, limits.width),
  layers: whole(1, limits.layers),
  heads: whole(1, limits.width),
  mlpRatio: optional(real(1 / 64, 64)),
  mlp: optional(oneOf("linear", "conv")),
  activation: optional(oneOf("quickGelu", "gelu", "geglu")),
  projectionBias: optional(flag),
  timesteps: optional(whole(1, limits.timesteps)),
  timeNorm: optional(normKind),
  timeFeatures: optional(oneOf("learned", "sinusoid", "none")),
  condition: optional(object),
  onlyCrossAttention: optional(flag),
};

const conditionRules: Readonly<Record<VqTransformerCondition["kind"], Rules>> = {
  text: { kind: oneOf("text"), width: whole(1, limits.width) },
  class: {
    kind: oneOf("class"),
    classes: whole(1, limits.codes),
    norm: optional(normKind),
    features: optional(oneOf("learned", "sinusoid")),
  },
};

/**
 * The reference initialises linear and embedding weights with this deviation and biases with zero.
 */
const weights = { weightInit: normal(0.02), biasInit: zeros };

/** Largest position of the sinusoidal time features. */
const kTimeScale = 4000;

const activations = { quickGelu, gelu, geglu } as const;

type Block = (x: Tensor, input: VqTransformerInput, timeFeatures: Tensor | undefined) => Tensor;

function mlp(scope: ParamScope, config: VqTransformerConfig): Layer {
  const { width, mlpRatio = 4, mlp: kind = "linear", activation = "quickGelu", grid } = config;
  const act = activations[activation];
  const hidden = width * mlpRatio;
  const up = activation === "geglu" ? 2 * hidden : hidden;
  const record = (x: Tensor, y: Tensor): Tensor => {
    x.trace.record(scope.path, y);
    return y;
  };
  if (kind === "linear") {
    const first = linear(scope.child(0), { in: width, out: up, ...weights });
    const second = linear(scope.child(2), { in: hidden, out: width, ...weights });
    return (x) => record(x, second(act(first(x))));
  }
  const first = conv2d(scope.child("conv1"), { in: width, out: hidden });
  const second = conv2d(scope.child("conv2"), { in: hidden, out: width });
  return (x) => {
    const [B, N, D] = x.shape as [number, number, number];
    const map = x.reshape([B, grid[0], grid[1], D]);
    return record(x, second(act(first(map))).reshape([B, N, D]));
  };
}

const timeNorm = (scope: ParamScope, config: VqTransformerConfig): AdaptiveNorm => {
  const { width, timesteps = 100, timeNorm: norm = "layer", timeFeatures = "learned" } = config;
  if (timeFeatures === "none") {
    const plain = layerNorm(scope, { width });
    return (x) => plain(x);
  }
  const features = timeFeatures === "learned" ? "learned" : "given";
  return adaptiveNorm(scope, { width, count: timesteps, norm, features });
};

const attentionOf = (scope: ParamScope, config: VqTransformerConfig, contextWidth = config.width) =>
  attention(scope, {
    width: config.width,
    heads: config.heads,
    contextWidth,
    projectionBias: config.projectionBias ?? true,
    ...weights,
  });

/** x += SelfAttn(AdaLN(x, t)); x += CrossAttn(AdaLN(x, t), text); x += MLP(LN(x)). */
function textBlock(scope: ParamScope, config: VqTransformerConfig, conditionWidth: number): Block {
  const { width, onlyCrossAttention = false } = config;
  const norm1 = timeNorm(scope.child("ln1"), config);
  const mixFirst = attentionOf(
    scope.child("attn1"),
    config,
    onlyCrossAttention ? conditionWidth : width,
  );
  const norm2 = timeNorm(scope.child("ln1_1"), config);
  const mixText = attentionOf(scope.child("attn2"), config, conditionWidth);
  const norm3 = layerNorm(scope.child("ln2"), { width });
  const project = mlp(scope.child("mlp"), config);
  return (x, { times, condition, conditionMask }, features) => {
    const first = norm1(x, times, features);
    let h = x.add(onlyCrossAttention ? mixFirst(first, condition, conditionMask) : mixFirst(first));
    h = h.add(mixText(norm2(h, times, features), condition, conditionMask));
    return h.add(project(norm3(h)));
  };
}

/** Norm that the class modulates: (x, labels). */
function classNormOf(
  scope: ParamScope,
  width: number,
  { classes, norm = "layer", features = "learned" }: ClassCondition,
): (x: Tensor, labels: Tensor) => Tensor {
  if (features === "learned")
    return adaptiveNorm(scope, { width, count: classes, norm, meanRow: true });
  const modulated = adaptiveNorm(scope, { width, count: classes, norm, features: "given" });
  return (x, labels) => modulated(x, labels, indexSinusoids(x.trace, classes, width));
}

/** x += SelfAttn(AdaLN(x, t)); x += MLP(AdaLN(x, class)), or of LN(x) without a condition. */
function plainBlock(scope: ParamScope, config: VqTransformerConfig): Block {
  const { width, condition } = config;
  const norm1 = timeNorm(scope.child("ln1"), config);
  const mix = attentionOf(scope.child("attn"), config);
  const place = scope.child("ln2");
  const classNorm = condition?.kind === "class" ? classNormOf(place, width, condition) : undefined;
  const plainNorm = classNorm ? undefined : layerNorm(place, { width });
  const project = mlp(scope.child("mlp"), config);
  return (x, { times, labels }, features) => {
    const h = x.add(mix(norm1(x, times, features)));
    return h.add(project(classNorm ? classNorm(h, labels!) : plainNorm!(h)));
  };
}

function block(scope: ParamScope, config: VqTransformerConfig): Block {
  const run =
    config.condition?.kind === "text"
      ? textBlock(scope, config, config.condition.width)
      : plainBlock(scope, config);
  return (x, input, features) => {
    const y = run(x, input, features);
    x.trace.record(scope.path, y);
    return y;
  };
}

/** Token vectors plus row and column positions. */
function contentEmbedding(scope: ParamScope, config: VqTransformerConfig): Layer {
  const { codes, grid, positions = grid, positionKind = "embedding", width } = config;
  const words = embedding(scope.child("emb"), { count: codes + 1, width });
  const tokens = grid[0] * grid[1];
  const place = gridPositions(scope, { positions, width, tokens, kind: positionKind });
  return (ids) => {
    const y = words(ids).add(place(ids.trace));
    ids.trace.record(scope.path, y);
    return y;
  };
}

/** (count, width) sinusoids of i / count * 4000: SinusoidalPosEmb of the reference. */
function indexSinusoids(t: Trace, count: number, width: number): Tensor {
  const places = Array.from({ length: count }, (_, i) => (i / count) * kTimeScale);
  const rows = sinusoidRows(places, { width, divisor: width / 2 - 1, first: "sin" });
  return t.constant(rows, [count, width]);
}

const usesSinusoids = ({ timeFeatures, condition }: VqTransformerConfig): boolean =>
  timeFeatures === "sinusoid" || (condition?.kind === "class" && condition.features === "sinusoid");

function checkCondition(condition: NonNullable<VqTransformerConfig["condition"]>): void {
  if (!Object.hasOwn(conditionRules, condition.kind ?? "")) {
    throw new DiffusionError(
      "option",
      `vqTransformer: expected condition.kind of ${Object.keys(conditionRules).join(", ")}, got ${shown(condition.kind)}`,
    );
  }
  checkFields("vqTransformer: condition", condition, conditionRules[condition.kind]);
}

function checkConfig(config: VqTransformerConfig): void {
  checkFields("vqTransformer", config, transformerRules);
  const { width, heads, mlpRatio = 4, grid, positions = grid, condition } = config;
  if (condition) checkCondition(condition);
  const refuse = (expected: string, got: string): never => {
    throw new DiffusionError("option", `vqTransformer: expected ${expected}, got ${got}`);
  };
  const isSinusoidal = usesSinusoids(config);
  if (!Number.isInteger(width * mlpRatio) || (isSinusoidal && !(width >= 4 && width % 2 === 0)))
    refuse(
      "a whole width * mlpRatio, and an even width from 4 for sinusoids",
      `width ${width} and mlpRatio ${mlpRatio}`,
    );
  if (config.activation === "geglu" && config.mlp === "conv")
    refuse('mlp "linear" for activation "geglu"', '"conv"');
  if (config.timeFeatures === "none" && config.timeNorm === "instance")
    refuse('timeNorm "layer" for timeFeatures "none"', '"instance"');
  if (config.onlyCrossAttention && condition?.kind !== "text")
    refuse("a text condition for onlyCrossAttention", condition?.kind ?? "none");
  if (width % heads !== 0) refuse("width divisible by heads", `${width} and ${heads}`);
  if (positions[0] * positions[1] < grid[0] * grid[1])
    refuse(`at least ${grid[0] * grid[1]} positions`, positions.join(" x "));
}

function checkInput(
  config: VqTransformerConfig,
  { tokens, condition, labels }: VqTransformerInput,
): void {
  const N = config.grid[0] * config.grid[1];
  if (tokens.rank !== 2 || tokens.shape[1] !== N) {
    throw new DiffusionError(
      "shape",
      `vqTransformer: expected tokens (B, ${N}), got (${tokens.shape.join(", ")})`,
    );
  }
  const kind = config.condition?.kind;
  if (kind === "text" && !condition) {
    throw new DiffusionError("option", "vqTransformer: expected condition tokens, got none");
  }
  if (kind === "class" && !labels)
    throw new DiffusionError("option", "vqTransformer: expected labels, got none");
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function vqTransformer(
  config: VqTransformerConfig,
  scope: ParamScope = new ParamScope(),
): VqTransformer {
  checkConfig(config);
  const { codes, width, layers, timesteps = 100, timeFeatures = "learned" } = config;
  const embed = contentEmbedding(scope.child("content_emb"), config);
  const place = scope.child("blocks");
  const blocks = Array.from({ length: layers }, (_, i) => block(place.child(i), config));
  const head = scope.child("to_logits");
  const norm = layerNorm(head.child(0), { width });
  const toLogits = linear(head.child(1), { in: width, out: codes, ...weights });
  return {
    config,
    parameters: scope.specs(),
    forward(input) {
      checkInput(config, input);
      const t = input.tokens.trace;
      const features =
        timeFeatures === "sinusoid" ? indexSinusoids(t, timesteps, width) : undefined;
      const x = blocks.reduce((h, run) => run(h, input, features), embed(input.tokens));
      return toLogits(norm(x));
    },
  };
}
