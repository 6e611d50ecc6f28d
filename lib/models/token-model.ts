// A network on tokens together with what it may be told of a sample: captions and attributes, a class, or nothing. Trainers
// and pipelines see this only; the text-conditional one stands in text-to-token.ts.
import { DiffusionError } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import type { InputSpec, Tensor } from "../trace/tensor.js";
import { vqTransformer } from "./vq-transformer.js";
import type { VqTransformer, VqTransformerConfig, VqTransformerInput } from "./vq-transformer.js";

/** What a network may be told. */
export type TokenCondition =
  | {
      kind: "text";
      /** Word ids of a caption, padding included. */
      length: number;
      /** Number of values of each attribute; value `count` means "not said". */
      attributes: Readonly<Record<string, number>>;
    }
  | { kind: "class"; /** Rows of the table of classes, the learned null class included. */ classes: number }
  | { kind: "none" }; // prettier-ignore

/** What the transformer reads beside tokens and timesteps. */
export type EncodedCondition = Omit<VqTransformerInput, "tokens" | "times">;

export interface TokenModel {
  /** Name of the architecture in pipeline.json. */
  readonly name: "text-to-token" | "vq-transformer";
  /** As pipeline.json keeps it. */
  readonly config: object;
  readonly parameters: readonly ParamSpec[];
  readonly transformer: VqTransformer;
  readonly condition: TokenCondition;
  /** Inputs by name that tell the condition of `rows` samples. */
  conditionInputs(rows: number): Record<string, InputSpec>;
  /** Those inputs -> what the transformer reads. */
  encode(inputs: Readonly<Record<string, Tensor>>): EncodedCondition;
  /** Shapes of what `encode` gives, when it computes something that a sampler can keep; else undefined. */
  readonly encodedInputs?: (rows: number) => Record<string, InputSpec>;
}

/** A VQ-Diffusion transformer that reads a class or nothing. */
export function transformerAlone(config: VqTransformerConfig): TokenModel {
  const transformer = vqTransformer(config);
  const { condition } = transformer.config;
  if (condition?.kind === "text")
    throw new DiffusionError(
      "option",
      `transformerAlone: expected a condition of kind "class" or none, got "text"; use textToToken`,
    );
  const isClass = condition?.kind === "class";
  return {
    name: "vq-transformer",
    config,
    parameters: transformer.parameters,
    transformer,
    condition: isClass ? { kind: "class", classes: condition.classes } : { kind: "none" },
    conditionInputs: (rows): Record<string, InputSpec> =>
      isClass ? { labels: { shape: [rows], dtype: "i32" } } : {},
    encode: ({ labels }) => (labels ? { labels } : {}),
  };
}
