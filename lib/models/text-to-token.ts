// The two networks of a text-to-image model on tokens, on one tree of names: "conditioner.*" and
// "transformer.*".
import { DiffusionError } from "../errors.js";
import { ParamScope } from "../nn/module.js";
import { checkFields, object, shown } from "./check-config.js";
import { conditioner, type Conditioner, type ConditionerConfig } from "./conditioner.js";
import type { TokenModel } from "./token-model.js";
import { vqTransformer, type VqTransformerConfig } from "./vq-transformer.js";

export interface TextToTokenConfig {
  condition: ConditionerConfig;
  transformer: VqTransformerConfig;
}

export interface TextToToken extends TokenModel {
  readonly config: TextToTokenConfig;
  readonly conditioner: Conditioner;
}

/** Input of an attribute's values. */
const attributeInput = (name: string): string => `attribute.${name}`;

export function textToToken(config: TextToTokenConfig): TextToToken {
  checkFields("textToToken", config, { condition: object, transformer: object });
  const scope = new ParamScope();
  const parts = {
    conditioner: conditioner(config.condition, scope.child("conditioner")),
    transformer: vqTransformer(config.transformer, scope.child("transformer")),
  };
  const { condition } = config.transformer;
  if (condition?.kind !== "text" || condition.width !== parts.conditioner.width) {
    throw new DiffusionError(
      "option",
      `textToToken: expected transformer.condition { kind: "text", width: ${parts.conditioner.width} }, the width of the text encoder, got ${shown(condition)}`,
    );
  }
  const { text, attributes = {} } = config.condition;
  const names = Object.keys(attributes);
  const { length, width } = parts.conditioner;
  return {
    name: "text-to-token",
    config,
    parameters: scope.specs(),
    ...parts,
    condition: { kind: "text", length: text.length, attributes },
    conditionInputs: (rows) => ({
      words: { shape: [rows, text.length], dtype: "i32" },
      isNull: { shape: [rows] },
      ...Object.fromEntries(
        names.map((name) => [attributeInput(name), { shape: [rows], dtype: "i32" as const }]),
      ),
    }),
    encode(inputs) {
      const { tokens, mask } = parts.conditioner.forward({
        words: inputs["words"]!,
        isNull: inputs["isNull"]!,
        attributes: Object.fromEntries(names.map((name) => [name, inputs[attributeInput(name)]!])),
      });
      return { condition: tokens, conditionMask: mask };
    },
    encodedInputs: (rows) => ({
      condition: { shape: [rows, length, width] },
      conditionMask: { shape: [rows, 1, 1, length] },
    }),
  };
}
