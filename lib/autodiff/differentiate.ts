// Reverse-mode differentiation: walks a trace's graph back from y and appends gradient nodes to the same trace.
// Its output is an ordinary part of the graph, so it can be differentiated again.
import { DiffusionError, formatShape } from "../errors.js";
import { realTypes } from "../ir/dtype.js";
import type { DType } from "../ir/dtype.js";
import type { Node } from "../ir/graph.js";
import { decompose } from "../trace/decompose.js";
import type { Tensor } from "../trace/tensor.js";
import type { Trace } from "../trace/trace.js";
import { ruleOf } from "./rules.js";

export interface GradientOptions {
  /** Gradient of the final result with respect to y; default 1, which needs a scalar y. */
  upstream?: Tensor;
}

/** Gradients of y with respect to each of `wrt`; zeros where y does not depend on one. */
export function gradients(
  y: Tensor,
  wrt: readonly Tensor[],
  { upstream }: GradientOptions = {},
): Tensor[] {
  const walk = new ReverseWalk(y.trace, wrt);
  walk.receive(y, upstream ?? seedOf(y));
  if (upstream) checkUpstream(y, upstream);
  walk.run();
  return wrt.map((x) => walk.gradientOf(x) ?? x.trace.constant(0, [...x.shape], x.dtype));
}

function seedOf(y: Tensor): Tensor {
  if (y.size !== 1) {
    throw new DiffusionError(
      "shape",
      `gradients: expected a scalar, got ${formatShape(y.shape)}; sum it or give upstream`,
    );
  }
  return y.trace.constant(1, [...y.shape], y.dtype);
}

function checkUpstream(y: Tensor, upstream: Tensor): void {
  if (formatShape(upstream.shape) === formatShape(y.shape)) return;
  throw new DiffusionError(
    "shape",
    `gradients: expected upstream of shape ${formatShape(y.shape)}, got ${formatShape(upstream.shape)}`,
  );
}

/** Whole numbers and truth values are steps: nothing flows through them. */
const carriesGradient = (dtype: DType): boolean =>
  realTypes.includes(dtype) || dtype === "f16" || dtype === "bf16";

/**
 * Nodes are visited from the newest to the oldest, so every consumer is done before its producer. A decomposition
 * appends nodes that are newer still: they are simply visited next.
 */
class ReverseWalk {
  private readonly pending = new Map<number, Tensor[]>(); // value id -> parts of its gradient
  private cursor = -1; // id of the newest node that may have a pending gradient
  private readonly dependent: boolean[] = []; // value id -> depends on wrt
  private readonly results = new Map<number, Tensor>();
  private readonly wrt: Set<number>;

  constructor(
    private readonly trace: Trace,
    wrt: readonly Tensor[],
  ) {
    this.wrt = new Set(wrt.map((x) => x.id));
  }

  receive(x: Tensor, gradient: Tensor): void {
    if (!this.isDependent(x.id)) return;
    const parts = this.pending.get(x.id);
    if (parts) parts.push(gradient);
    else this.pending.set(x.id, [gradient]);
    this.cursor = Math.max(this.cursor, this.trace.graph.values[x.id]!.node);
  }

  run(): void {
    while (this.cursor >= 0) this.visit(this.trace.graph.nodes[this.cursor--]!);
  }

  gradientOf(x: Tensor): Tensor | undefined {
    return this.results.get(x.id);
  }

  private visit(node: Node): void {
    const upstream = node.outputs.map((id) => this.take(id));
    const wanted = node.inputs.map((id) => this.isDependent(id));
    if (!upstream.some(Boolean) || !wanted.some(Boolean)) return;
    const inputs = node.inputs.map((id) => this.trace.tensor(id));
    const outputs = node.outputs.map((id) => this.trace.tensor(id));
    const parts = ruleOf(node.op)({ inputs, outputs, upstream, attrs: node.attrs, wanted });
    if (parts === "decompose") {
      const rebuilt = decompose(node.op, inputs, node.attrs);
      upstream.forEach((g, i) => g && this.receive(rebuilt[i]!, g));
      return;
    }
    parts.forEach((g, i) => g && wanted[i] && this.receive(inputs[i]!, g));
  }

  /** The summed gradient of a value, removed from the pending ones and kept if it was asked for. */
  private take(id: number): Tensor | undefined {
    const parts = this.pending.get(id);
    if (!parts) return undefined;
    this.pending.delete(id);
    const total = parts.reduce((sum, part) => sum.add(part));
    if (this.wrt.has(id)) this.results.set(id, this.results.get(id)?.add(total) ?? total);
    return total;
  }

  /** Extends the table to the nodes appended so far; node order is topological. */
  private isDependent(id: number): boolean {
    const { values, nodes } = this.trace.graph;
    for (let next = this.dependent.length; next <= id; next++) {
      const { node, dtype } = values[next]!;
      const varies = nodes[node]!.inputs.some((input) => this.dependent[input]);
      this.dependent.push(this.wrt.has(next) || (varies && carriesGradient(dtype)));
    }
    return this.dependent[id]!;
  }
}
