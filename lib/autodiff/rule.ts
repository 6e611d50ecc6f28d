// What a gradient rule looks like, and summing a gradient back over the axes that broadcasting added.
import type { Attrs } from "../ir/graph.js";
import type { Tensor } from "../trace/tensor.js";

export interface RuleContext {
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  /** Gradient with respect to each output; undefined where nothing flows back. */
  readonly upstream: readonly (Tensor | undefined)[];
  readonly attrs: Attrs;
  /** Which inputs need a gradient; a rule may skip the others. */
  readonly wanted: readonly boolean[];
}

/** Gradient with respect to each input, or "decompose": this case goes through the op's decomposition. */
export type Rule = (context: RuleContext) => readonly (Tensor | undefined)[] | "decompose";

export type RuleTable = Readonly<Record<string, Rule>>;

/** Rule of an op without a gradient: a comparison, an index, a draw. */
export const nonDifferentiable: Rule = ({ inputs }) => inputs.map(() => undefined);

/** Sum a gradient over the axes that numpy broadcasting stretched, so that it has `shape`. */
export function unbroadcast(gradient: Tensor, shape: readonly number[]): Tensor {
  const lead = gradient.rank - shape.length;
  const stretched = gradient.shape
    .map((_, axis) => axis)
    .filter((axis) => axis < lead || (shape[axis - lead] === 1 && gradient.shape[axis] !== 1));
  if (stretched.length === 0) return gradient;
  return gradient.sum(stretched, true).reshape([...shape]);
}

/** The gradient of the only output; a rule runs only when something flows back, so it is there. */
export function onlyUpstream({ upstream }: RuleContext): Tensor {
  return upstream[0]!;
}
