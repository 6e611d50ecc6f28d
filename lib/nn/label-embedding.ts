// Embedding of a class, with a row for "no class" that classifier-free guidance needs. Source: Ho
// and Salimans 2022, arXiv:2207.12598; names of facebookresearch/DiT models.py.
import { less, where } from "../trace/functions.js";
import type { Tensor } from "../trace/tensor.js";
import { embedding } from "./embedding.js";
import type { ParamScope } from "./module.js";

export interface LabelEmbeddingOptions {
  classes: number;
  width: number;
  /** A row at index `classes` for the null class. */
  nullClass: boolean;
}

/** (labels i32 (B), f32 (B) whose ones replace the label by the null class) -> (B, width). */
export type LabelEmbedding = (labels: Tensor, isNull?: Tensor) => Tensor;

export function labelEmbedding(
  scope: ParamScope,
  { classes, width, nullClass }: LabelEmbeddingOptions,
): LabelEmbedding {
  const rows = embedding(scope.child("embedding_table"), {
    count: classes + (nullClass ? 1 : 0),
    width,
  });
  return (labels, isNull) => {
    const t = labels.trace;
    const chosen = isNull
      ? where(less(t.constant(0.5), isNull), t.constant(classes, [], "i32"), labels)
      : labels;
    const y = rows(chosen);
    t.record(scope.path, y);
    return y;
  };
}
