// The least time that this machine could need for a graph, from its shapes and two measured limits: multiply-adds a
// second, and bytes a second from memory.
import type { Graph, Node } from "../ir/graph.js";
import { sizeOf, type Shape } from "../ir/shape.js";
import { Buffer } from "../runtime/buffer.js";
import { measurePeak } from "../runtime/peak.js";
import { compile } from "../runtime/program.js";
import { foldProjections } from "../trace/fold.js";
import { trace } from "../trace/trace.js";
import type { BenchWorkload } from "./bench-workloads.js";

export interface Limits {
  /** GFLOP/s of multiply-adds in registers, all threads. */
  gflops: number;
  /** GB/s of reading, from memory and from the last cache. */
  memory: number;
  cache: number;
}

export interface Bound {
  /** 2 x multiply-adds of convolutions and matrix products, counted directly. */
  gflop: number;
  /** Milliseconds with every product as it stands. */
  directMs: number;
  /**
   * The same with 3x3 convolutions of stride 1 by the cheapest of direct, F(2x2) and F(4x4), and products of a weight by one
   * level of Strassen's algorithm, codes of 8 numbers and more by bytes; transforms cost nothing.
   */
  winogradMs: number;
}

/** Tensors that together exceed this come from memory. */
const cacheBytes = 16e6;

/** GB/s of one pass over a tensor by a sum of its rows. */
async function readRate(bytes: number): Promise<number> {
  const shape = [64, bytes / 4 / 64];
  const graph = trace((t) => t.output("sum", t.state("x", { shape }).sum([1])));
  using program = await compile(graph);
  using x = Buffer.alloc("f32", shape);
  using session = await program.bind({ x });
  let best = Infinity;
  for (let run = 0; run < 8; ++run) best = Math.min(best, await session.timedRun());
  return bytes / best / 1e6;
}

/** Measures this machine with the threads in use: the best of several runs. */
export async function measureLimits(threads: number): Promise<Limits> {
  const peak = Math.max(await measurePeak(100), await measurePeak(100), await measurePeak(100));
  return {
    gflops: peak * threads,
    memory: await readRate(2 ** 28),
    cache: await readRate(2 ** 22),
  };
}

/** Work of one node: multiply-adds, bytes of weights and of maps. */
interface Work {
  products: number;
  weightBytes: number;
  mapBytes: number;
  isWinograd?: boolean;
  isUpsampled?: boolean;
  isPaired?: boolean;
  isStrided?: boolean;
  /** Products of bytes decide most of it, four for one of floats. */
  isByBytes?: boolean;
}

const bytesOf = (...shapes: Shape[]): number =>
  shapes.reduce((sum, shape) => sum + 4 * sizeOf(shape), 0);

type Count = (inputs: Shape[], outputs: Shape[], node: Node, isWeight: boolean[]) => Work;

const convolution: Count = ([x, w], [y], { attrs }) => {
  const [h, v, from, to] = w as [number, number, number, number];
  const stride = attrs["stride"] as number[];
  const isStep = (size: number): boolean => stride.every((step) => step === size);
  return {
    products: sizeOf(y!) * h * v * from,
    weightBytes: bytesOf(w!),
    mapBytes: bytesOf(x!, y!),
    isWinograd: h === 3 && v === 3 && (isStep(1) || isStep(2)) && from >= 16 && to >= 16,
    isUpsampled: attrs["upsample"] === 2,
    isStrided: isStep(2),
  };
};

const product: Count = ([a, b], [y], { attrs }, [, isWeight]) => ({
  products: sizeOf(y!) * (attrs["transposeA"] === true ? a!.at(-2)! : a!.at(-1)!),
  weightBytes: isWeight ? bytesOf(b!) : 0,
  mapBytes: isWeight ? bytesOf(a!, y!) : 0,
  isPaired: isWeight === true,
});

const counts: Readonly<Record<string, Count>> = {
  conv2d: convolution,
  matmul: product,
  attention: ([q, k, v]) => ({
    products: (sizeOf(q!) + (sizeOf(q!) / q!.at(-1)!) * v!.at(-1)!) * k![1]!,
    weightBytes: 0,
    mapBytes: 0,
  }),
  nearestCodes: ([z, codes]) => ({
    products: sizeOf(z!) * codes![0]!,
    weightBytes: bytesOf(codes!),
    mapBytes: bytesOf(z!),
    isByBytes: codes![1]! >= 8,
  }),
};

/** Graph inputs that a value is made of by reshaping alone are read where they lie. */
function isMadeOfWeights(graph: Graph): boolean[] {
  const roles = new Map(graph.inputs.map(({ value, role }) => [value, role]));
  const known: boolean[] = [];
  for (const { id, node } of graph.values) {
    const { inputs } = graph.nodes[node]!;
    const role = roles.get(id);
    known[id] = role ? role === "weight" : inputs.length > 0 && inputs.every((i) => known[i]);
  }
  return known;
}

/** Milliseconds for products and bytes, whichever takes longer. */
const cost = (work: Work, limits: Limits, fewer: number, moreWeights: number): number => {
  const bytes = work.weightBytes * moreWeights + (work.mapBytes > cacheBytes ? work.mapBytes : 0);
  const flop = (2 * work.products) / fewer;
  return Math.max(flop / limits.gflops / 1e6, bytes / limits.memory / 1e6);
};

/** Reading what a graph without products reads and writing what it writes. */
function passMs(graph: Graph, limits: Limits): number {
  const ids = [...graph.inputs, ...graph.outputs.filter(({ updates }) => updates)];
  const bytes = ids.reduce((sum, { value }) => sum + bytesOf(graph.values[value]!.shape), 0);
  return bytes / (bytes > cacheBytes ? limits.memory : limits.cache) / 1e6;
}

/** A step costs three forward passes: itself, and the gradients of inputs and of weights. */
const passesOf = { network: 1, kernel: 1, training: 3 } as const;

/**
 * Lower bounds of one run; normalisations, activations and sums are taken as fused. The direct one has every product of the
 * graph, the other one those that are left when projections are folded, which weights that change do not allow.
 */
export function boundOf({ kind, forward }: BenchWorkload, limits: Limits): Bound {
  const graph = forward();
  const bound = graphBound(graph, limits);
  if (kind === "network") bound.winogradMs = graphBound(foldProjections(graph), limits).winogradMs;
  if (bound.gflop === 0) bound.directMs = bound.winogradMs = passMs(graph, limits);
  const passes = passesOf[kind];
  return {
    gflop: passes * bound.gflop,
    directMs: passes * bound.directMs,
    winogradMs: passes * bound.winogradMs,
  };
}

function graphBound(graph: Graph, limits: Limits): Bound {
  const isWeight = isMadeOfWeights(graph);
  const shapes = (ids: readonly number[]): Shape[] => ids.map((id) => graph.values[id]!.shape);
  const bound = { gflop: 0, directMs: 0, winogradMs: 0 };
  for (const node of graph.nodes) {
    const count = counts[node.op];
    if (!count) continue;
    const flags = node.inputs.map((id) => isWeight[id]!);
    if (flags.every(Boolean)) continue;
    const work = count(shapes(node.inputs), shapes(node.outputs), node, flags);
    const direct = cost(work, limits, 1, 1);
    bound.gflop += (2 * work.products) / 1e9;
    bound.directMs += direct;
    // F(m x m): 9 m^2 / (m + 2)^2 times fewer products, (m + 2)^2 / 9 times the weights
    const tiles = work.isStrided
      ? [cost(work, limits, 81 / 49, 49 / 9)]
      : [cost(work, limits, 2.25, 16 / 9), cost(work, limits, 4, 4)];
    if (work.isUpsampled) tiles.push(cost(work, limits, 5.76, 25 / 9)); // 25 products for 16 results
    const paired = cost(work, limits, 3 / 2, 1); // two thirds of the multiply-adds, as many additions beside them
    const byBytes = cost(work, limits, 4, 1);
    const fewer = work.isWinograd ? tiles : work.isPaired ? [paired] : work.isByBytes ? [byBytes] : []; // prettier-ignore
    bound.winogradMs += Math.min(direct, ...fewer);
  }
  return bound;
}
