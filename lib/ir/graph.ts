// The graph as plain data: append-only arrays in topological order. Identity of a node or value is its index.
import type { DType } from "./dtype.js";
import type { Shape } from "./shape.js";

/** What is known of a value before anything runs. */
export interface Spec {
  readonly dtype: DType;
  readonly shape: Shape;
}

export interface Value extends Spec {
  readonly id: number;
  /** Index of the node that makes it. */
  readonly node: number;
  /** Which of that node's outputs it is. */
  readonly output: number;
}

export type Attr = number | string | boolean | readonly number[];
export type Attrs = Readonly<Record<string, Attr>>;

export interface Node {
  readonly id: number;
  readonly op: string;
  readonly inputs: readonly number[];
  readonly attrs: Attrs;
  readonly outputs: readonly number[];
  /** Dotted name of the module that made it, or "". */
  readonly scope: string;
}

/**
 * input: given at each run; weight: constant for the life of a session, packed once; state: a native buffer that
 * outputs may update in place.
 */
export type Role = "input" | "weight" | "state";

export interface GraphInput {
  readonly name: string;
  readonly value: number;
  readonly role: Role;
}

export interface GraphOutput {
  readonly name: string;
  readonly value: number;
  /** Name of the state input whose buffer takes the value, after every other reader of it has run. */
  readonly updates?: string;
}

export interface Graph {
  readonly nodes: Node[];
  readonly values: Value[];
  readonly inputs: GraphInput[];
  readonly outputs: GraphOutput[];
}

export const emptyGraph = (): Graph => ({ nodes: [], values: [], inputs: [], outputs: [] });

/** The node that makes a value. */
export const producerOf = (graph: Graph, value: number): Node =>
  graph.nodes[graph.values[value]!.node]!;
