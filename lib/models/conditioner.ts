// Condition of a text-to-token model: encoded words, one token for each attribute (a style, a
// category), and a learned null condition for classifier-free guidance. Source of the learned null:
// Tang et al. 2022, arXiv:2205.16007, section 3.1.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { embedding } from "../nn/embedding.js";
import { normal } from "../nn/init.js";
import { ParamScope } from "../nn/module.js";
import { concat, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { checkFields, object, optional, recordOf, whole } from "./check-config.js";
import { textEncoder } from "./text-encoder.js";
import type { TextEncoderConfig } from "./text-encoder.js";

export interface ConditionerConfig {
  text: TextEncoderConfig;
  /** Number of values of each attribute by name; value `count` means "not said". */
  attributes?: Readonly<Record<string, number>>;
}

export interface ConditionInput {
  /** Token ids i32 (B, length). */
  words: Tensor;
  /** Attribute values by name, i32 (B). */
  attributes?: Readonly<Record<string, Tensor>>;
  /** f32 (B): 1 replaces the whole condition by the learned null; default keeps all. */
  isNull?: Tensor;
}

export interface Condition {
  /** (B, M, width). */
  tokens: Tensor;
  /** Additive mask (B, 1, 1, M). */
  mask: Tensor;
}

export interface Conditioner {
  readonly config: ConditionerConfig;
  readonly parameters: readonly ParamSpec[];
  /** M: words and attributes. */
  readonly length: number;
  readonly width: number;
  forward(input: ConditionInput): Condition;
}

export function conditioner(
  config: ConditionerConfig,
  scope: ParamScope = new ParamScope(),
): Conditioner {
  checkFields("conditioner", config, {
    text: object,
    attributes: optional(recordOf(whole(1, 65536), 64)),
  });
  const { width, length: words } = config.text;
  const encoder = textEncoder(config.text, scope.child("text"));
  const attributes = Object.entries(config.attributes ?? {});
  const tables = attributes.map(([name, count]) =>
    embedding(scope.child("attributes").child(name), { count: count + 1, width, init: normal(1) }),
  );
  const length = words + attributes.length;
  const nullTokens = scope.child("null").param("weight", [length, width], normal(1));

  const attributeTokens = (input: ConditionInput, B: number): Tensor[] =>
    attributes.map(([name], i) => {
      const value = input.attributes?.[name];
      if (!value)
        throw new DiffusionError("option", `conditioner: expected attribute ${name}, got none`);
      return tables[i]!(value).reshape([B, 1, width]);
    });

  return {
    config,
    parameters: scope.specs(),
    length,
    width,
    forward(input) {
      const t = input.words.trace;
      const B = input.words.shape[0]!;
      const extra = attributeTokens(input, B);
      const tokens = concat([encoder.forward(input.words), ...extra], 1);
      const visible = extra.map(() => t.constant(0).broadcastTo([B, 1, 1, 1]));
      const mask = concat([encoder.mask(input.words), ...visible], 3);
      if (!input.isNull) return { tokens, mask };
      const isNull = t.constant(0.5).less(input.isNull).reshape([B, 1, 1]);
      return {
        tokens: where(isNull, t.parameter(nullTokens), tokens),
        mask: where(isNull.reshape([B, 1, 1, 1]), t.constant(0), mask),
      };
    },
  };
}
