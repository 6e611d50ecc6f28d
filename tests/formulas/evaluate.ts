// Runs a few tensor functions once on the reference backend in float64, the oracle.
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace } from "../../lib/trace/trace.js";
import type { Trace } from "../../lib/trace/trace.js";

export interface Given {
  shape: readonly number[];
  data: readonly number[] | Float64Array;
  dtype?: "f64" | "i32";
}

export const f64 = (shape: readonly number[], data: readonly number[] | Float32Array): Given => ({
  shape,
  data: Float64Array.from(data),
});

export const i32 = (shape: readonly number[], data: readonly number[]): Given => ({
  shape,
  data,
  dtype: "i32",
});

/** Results by name, as plain numbers. */
export async function evaluate(
  build: (t: Trace, inputs: Record<string, Tensor>) => Record<string, Tensor>,
  inputs: Record<string, Given>,
  parameters: ReadonlyMap<string, Given> = new Map(),
): Promise<Record<string, number[]>> {
  const graph = trace(
    (t) => {
      const tensors = Object.entries(inputs).map(([name, { shape, dtype = "f64" }]) => [
        name,
        t.input(name, { shape, dtype }),
      ]);
      const results = build(t, Object.fromEntries(tensors) as Record<string, Tensor>);
      for (const [name, result] of Object.entries(results)) t.output(name, result);
    },
    { dtype: "f64" },
  );
  using program = await compile(graph, { isa: "ref" });
  const weights = graph.inputs.filter(({ role }) => role !== "input");
  const buffers = weights.map(({ name }): [string, Buffer] => {
    const { shape, data } = parameters.get(name)!;
    return [name, Buffer.fromArray(Float64Array.from(data), "f64", shape)];
  });
  using session = await program.bind(Object.fromEntries(buffers));
  const data = Object.entries(inputs).map(([name, { data: values, dtype }]) => [
    name,
    dtype === "i32" ? Int32Array.from(values) : Float64Array.from(values),
  ]);
  const results = await session.run(
    Object.fromEntries(data) as Record<string, Int32Array | Float64Array>,
  );
  for (const [, buffer] of buffers) buffer.dispose();
  return Object.fromEntries(
    Object.entries(results).map(([name, values]) => [name, Array.from(values, Number)]),
  );
}
