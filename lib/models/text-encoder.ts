// A small transformer encoder over word tokens, trained together with the image model that reads
// its output. Pre-norm blocks of Vaswani et al. 2017, arXiv:1706.03762, in the arrangement of Xiong
// et al. 2020, arXiv:2002.04745.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { attention } from "../nn/attention.js";
import { embedding } from "../nn/embedding.js";
import { normal, zeros } from "../nn/init.js";
import { linear } from "../nn/linear.js";
import { ParamScope } from "../nn/module.js";
import { layerNorm } from "../nn/norm.js";
import { equal, gelu, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, limits, optional, real, whole } from "./check-config.js";
import type { Rule } from "./check-config.js";

export interface TextEncoderConfig {
  /** Token ids are 0 … vocabulary-1. */
  vocabulary: number;
  /** Tokens of a text, padding included. */
  length: number;
  width: number;
  layers: number;
  heads: number;
  /** Default 4. */
  mlpRatio?: number;
  /** Id that fills a text up; it is not attended to. Default 0. */
  padToken?: number;
}

export interface TextEncoder {
  readonly config: TextEncoderConfig;
  readonly parameters: readonly ParamSpec[];
  /** Token ids i32 (B, length) -> (B, length, width). */
  forward(ids: Tensor): Tensor;
  /**
   * Additive mask (B, 1, 1, length) that hides the padding, except the first token so that no row
   * is empty.
   */
  mask(ids: Tensor): Tensor;
}

/** Large enough to vanish in a softmax, small enough to stay finite in float16. */
const kHidden = -3e4;

const weights = { weightInit: normal(0.02), biasInit: zeros };

// Words start at unit scale: the blocks add to them, and with the usual 0.02 what the blocks add soon drowns which word
// it was (measured on the emoji recipe: after 160k samples the loss did not depend on the caption).
const wordInit = normal(1);

type Block = (x: Tensor, mask: Tensor) => Tensor;

function block(scope: ParamScope, { width, heads, mlpRatio = 4 }: TextEncoderConfig): Block {
  const norm1 = layerNorm(scope.child("norm1"), { width });
  const mix = attention(scope.child("attn"), { width, heads, ...weights });
  const norm2 = layerNorm(scope.child("norm2"), { width });
  const up = linear(scope.child("mlp").child("up"), {
    in: width,
    out: width * mlpRatio,
    ...weights,
  });
  const down = linear(scope.child("mlp").child("down"), {
    in: width * mlpRatio,
    out: width,
    ...weights,
  });
  return (x, mask) => {
    const h = x.add(mix(norm1(x), undefined, mask));
    const y = h.add(down(gelu(up(norm2(h)))));
    x.trace.record(scope.path, y);
    return y;
  };
}

/** What each key of a configuration may be. */
export const textEncoderRules: Readonly<Record<keyof TextEncoderConfig, Rule>> = {
  vocabulary: whole(1, limits.codes),
  length: whole(2, limits.side),
  width: whole(1, limits.width),
  layers: whole(0, limits.layers),
  heads: whole(1, limits.width),
  mlpRatio: optional(real(1 / 64, 64)),
  padToken: optional(whole(0, limits.codes)),
};

function checkConfig(config: TextEncoderConfig): void {
  checkFields("textEncoder", config, textEncoderRules);
  const { width, heads, mlpRatio = 4, vocabulary, padToken = 0 } = config;
  if (width % heads !== 0 || !Number.isInteger(width * mlpRatio)) {
    throw new DiffusionError(
      "option",
      `textEncoder: expected width divisible by heads and a whole width * mlpRatio, got ${width}, ${heads} and ${mlpRatio}`,
    );
  }
  if (padToken >= vocabulary) {
    throw new DiffusionError(
      "option",
      `textEncoder: expected padToken below the vocabulary of ${vocabulary}, got ${padToken}`,
    );
  }
}

export function textEncoder(
  config: TextEncoderConfig,
  scope: ParamScope = new ParamScope(),
): TextEncoder {
  checkConfig(config);
  const { vocabulary, length, width, layers, padToken = 0 } = config;
  const words = embedding(scope.child("words"), { count: vocabulary, width, init: wordInit });
  const positions = scope.child("positions").param("weight", [length, width], normal(0.1));
  const blocks = Array.from({ length: layers }, (_, i) =>
    block(scope.child("blocks").child(i), config),
  );
  const norm = layerNorm(scope.child("norm"), { width });

  const mask = (ids: Tensor): Tensor => {
    const t = ids.trace;
    const B = ids.shape[0]!;
    const isFirst = t.constant(
      Array.from({ length }, (_, i) => (i === 0 ? 0 : kHidden)),
      [1, length],
    );
    const isPad = equal(ids, padToken);
    return where(isPad, isFirst, t.constant(0)).reshape([B, 1, 1, length]);
  };
  return {
    config,
    parameters: scope.specs(),
    mask,
    forward(ids) {
      const hidden = mask(ids);
      const embedded = words(ids).add(ids.trace.parameter(positions));
      const y = norm(blocks.reduce((x, run) => run(x, hidden), embedded));
      ids.trace.record(scope.path, y);
      return y;
    },
  };
}
