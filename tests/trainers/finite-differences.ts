// Gradients of a training loss against central differences, in float64 on the reference backend: along one random direction
// for each parameter.
import { expect } from "vitest";
import { gradients } from "../../lib/autodiff/differentiate.js";
import type { ParamSpec } from "../../lib/ir/param.js";
import { normalStream } from "../../lib/nn/random.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace, type InputSpec, type Trace } from "../../lib/trace/trace.js";

export interface LossUnderTest {
  parameters: readonly ParamSpec[];
  /** States that the loss reads and no gradient moves. */
  states?: readonly ParamSpec[];
  inputs: Readonly<Record<string, InputSpec>>;
  values: Readonly<Record<string, Int32Array | Float64Array>>;
  loss: (t: Trace, inputs: Record<string, Tensor>) => Tensor;
}

const count = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Normal draws of a named stream. */
export const draws = (name: string, shape: readonly number[], deviation = 1): Float64Array =>
  normalStream(11, name, count(shape)).map((value) => deviation * value);

function lossGraph({ parameters, inputs, loss }: LossUnderTest) {
  return trace(
    (t) => {
      const given = Object.fromEntries(
        Object.entries(inputs).map(([name, spec]) => [name, t.input(name, spec)]),
      );
      const value = loss(t, given);
      const found = gradients(value, parameters.map((spec) => t.parameter(spec))); // prettier-ignore
      t.output("loss", value);
      found.forEach((gradient, i) => t.output(`d.${parameters[i]!.name}`, gradient));
    },
    { parameters: "state", dtype: "f64" },
  );
}

/**
 * Expects every directional derivative within `tolerance` of its central difference, relative to the larger one or to a
 * thousandth of the loss, whose rounding limits the difference.
 */
export async function expectTrueGradients(test: LossUnderTest, tolerance = 1e-5): Promise<void> {
  using program = await compile(lossGraph(test), { isa: "ref" });
  const all = [...test.parameters, ...(test.states ?? [])];
  const start = new Map(all.map(({ name, shape }) => [name, draws(name, shape, 0.3)]));
  const buffers = Object.fromEntries(
    all.map(({ name, shape }) => [name, Buffer.fromArray(start.get(name)!, "f64", shape)]),
  );
  using session = await program.bind(buffers);
  const at = async ({ name, shape }: ParamSpec, step: number): Promise<number> => {
    const direction = draws(`direction ${name}`, shape);
    buffers[name]!.write(start.get(name)!.map((value, i) => value + step * direction[i]!));
    return Number((await session.run(test.values))["loss"]![0]);
  };
  const exact = await session.run(test.values);
  const h = 1e-6;
  const least = 1e-3 * Math.max(1, Math.abs(Number(exact["loss"]![0])));
  for (const spec of test.parameters) {
    const direction = draws(`direction ${spec.name}`, spec.shape);
    const gradient = exact[`d.${spec.name}`]!;
    const slope = direction.reduce((sum, value, i) => sum + value * Number(gradient[i]), 0);
    const difference = ((await at(spec, h)) - (await at(spec, -h))) / (2 * h);
    await at(spec, 0);
    const scale = Math.max(Math.abs(slope), Math.abs(difference), least);
    expect(Math.abs(slope - difference) / scale, spec.name).toBeLessThan(tolerance);
  }
  Object.values(buffers).forEach((buffer) => buffer.dispose());
}
