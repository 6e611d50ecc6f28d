// What samples are told, from words and names of values to the inputs of a network: the same for training and sampling.
import type { TokenModel } from "../models/token-model.js";
import type { TextTokenizer } from "../text/tokenizer.js";

/** What one sample is told. */
export interface SampleCondition {
  /** "" says nothing. */
  caption: string;
  /** Value of each attribute by name; the number of its values means "not said". */
  attributes: Readonly<Record<string, number>>;
  /** Told nothing at all: the null condition. */
  isNull: boolean;
}

/** A network and what turns a condition into its inputs. */
export interface ConditionReader {
  model: TokenModel;
  /** Of a text model. */
  tokenizer?: TextTokenizer | undefined;
  /** Number of values of each attribute; a class model has the one attribute "class". */
  counts: Readonly<Record<string, number>>;
}

/** Name of the attribute of class models. */
export const classAttribute = "class";

/** Inputs of the network by name, one row a sample. */
export function conditionRows(
  { model, tokenizer, counts }: ConditionReader,
  samples: readonly SampleCondition[],
): Record<string, Int32Array | Float32Array> {
  const { condition } = model;
  const values = (name: string): Int32Array =>
    Int32Array.from(samples, ({ attributes }) => attributes[name]!);
  if (condition.kind === "none") return {};
  if (condition.kind === "class") {
    const nobody = counts[classAttribute]!;
    const labels = values(classAttribute);
    return { labels: labels.map((label, i) => (samples[i]!.isNull ? nobody : label)) };
  }
  const captions = samples.map(({ caption }) => caption);
  return {
    words: tokenizer!.encodeBatch(captions, { length: condition.length }).ids,
    isNull: Float32Array.from(samples, ({ isNull }) => (isNull ? 1 : 0)),
    ...Object.fromEntries(
      Object.keys(condition.attributes).map((name) => [`attribute.${name}`, values(name)]),
    ),
  };
}
