// Cuts the graph of a step in two where its inputs stay the same from step to step: what depends on them and on
// weights only (keys and values of a text, embeddings of a class) is a graph of its own, run once.
import { GraphBuilder } from "./builder.js";
import { producerOf, type Graph, type GraphOutput, type Node } from "./graph.js";
import { opDef } from "./op-table.js";

export interface SplitGraph {
  /**
   * Reads the fixed inputs; its outputs have the names of inputs of `step`: of a fixed input that is handed through, else
   * numbers, which are the same for all graphs around the same network.
   */
  once: Graph;
  /** The graph without its fixed inputs. */
  step: Graph;
}

/** Values that depend on fixed inputs, and beside them on weights and constants only. */
function fixedValues(graph: Graph, fixed: ReadonlySet<string>): boolean[] {
  const isFixed: boolean[] = [];
  const isChanging: boolean[] = [];
  for (const { value, name, role } of graph.inputs) {
    isFixed[value] = fixed.has(name);
    isChanging[value] = !isFixed[value] && role !== "weight";
  }
  for (const { inputs, outputs } of graph.nodes.filter(({ inputs }) => inputs.length > 0)) {
    const changes = inputs.some((id) => isChanging[id]);
    for (const output of outputs) {
      isChanging[output] = changes;
      isFixed[output] = !changes && inputs.some((id) => isFixed[id]);
    }
  }
  return isFixed;
}

/** Moving values costs no more than handing them over, and broadcasting them makes them larger. */
const isWorthOnce = ({ op }: Node): boolean => !opDef(op).traits.has("movement");

/** Nodes that the outputs need, and the fixed values where the search for them ended. */
function needed(
  graph: Graph,
  isFixed: readonly boolean[],
): { nodes: Set<number>; cut: Set<number> } {
  const nodes = new Set<number>();
  const cut = new Set<number>();
  const visit = (value: number): void => {
    const node = producerOf(graph, value);
    if (isFixed[value] && isWorthOnce(node)) cut.add(value);
    else nodes.add(node.id);
  };
  graph.outputs.forEach(({ value }) => visit(value));
  for (const node of graph.nodes.toReversed()) if (nodes.has(node.id)) node.inputs.forEach(visit);
  return { nodes, cut };
}

/** A copy of the nodes that are wanted; `given` become inputs of these names. */
function extract(
  graph: Graph,
  wanted: (node: Node) => boolean,
  given: ReadonlyMap<number, string>,
  outputs: readonly GraphOutput[],
): Graph {
  const builder = new GraphBuilder();
  const renumbered = new Map<number, number>();
  const inputOf = new Map(graph.inputs.map((input) => [input.value, input]));
  for (const [value, name] of given)
    renumbered.set(value, builder.declare(name, "input", graph.values[value]!));
  for (const node of graph.nodes.filter(wanted)) {
    const input = inputOf.get(node.outputs[0]!);
    const made = input
      ? [builder.declare(input.name, input.role, graph.values[input.value]!)]
      : builder.append(node.op, node.inputs.map((id) => renumbered.get(id)!), node.attrs, node.scope); // prettier-ignore
    node.outputs.forEach((id, i) => renumbered.set(id, made[i]!));
  }
  for (const { name, value, updates } of outputs)
    builder.addOutput(name, renumbered.get(value)!, updates);
  return builder.graph;
}

/** Nodes that the values need, back to the inputs. */
function ancestors(graph: Graph, values: Iterable<number>): Set<number> {
  const nodes = new Set([...values].map((value) => graph.values[value]!.node));
  for (const node of graph.nodes.toReversed())
    if (nodes.has(node.id)) node.inputs.forEach((id) => nodes.add(graph.values[id]!.node));
  return nodes;
}

/** Splits a graph by the names of the inputs that are the same at every step. */
export function splitFixed(graph: Graph, fixed: ReadonlySet<string>): SplitGraph {
  const isFixed = fixedValues(graph, fixed);
  const { nodes, cut } = needed(graph, isFixed);
  const inputs = new Map(graph.inputs.map(({ name, value, role }) => [value, { name, role }]));
  const given = new Map(
    [...cut]
      .sort((a, b) => a - b)
      .map((value, i) => [value, inputs.get(value)?.name ?? `once.${i}`]),
  );
  const early = ancestors(graph, cut);
  const isGivenEachStep = ({ outputs }: Node): boolean => {
    const input = inputs.get(outputs[0]!);
    return input?.role === "input" && !fixed.has(input.name);
  };
  return {
    once: extract(
      graph,
      (node) => early.has(node.id) || fixed.has(inputs.get(node.outputs[0]!)?.name ?? ""),
      new Map(),
      [...given].map(([value, name]) => ({ name, value })),
    ),
    step: extract(
      graph,
      (node) => nodes.has(node.id) || isGivenEachStep(node),
      given,
      graph.outputs,
    ),
  };
}
