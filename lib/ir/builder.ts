// Grows a graph: infers, checks, appends. Knows no op by name, apart from the declaration of inputs.
import { DiffusionError, formatShape } from "../errors.js";
import type { Attrs, Graph, Role, Spec } from "./graph.js";
import { emptyGraph } from "./graph.js";
import { opDef } from "./op-table.js";
import { maxRank } from "./shape.js";

export class GraphBuilder {
  readonly graph: Graph = emptyGraph();

  /** Append a node; returns the ids of its outputs. */
  append(op: string, inputs: readonly number[], attrs: Attrs = {}, scope = ""): number[] {
    const specs = opDef(op).infer(
      inputs.map((id) => this.spec(id)),
      attrs,
    );
    return this.push(op, inputs, attrs, specs, scope);
  }

  /** Declare a graph input; returns its value. */
  declare(name: string, role: Role, spec: Spec): number {
    const badSize = spec.shape.find((n) => !Number.isSafeInteger(n) || n < 1);
    if (badSize !== undefined) {
      throw new DiffusionError(
        "shape",
        `input ${name}: expected sizes of at least 1, got ${formatShape(spec.shape)}`,
      );
    }
    const [value] = this.push("input", [], { name, role }, [spec], "");
    this.graph.inputs.push({ name, value: value!, role });
    return value!;
  }

  /** Name a value as a result, or as the new content of a state input. */
  addOutput(name: string, value: number, updates?: string): void {
    this.spec(value);
    this.graph.outputs.push(updates === undefined ? { name, value } : { name, value, updates });
  }

  spec(value: number): Spec {
    const found = this.graph.values[value];
    if (found) return found;
    throw new DiffusionError(
      "internal",
      `GraphBuilder: expected a value of this graph, got %${value}`,
    );
  }

  /** Append a node whose results are known. */
  push(
    op: string,
    inputs: readonly number[],
    attrs: Attrs,
    specs: readonly Spec[],
    scope: string,
  ): number[] {
    const { nodes, values } = this.graph;
    const node = nodes.length;
    const tooDeep = specs.find(({ shape }) => shape.length > maxRank);
    if (tooDeep) {
      throw new DiffusionError(
        "shape",
        `${op}: expected at most ${maxRank} axes, got ${formatShape(tooDeep.shape)}`,
      );
    }
    const outputs = specs.map((_, output) => values.length + output);
    specs.forEach(({ dtype, shape }, output) =>
      values.push({ id: outputs[output]!, dtype, shape: [...shape], node, output }),
    );
    nodes.push({ id: node, op, inputs: [...inputs], attrs, outputs, scope });
    return outputs;
  }
}
