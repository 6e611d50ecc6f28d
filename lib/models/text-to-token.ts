// The two networks of a text-to-image model on tokens, on one tree of names: "conditioner.*" and
// "transformer.*".
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import { ParamScope } from "../nn/module.js";
import { checkFields, object, shown } from "./check-config.js";
import { conditioner, type Conditioner, type ConditionerConfig } from "./conditioner.js";
import { vqTransformer, type VqTransformer, type VqTransformerConfig } from "./vq-transformer.js";

export interface TextToTokenConfig {
  condition: ConditionerConfig;
  transformer: VqTransformerConfig;
}

export interface TextToToken {
  readonly config: TextToTokenConfig;
  readonly parameters: readonly ParamSpec[];
  readonly conditioner: Conditioner;
  readonly transformer: VqTransformer;
}

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
  return { config, parameters: scope.specs(), ...parts };
}
