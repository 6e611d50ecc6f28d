// Deterministic text of a graph, for snapshots and messages; native/ir/print.cc prints the same bytes.
import type { Attr, Attrs, Graph, GraphOutput, Node } from "./graph.js";
import { formatSpecs } from "./op.js";

/** `%3 = add %1 %2 {a=1} : f32[2,3] # scope`, a line for each node, then `return name=%3`. */
export function printGraph(graph: Graph): string {
  const lines = graph.nodes.map((node) => printNode(graph, node));
  const outputs = graph.outputs.map(printOutput).join(", ");
  return [...lines, outputs ? `return ${outputs}` : "return"].join("\n");
}

export function printNode(graph: Graph, node: Node): string {
  const names = node.outputs.map((id) => `%${id}`).join(", ");
  const call = [node.op, ...node.inputs.map((id) => `%${id}`)].join(" ");
  const specs = formatSpecs(node.outputs.map((id) => graph.values[id]!));
  return `${names} = ${call}${printAttrs(node.attrs)} : ${specs}${node.scope && ` # ${node.scope}`}`;
}

/** Attributes sorted by key, as every form of the graph lists them. */
export function sortedAttrs(attrs: Attrs): [string, Attr][] {
  const all = Object.entries(attrs);
  const isSorted = all.every(([key], i) => i === 0 || all[i - 1]![0] < key);
  return isSorted ? all : all.sort(([a], [b]) => (a < b ? -1 : 1));
}

function printAttrs(attrs: Attrs): string {
  const parts = sortedAttrs(attrs).map(([key, value]) => `${key}=${printAttr(value)}`);
  return parts.length > 0 ? ` {${parts.join(", ")}}` : "";
}

function printAttr(value: Attr): string {
  if (typeof value === "string") return `"${value}"`;
  return typeof value === "object" ? `[${value.join(",")}]` : String(value);
}

const printOutput = ({ name, value, updates }: GraphOutput): string =>
  `${name}=%${value}${updates === undefined ? "" : ` -> ${updates}`}`;
