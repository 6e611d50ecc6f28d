// Text tower of CLIP: token ids to one vector a token, to one vector a text, and to the condition
// that VQ-Diffusion reads. Topology of openai/CLIP clip/model.py. Source: Radford et al. 2021,
// arXiv:2103.00020, section 2.4.
import { DiffusionError, formatShape } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { embedding } from "../nn/embedding.js";
import { fusedAttention } from "../nn/fused-attention.js";
import { normal, normalLinear } from "../nn/init.js";
import type { LinearInits } from "../nn/init.js";
import type { Layer } from "../nn/linear.js";
import { mlp } from "../nn/mlp.js";
import { ParamScope } from "../nn/module.js";
import { layerNorm } from "../nn/norm.js";
import { argMax, equal, gelu, iota, matmul, quickGelu } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, limits, oneOf, optional, real, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";

export interface ClipTextEncoderConfig {
  /** Token ids are 0 … vocabulary-1. */
  vocabulary: number;
  /** Tokens of a text, padding included. */
  length: number;
  width: number;
  layers: number;
  heads: number;
  /** Hidden width of the MLP; default 4 widths. */
  hidden?: number;
  /** Default "quickGelu" (OpenAI's weights). */
  activation?: "quickGelu" | "gelu";
  /** Default 1e-5. */
  eps?: number;
  /** Width of the vector of a text after its projection; default none. */
  projection?: number;
  /**
   * The text's vector is read at the first such token; default at the first highest id, which is
   * the end token of the published vocabulary.
   */
  endToken?: number;
}

export interface EncodedClipText {
  /** (B, length, width), after the last norm. */
  hidden: Tensor;
  /** (B, width): `hidden` at the end of the text. */
  pooled: Tensor;
  /** (B, projection) with a projection. */
  embedding: Tensor | undefined;
}

export interface ClipTextEncoder {
  readonly config: ClipTextEncoderConfig;
  readonly parameters: readonly ParamSpec[];
  /** Token ids i32 (B, length). Padding is attended to by what follows it only. */
  forward(ids: Tensor): EncodedClipText;
}

/** What each key of a configuration may be. */
export const clipTextEncoderRules: Readonly<Record<keyof ClipTextEncoderConfig, Rule>> = {
  vocabulary: whole(1, limits.codes),
  length: whole(1, limits.side),
  width: whole(1, limits.width),
  layers: whole(1, limits.layers),
  heads: whole(1, limits.width),
  hidden: optional(whole(1, limits.width)),
  activation: optional(oneOf("quickGelu", "gelu")),
  eps: optional(real(0, 1)),
  projection: optional(whole(1, limits.width)),
  endToken: optional(whole(0, limits.codes)),
};

const activations = { quickGelu, gelu } as const;

/** Deviations of openai/CLIP: attention D^-1/2, MLP (2 D)^-1/2, residual projections less with depth. */
function initsOf({ width, layers }: ClipTextEncoderConfig) {
  const attention = width ** -0.5;
  const deep = (2 * layers) ** -0.5;
  const first: LinearInits = normalLinear(attention);
  const last: LinearInits = normalLinear(attention * deep);
  return {
    attention: (from: number, to: number) => (from === to ? last : first)(from, to),
    up: normalLinear((2 * width) ** -0.5),
    down: last,
  };
}

/** Pre-norm block. */
function block(scope: ParamScope, config: ClipTextEncoderConfig): Layer {
  const { width, heads, hidden = 4 * width, activation = "quickGelu", eps = 1e-5 } = config;
  const inits = initsOf(config);
  const norm1 = layerNorm(scope.child("ln_1"), { width, eps });
  const mix = fusedAttention(scope.child("attn"), {
    width,
    heads,
    causal: true,
    inits: inits.attention,
  });
  const norm2 = layerNorm(scope.child("ln_2"), { width, eps });
  const project = mlp(scope.child("mlp"), activations[activation], {
    in: width,
    hidden,
    inits: inits.up,
    lastInits: inits.down,
  });
  return (x) => {
    const h = x.add(mix(norm1(x)));
    const y = h.add(project(norm2(h)));
    x.trace.record(scope.path, y);
    return y;
  };
}

function checkConfig(config: ClipTextEncoderConfig): void {
  checkFields("clipTextEncoder", config, clipTextEncoderRules);
  const { width, heads, vocabulary, endToken = 0 } = config;
  if (width % heads !== 0) {
    throw new DiffusionError(
      "option",
      `clipTextEncoder: expected width divisible by heads, got ${width} and ${heads}`,
    );
  }
  if (endToken >= vocabulary) {
    throw new DiffusionError(
      "option",
      `clipTextEncoder: expected endToken below the vocabulary of ${vocabulary}, got ${endToken}`,
    );
  }
}

/** Rows (B, width) of (B, N, width) at i32 places (B). */
function rowsAt(x: Tensor, places: Tensor): Tensor {
  const [B, N, D] = x.shape as [number, number, number];
  const starts = iota(x.trace, [B], 0).mul(N);
  return x.reshape([B * N, D]).gather(starts.add(places), 0);
}

/** Builds the model on a scope of its own, or below `scope` when it is part of something larger. */
export function clipTextEncoder(
  config: ClipTextEncoderConfig,
  scope: ParamScope = new ParamScope(),
): ClipTextEncoder {
  checkConfig(config);
  const { vocabulary, length, width, layers, eps = 1e-5, projection, endToken } = config;
  const words = embedding(scope.child("token_embedding"), { count: vocabulary, width });
  const positions = scope.param("positional_embedding", [length, width], normal(0.01));
  const tower = scope.child("transformer");
  const blocks = Array.from({ length: layers }, (_, i) =>
    block(tower.child("resblocks").child(i), config),
  );
  const norm = layerNorm(scope.child("ln_final"), { width, eps });
  const project =
    projection === undefined
      ? undefined
      : scope.param("text_projection", [width, projection], normal(width ** -0.5));

  /** The first end token, or the first highest id. */
  const endOf = (ids: Tensor): Tensor =>
    argMax((endToken === undefined ? ids : equal(ids, endToken)).cast("f32"));

  return {
    config,
    parameters: scope.specs(),
    forward(ids) {
      const t = ids.trace;
      if (ids.rank !== 2 || ids.shape[1] !== length) {
        throw new DiffusionError(
          "shape",
          `clipTextEncoder: expected ids (B, ${length}), got ${formatShape(ids.shape)}`,
        );
      }
      const start = words(ids).add(t.parameter(positions));
      t.record(scope.nameOf("embeddings"), start);
      const x = blocks.reduce((h, run) => run(h), start);
      t.record(tower.path, x);
      const hidden = norm(x);
      const pooled = rowsAt(hidden, endOf(ids));
      return {
        hidden,
        pooled,
        embedding: project && matmul(pooled, t.parameter(project)),
      };
    },
  };
}

/**
 * Every token's vector at unit length: what VQ-Diffusion's cross-attention reads. Gu et al. 2021,
 * arXiv:2111.14822; CLIPTextEmbedding of microsoft/VQ-Diffusion with normalize.
 */
export const unitTokens = (hidden: Tensor): Tensor =>
  hidden.div(hidden.square().sum([-1], true).sqrt());

const published = { vocabulary: 49408, length: 77, layers: 12 } as const;
const laion = { activation: "gelu" } as const;

/**
 * Text towers of the published models by the name of their image tower: OpenAI's, then those of
 * mlfoundations/open_clip on LAION-2B.
 */
export const clipTextConfigs = {
  "ViT-B/32": { ...published, width: 512, heads: 8, projection: 512 },
  "ViT-B/16": { ...published, width: 512, heads: 8, projection: 512 },
  "ViT-L/14": { ...published, width: 768, heads: 12, projection: 768 },
  "ViT-L/14@336px": { ...published, width: 768, heads: 12, projection: 768 },
  RN50: { ...published, width: 512, heads: 8, projection: 1024 },
  RN101: { ...published, width: 512, heads: 8, projection: 512 },
  RN50x4: { ...published, width: 640, heads: 10, projection: 640 },
  RN50x16: { ...published, width: 768, heads: 12, projection: 768 },
  RN50x64: { ...published, width: 1024, heads: 16, projection: 1024 },
  "ViT-H/14": { ...published, ...laion, layers: 24, width: 1024, heads: 16, projection: 1024 },
  "ViT-g/14": { ...published, ...laion, layers: 24, width: 1024, heads: 16, projection: 1024 },
  "ViT-bigG/14": { ...published, ...laion, layers: 32, width: 1280, heads: 20, projection: 1280 },
} as const satisfies Readonly<Record<string, ClipTextEncoderConfig>>;
