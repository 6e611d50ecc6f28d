// Every node against its op's row, and the graph's own bookkeeping; run after each transform in tests.
import { DiffusionError } from "../errors.js";
import type { Graph, GraphOutput, Node, Spec } from "./graph.js";
import { formatSpec, formatSpecs } from "./op.js";
import { opDef } from "./op-table.js";
import { printNode } from "./print.js";
import { maxRank, sameShape } from "./shape.js";

/** Throws a DiffusionError ("internal") that shows the first thing wrong. */
export function verify(graph: Graph): void {
  graph.nodes.forEach((node, id) => verifyNode(graph, node, id));
  verifyValues(graph);
  verifyInputs(graph);
  verifyOutputs(graph);
}

const fail = (message: string): never => {
  throw new DiffusionError("internal", `verify: ${message}`);
};

const sameSpec = (a: Spec, b: Spec): boolean => a.dtype === b.dtype && sameShape(a.shape, b.shape);

function verifyNode(graph: Graph, node: Node, id: number): void {
  if (node.id !== id) fail(`expected node ${id}, got id ${node.id}`);
  for (const value of [...node.inputs, ...node.outputs]) {
    if (!graph.values[value])
      fail(`expected known values in node ${id} (${node.op}), got %${value}`);
  }
  const late = node.inputs.find((value) => graph.values[value]!.node >= id);
  if (late !== undefined)
    fail(`expected inputs made before \`${printNode(graph, node)}\`, got %${late}`);
  const declared = node.outputs.map((value) => graph.values[value]!);
  const deep = declared.find(({ shape }) => shape.length > maxRank);
  if (deep) fail(`expected at most ${maxRank} axes, got ${formatSpec(deep)} of ${node.op}`);
  if (opDef(node.op).traits.has("source")) return verifySource(graph, node);
  const inferred = opDef(node.op).infer(
    node.inputs.map((value) => graph.values[value]!),
    node.attrs,
  );
  const agrees =
    inferred.length === declared.length &&
    inferred.every((spec, i) => sameSpec(spec, declared[i]!));
  if (!agrees) fail(`expected ${formatSpecs(inferred)}, got \`${printNode(graph, node)}\``);
}

function verifySource(graph: Graph, node: Node): void {
  const listed = graph.inputs.filter(({ value }) => value === node.outputs[0]);
  if (node.outputs.length !== 1 || listed.length !== 1) {
    fail(
      `expected \`${printNode(graph, node)}\` once among the graph's inputs, got ${listed.length} times`,
    );
  }
}

function verifyValues(graph: Graph): void {
  graph.values.forEach((value, id) => {
    const made = graph.nodes[value.node]?.outputs[value.output];
    if (value.id !== id || made !== id) {
      fail(
        `expected %${id} to be output ${value.output} of node ${value.node}, got ${made === undefined ? "none" : `%${made}`}`,
      );
    }
  });
}

function verifyInputs(graph: Graph): void {
  const names = new Set<string>();
  for (const { name, value, role } of graph.inputs) {
    const node = graph.nodes[graph.values[value]?.node ?? -1];
    if (!node || !opDef(node.op).traits.has("source")) {
      return fail(
        `expected graph input ${name} to come from an input node, got ${node?.op ?? "nothing"}`,
      );
    }
    if (node.attrs.name !== name || node.attrs.role !== role) {
      fail(
        `expected input ${name} (${role}), got ${String(node.attrs.name)} (${String(node.attrs.role)})`,
      );
    }
    if (names.has(name)) fail(`expected distinct graph inputs, got ${name} twice`);
    names.add(name);
  }
}

function verifyOutputs(graph: Graph): void {
  const names = new Set<string>();
  const updated = new Set<string>();
  for (const output of graph.outputs) {
    if (!graph.values[output.value])
      fail(`expected output ${output.name} to be a value, got %${output.value}`);
    if (names.has(output.name)) fail(`expected distinct outputs, got ${output.name} twice`);
    names.add(output.name);
    if (output.updates === undefined) continue;
    verifyUpdate(graph, output, output.updates);
    if (updated.has(output.updates)) fail(`expected one update of ${output.updates}, got two`);
    updated.add(output.updates);
  }
}

function verifyUpdate(graph: Graph, { name, value }: GraphOutput, updates: string): void {
  const state = graph.inputs.find((input) => input.role === "state" && input.name === updates);
  if (!state) return fail(`expected output ${name} to update a state, got ${updates}`);
  const [old, fresh] = [graph.values[state.value]!, graph.values[value]!];
  if (!sameSpec(old, fresh))
    fail(`expected the update of ${updates} to be ${formatSpec(old)}, got ${formatSpec(fresh)}`);
}
