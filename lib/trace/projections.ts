// Finds what makes the operands of an attention: products with weights, which may be joined and folded.
import { producerOf, type Graph, type Node } from "../ir/graph.js";

/** heads = reshape(x W + bias), all of it read once, a row to the heads of a token; the bias, and the sum that adds it, may be missing. */
export interface Projection {
  product: Node;
  sum: Node | undefined;
  bias: number | undefined;
  reshape: Node;
}

export class Projections {
  readonly #graph: Graph;
  /** By value: depends on weights and constants only. */
  readonly #isConstant: boolean[] = [];
  readonly #readers: Node[][];
  readonly #isReturned = new Set<number>();

  constructor(graph: Graph) {
    this.#graph = graph;
    this.#readers = graph.values.map(() => []);
    const isConstant = this.#isConstant;
    for (const { role, value } of graph.inputs) isConstant[value] = role === "weight";
    for (const node of graph.nodes) {
      for (const value of node.inputs) this.#readers[value]!.push(node);
      for (const value of node.outputs) isConstant[value] ??= node.inputs.every((id) => isConstant[id]); // prettier-ignore
    }
    for (const { value } of graph.outputs) this.#isReturned.add(value);
  }

  shapeOf(value: number): readonly number[] {
    return this.#graph.values[value]!.shape;
  }

  isRead(value: number): boolean {
    return this.#readers[value]!.length > 0 || this.#isReturned.has(value);
  }

  /** What makes the queries, keys or values of an attention. */
  of(heads: number): Projection | undefined {
    const reshape = this.#made(heads, "reshape");
    const sum = this.#made(reshape?.inputs[0], "add");
    const bias = sum?.inputs.find((id) => this.#isConstant[id] && this.shapeOf(id).length === 1);
    const product = this.#made(sum ? sum.inputs.find((id) => id !== bias) : reshape?.inputs[0], "matmul"); // prettier-ignore
    if (!reshape || !product || !this.#hasWeight(product)) return undefined;
    const width = this.shapeOf(product.outputs[0]!).at(-1)!;
    if (width !== this.#rowOf(heads)) return undefined;
    if (sum && (bias === undefined || this.shapeOf(bias)[0] !== width)) return undefined;
    return { product, sum, bias, reshape };
  }

  /** The product with a weight that alone reads what an attention gives, a token a row. */
  after(value: number): Node | undefined {
    const reshape = this.#reader(value, "reshape");
    if (!reshape || this.shapeOf(reshape.outputs[0]!).at(-1) !== this.#rowOf(value)) return undefined; // prettier-ignore
    const product = this.#reader(reshape.outputs[0]!, "matmul");
    if (!product || product.inputs[0] !== reshape.outputs[0]) return undefined;
    return this.#hasWeight(product) ? product : undefined;
  }

  /** Numbers of a token: heads times their width. */
  #rowOf(heads: number): number {
    const [, , H, D] = this.shapeOf(heads);
    return H! * D!;
  }

  #hasWeight({ inputs: [, weight], attrs }: Node): boolean {
    const isMatrix = this.#isConstant[weight!] && this.shapeOf(weight!).length === 2;
    return isMatrix === true && attrs["transposeA"] === false && attrs["transposeB"] === false;
  }

  #made(value: number | undefined, op: string): Node | undefined {
    if (value === undefined || this.#isReturned.has(value) || this.#readers[value]!.length !== 1)
      return undefined;
    const node = producerOf(this.#graph, value);
    return node.op === op ? node : undefined;
  }

  #reader(value: number, op: string): Node | undefined {
    const [reader, another] = this.#readers[value]!;
    return reader?.op === op && !another && !this.#isReturned.has(value) ? reader : undefined;
  }
}
