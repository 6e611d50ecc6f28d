// Traces a piece of mathematics, compiles it and runs it once on given values.
import { DiffusionError } from "../errors.js";
import { Buffer } from "../runtime/buffer.js";
import type { TensorData } from "../runtime/buffer.js";
import { compile } from "../runtime/program.js";
import type { Tensor } from "../trace/tensor.js";
import { trace } from "../trace/trace.js";
import type { Trace } from "../trace/trace.js";
import type { GoldenCase, Values } from "./case.js";

export type Tensors = Record<string, Tensor>;

/** Traced mathematics: named inputs in, named results out. */
export type Build = (trace: Trace, inputs: Tensors) => Tensors;

export interface Given {
  inputs?: Readonly<Record<string, Values>>;
  /** Parameters and state by our names. */
  parameters?: ReadonlyMap<string, Values>;
}

export type Evaluate = (build: Build, given: Given) => Promise<Record<string, Values>>;

/**
 * Computes the outputs of a case, in the case's names and layouts, from its config, inputs and
 * weights.
 */
export type GoldenRunner = (
  golden: GoldenCase,
  evaluate: Evaluate,
) => Promise<Record<string, Values>>;

const dtypeOf = (values: Values): "i32" | "f32" =>
  values.data instanceof Int32Array ? "i32" : "f32";

const asData = ({ data }: Values): Int32Array | Float32Array =>
  data instanceof Int32Array ? data : Float32Array.from(data);

const plain = (data: TensorData): Values["data"] =>
  data instanceof Float32Array || data instanceof Float64Array || data instanceof Int32Array
    ? data
    : Int32Array.from(data);

/** Evaluator on one instruction set; "" is the best one. */
export const evaluator =
  (isa: string): Evaluate =>
  async (build, { inputs = {}, parameters = new Map() }) => {
    const shapes = new Map<string, readonly number[]>();
    const graph = trace((t) => {
      const tensors = Object.fromEntries(
        Object.entries(inputs).map(([name, values]) => [
          name,
          t.input(name, { shape: values.shape, dtype: dtypeOf(values) }),
        ]),
      );
      for (const [name, result] of Object.entries(build(t, tensors))) {
        shapes.set(name, result.shape);
        t.output(name, result);
      }
    });
    const buffers: Record<string, Buffer> = {};
    for (const { name, role } of graph.inputs) {
      if (role === "input") continue;
      const values = parameters.get(name);
      if (!values)
        throw new DiffusionError("checkpoint", `parity: expected a value of ${name}, got none`);
      buffers[name] = Buffer.fromArray(asData(values), dtypeOf(values), values.shape);
    }
    using program = await compile(graph, isa === "" ? {} : { isa });
    using session = await program.bind(buffers);
    const results = await session.run(
      Object.fromEntries(Object.entries(inputs).map(([name, values]) => [name, asData(values)])),
    );
    Object.values(buffers).forEach((buffer) => buffer.dispose());
    return Object.fromEntries(
      Object.entries(results).map(([name, data]) => [
        name,
        { shape: shapes.get(name)!, data: plain(data) },
      ]),
    );
  };
