// Runs cases: traces one, compiles it for a backend, feeds it the case's numbers, and compares results.
import type { DType } from "../../lib/ir/dtype.js";
import type { Graph } from "../../lib/ir/graph.js";
import type { TensorData } from "../../lib/runtime/buffer.js";
import { describeBackends } from "../../lib/runtime/device.js";
import { compile } from "../../lib/runtime/program.js";
import type { Tensor } from "../../lib/trace/tensor.js";
import { trace } from "../../lib/trace/trace.js";
import type { Trace } from "../../lib/trace/trace.js";
import { caseName } from "./cases.js";
import type { OpCase } from "./cases.js";
import { hashName, valuesOf } from "./operand.js";
import type { Operand } from "./operand.js";

export type Real = "f32" | "f64";
export type Feeds = Record<string, TensorData>;

/** The reference backend and every instruction set of this machine. */
export const backends: readonly string[] = ["ref", ...(describeBackends().cpu?.isas ?? [])];

/** Those that have the kernels of "avx512" but for these ops. */
const differing: Record<string, RegExp> = {
  amx: /^(matmul|conv2d|attention)/,
  zen4: /^(matmul|attention)/,
};

/** Those with kernels of their own for an op. */
export const backendsOf = (op: string): readonly string[] =>
  backends.filter((isa) => differing[isa]?.test(op) ?? true);

/** Those with kernels of their own for all ops. */
export const ownBackends = backends.filter((isa) => !(isa in differing));

export const dtypeOf = (operand: Operand, dtype: Real): DType =>
  operand.dtype === "real" ? dtype : operand.dtype;

export function typedArray(dtype: DType, values: readonly number[]): TensorData {
  switch (dtype) {
    case "f32":
      return Float32Array.from(values);
    case "f64":
      return Float64Array.from(values);
    case "i32":
      return Int32Array.from(values);
    case "u8":
    case "bool":
      return Uint8Array.from(values);
    case "f16":
    case "bf16":
      return Uint16Array.from(values);
  }
}

export const seedOf = (c: OpCase, operand: number): number => hashName(`${caseName(c)} ${operand}`);

/** The numbers of each input, by name x0, x1, … */
export function feedsOf(c: OpCase, dtype: Real): Feeds {
  return Object.fromEntries(
    c.inputs.map((operand, i) => [
      `x${i}`,
      typedArray(dtypeOf(operand, dtype), valuesOf(operand, seedOf(c, i))),
    ]),
  );
}

/** Inputs x0, x1, … and the op on them. */
export function applyCase(
  t: Trace,
  c: OpCase,
  dtype: Real,
): { inputs: Tensor[]; outputs: Tensor[] } {
  const inputs = c.inputs.map((operand, i) =>
    t.input(`x${i}`, { shape: [...operand.shape], dtype: dtypeOf(operand, dtype) }),
  );
  return { inputs, outputs: t.append(c.op, inputs, c.attrs ?? {}) };
}

/** Outputs y0, y1, … of the op. */
export function forwardGraph(c: OpCase, dtype: Real): Graph {
  return trace((t) => applyCase(t, c, dtype).outputs.forEach((y, i) => t.output(`y${i}`, y)), {
    dtype,
  });
}

export interface Runner {
  run(feeds: Feeds): Promise<Feeds>;
  dispose(): void;
}

export async function runner(graph: Graph, isa: string): Promise<Runner> {
  const program = await compile(graph, { isa });
  const session = await program.bind({});
  return {
    run: (feeds) => session.run(feeds),
    dispose: () => {
      session.dispose();
      program.dispose();
    },
  };
}

export async function run(graph: Graph, isa: string, feeds: Feeds): Promise<Feeds> {
  const runs = await runner(graph, isa);
  try {
    return await runs.run(feeds);
  } finally {
    runs.dispose();
  }
}

export const isReal = (data: TensorData): boolean =>
  data instanceof Float32Array || data instanceof Float64Array;

const f32Epsilon = 2 ** -23;

/** Multiple of the rounding unit that any evaluation may be off: sums in another order, a short polynomial. */
const floorUnits = 8;

export interface Comparison {
  readonly isElementwise?: boolean;
  readonly slack?: number;
}

/**
 * The tolerance, stated once: |ours - f64| <= 2 |plain f32 - f64| + floor, both relative to the tensor: the error of plain
 * f32 is its largest over the tensor, and the floor is a few rounding units of the tensor's largest element (with
 * `isElementwise`: of the element itself). One limit per element; NaN where f32 has no finite value, so that ours must be
 * exactly what f64 rounds to.
 */
export function limitsOf(
  plain: TensorData,
  exact: TensorData,
  { isElementwise = false, slack = 1 }: Comparison = {},
): Float64Array {
  const scale = largest(exact, (x) => x);
  const plainError = isElementwise ? 0 : largest(exact, (x, i) => x - plain[i]!);
  return Float64Array.from(exact, (e, i) => {
    if (!Number.isFinite(e) || Math.abs(e) > 3.4e38) return NaN;
    const base = isElementwise ? 2 * Math.abs(e - plain[i]!) : 2 * plainError;
    const unit = (isElementwise ? Math.abs(e) : scale) * f32Epsilon;
    return base + slack * floorUnits * unit + 1e-37;
  });
}

/** The first element of `ours` that is further from `exact` than its limit, as text, or undefined. */
export function excess(
  ours: TensorData,
  plain: TensorData,
  exact: TensorData,
  comparison: Comparison = {},
): string | undefined {
  const limits = limitsOf(plain, exact, comparison);
  for (let i = 0; i < exact.length; i++) {
    const [a, e, limit] = [ours[i]!, exact[i]!, limits[i]!];
    if (Number.isNaN(limit)) {
      if (!Object.is(a, Math.fround(e))) return `element ${i}: expected ${e}, got ${a}`;
    } else if (!(Math.abs(a - e) <= limit)) {
      return `element ${i}: expected ${e}, got ${a}, off by ${Math.abs(a - e)} > ${limit}`;
    }
  }
  return undefined;
}

function largest(data: TensorData, of: (x: number, i: number) => number): number {
  let most = 0;
  for (let i = 0; i < data.length; i++) {
    const size = Math.abs(of(data[i]!, i));
    if (Number.isFinite(size) && size > most) most = size;
  }
  return most;
}
