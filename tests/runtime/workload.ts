// Graphs that several runtime tests share.
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile, type Program, type Session } from "../../lib/runtime/program.js";
import type { Graph } from "../../lib/ir/graph.js";
import { trace } from "../../lib/trace/trace.js";

export const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

/** Products of square matrices, one after the other: about size^3 * 2 * depth operations. */
export const longGraph = (size: number, depth: number): Graph =>
  trace((t) => {
    const w = t.parameter({ name: "w", shape: [size, size], init: { kind: "zeros" } });
    let x = t.input("x", { shape: [size, size] });
    for (let i = 0; i < depth; i++) x = x.matmul(w).mul(0.5);
    t.output("y", x.sum());
  });

/** y = tanh(x w); p = p + 1. */
export const smallGraph = (): Graph =>
  trace((t) => {
    const x = t.input("x", { shape: [4, 8] });
    const w = t.parameter({ name: "w", shape: [8, 8], init: { kind: "zeros" } });
    const p = t.state("p", { shape: [8] });
    t.output("y", x.matmul(w).tanh());
    t.update("p", p.add(1));
  });

export interface Bound {
  program: Program;
  session: Session;
  buffers: Record<string, Buffer>;
  dispose(): void;
}

/** Compiles and binds zero buffers. */
export async function bindZeros(graph: Graph): Promise<Bound> {
  const program = await compile(graph);
  const buffers = Object.fromEntries(
    graph.inputs
      .filter(({ role }) => role !== "input")
      .map(({ name, value }) => [
        name,
        Buffer.alloc(graph.values[value]!.dtype, graph.values[value]!.shape),
      ]),
  );
  const session = await program.bind(buffers);
  const dispose = (): void => {
    session.dispose();
    program.dispose();
    Object.values(buffers).forEach((buffer) => buffer.dispose());
  };
  return { program, session, buffers, dispose };
}

/** Smallest of a few measurements: a busy machine makes single ones meaningless. */
export async function bestOf(attempts: number, measure: () => Promise<number>): Promise<number> {
  let best = Infinity;
  for (let i = 0; i < attempts; i++) best = Math.min(best, await measure());
  return best;
}
