// The symbolic tensor: a value of a graph under construction. Methods append a node and return its result.
import type { DType } from "../ir/dtype.js";
import type { Attrs, Graph } from "../ir/graph.js";
import type { ParamSpec } from "../ir/param.js";
import { adjacentRuns, normalizeAxes, normalizeAxis, sizeOf } from "../ir/shape.js";
import type { Shape } from "../ir/shape.js";

export interface InputSpec {
  readonly shape: Shape;
  /** Default: the float type of the trace. In an f64 trace "f32" means f64 too. */
  readonly dtype?: DType;
}

/** A graph under construction, as the functions of a model see it (implemented in trace.ts). */
export interface Trace {
  readonly graph: Graph;
  /** The float type of this trace; "f64" is the oracle's. */
  readonly dtype: DType;
  /** Intermediate values by the names given to `record`. */
  readonly recorded: ReadonlyMap<string, Tensor>;
  /** A value given at each run; the same name and spec give the same tensor. */
  input(name: string, spec: InputSpec): Tensor;
  /** A native buffer that `update` may write. */
  state(name: string, spec: InputSpec): Tensor;
  /** A model's parameter: a graph input of that name in the role that the trace gives to parameters. */
  parameter(spec: ParamSpec): Tensor;
  /** A number in every place of `shape` (default scalar), or a list that fills it (default: one axis). */
  constant(value: number | readonly number[], shape?: Shape, dtype?: DType): Tensor;
  /** Returns x after each run under this name. */
  output(name: string, x: Tensor): void;
  /** Makes x the content of the state after the run. */
  update(state: string, x: Tensor): void;
  /** Names an intermediate value, so that it can be tapped; the last of a name counts. */
  record(name: string, x: Tensor): void;
  /** Runs fn with `name` appended to the scope of the nodes it makes. */
  scoped<T>(name: string, fn: () => T): T;
  /** Appends a node of any op. */
  append(op: string, inputs: readonly Tensor[], attrs?: Attrs): Tensor[];
  /** The tensor of a value of this trace's graph. */
  tensor(id: number): Tensor;
  /** f32 in the float type of this trace; other types as they are. */
  floating(dtype: DType): DType;
}

/** Axes to reduce: one, several, or all when left out; negative ones count from the end. */
export type Axes = number | readonly number[];

export class Tensor {
  constructor(
    readonly trace: Trace,
    /** Index of the value in the trace's graph. */
    readonly id: number,
    readonly dtype: DType,
    readonly shape: Shape,
  ) {}

  get rank(): number {
    return this.shape.length;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  neg(): Tensor {
    return this.unary("neg");
  }

  abs(): Tensor {
    return this.unary("abs");
  }

  exp(): Tensor {
    return this.unary("exp");
  }

  log(): Tensor {
    return this.unary("log");
  }

  log1p(): Tensor {
    return this.unary("log1p");
  }

  sqrt(): Tensor {
    return this.unary("sqrt");
  }

  rsqrt(): Tensor {
    return this.unary("rsqrt");
  }

  reciprocal(): Tensor {
    return this.unary("reciprocal");
  }

  square(): Tensor {
    return this.unary("square");
  }

  sin(): Tensor {
    return this.unary("sin");
  }

  cos(): Tensor {
    return this.unary("cos");
  }

  tanh(): Tensor {
    return this.unary("tanh");
  }

  sigmoid(): Tensor {
    return this.unary("sigmoid");
  }

  silu(): Tensor {
    return this.unary("silu");
  }

  gelu(): Tensor {
    return this.unary("gelu");
  }

  geluTanh(): Tensor {
    return this.unary("geluTanh");
  }

  quickGelu(): Tensor {
    return this.unary("quickGelu");
  }

  relu(): Tensor {
    return this.unary("relu");
  }

  softplus(): Tensor {
    return this.unary("softplus");
  }

  erf(): Tensor {
    return this.unary("erf");
  }

  floor(): Tensor {
    return this.unary("floor");
  }

  ceil(): Tensor {
    return this.unary("ceil");
  }

  round(): Tensor {
    return this.unary("round");
  }

  sign(): Tensor {
    return this.unary("sign");
  }

  isFinite(): Tensor {
    return this.unary("isFinite");
  }

  logicalNot(): Tensor {
    return this.unary("logicalNot");
  }

  add(b: Tensor | number): Tensor {
    return this.binary("add", b);
  }

  sub(b: Tensor | number): Tensor {
    return this.binary("sub", b);
  }

  mul(b: Tensor | number): Tensor {
    return this.binary("mul", b);
  }

  div(b: Tensor | number): Tensor {
    return this.binary("div", b);
  }

  pow(b: Tensor | number): Tensor {
    return this.binary("pow", b);
  }

  maximum(b: Tensor | number): Tensor {
    return this.binary("maximum", b);
  }

  minimum(b: Tensor | number): Tensor {
    return this.binary("minimum", b);
  }

  mod(b: Tensor | number): Tensor {
    return this.binary("mod", b);
  }

  equal(b: Tensor | number): Tensor {
    return this.binary("equal", b);
  }

  less(b: Tensor | number): Tensor {
    return this.binary("less", b);
  }

  lessEqual(b: Tensor | number): Tensor {
    return this.binary("lessEqual", b);
  }

  greater(b: Tensor | number): Tensor {
    return this.operand(b).less(this);
  }

  greaterEqual(b: Tensor | number): Tensor {
    return this.operand(b).lessEqual(this);
  }

  logicalAnd(b: Tensor): Tensor {
    return this.binary("logicalAnd", b);
  }

  logicalOr(b: Tensor): Tensor {
    return this.binary("logicalOr", b);
  }

  leakyRelu(slope: number): Tensor {
    return this.unary("leakyRelu", { slope });
  }

  clamp(min: number, max: number): Tensor {
    return this.unary("clamp", { min, max });
  }

  /** This tensor where the condition holds, else b. */
  where(condition: Tensor, b: Tensor | number): Tensor {
    return this.single("where", [condition, this, this.operand(b)]);
  }

  /** No node when the type is the same. */
  cast(dtype: DType): Tensor {
    const target = this.trace.floating(dtype);
    return target === this.dtype ? this : this.unary("cast", { dtype: target });
  }

  sum(axes?: Axes, keepDims = false): Tensor {
    return this.reduce("sum", axes, keepDims);
  }

  mean(axes?: Axes, keepDims = false): Tensor {
    return this.reduce("mean", axes, keepDims);
  }

  max(axes?: Axes, keepDims = false): Tensor {
    return this.reduce("max", axes, keepDims);
  }

  min(axes?: Axes, keepDims = false): Tensor {
    return this.reduce("min", axes, keepDims);
  }

  prod(axes?: Axes, keepDims = false): Tensor {
    return this.reduce("prod", axes, keepDims);
  }

  sumSquares(axes?: Axes, keepDims = false): Tensor {
    const isWhole = normalizeAxes("sumSquares", axes, this.rank).length > 0;
    return isWhole ? this.reduce("sumSquares", axes, keepDims, "sum") : this.square();
  }

  /** Index of the largest element along the last axis; the lowest of equal ones. */
  argMax(): Tensor {
    return this.unary("argMax");
  }

  argMin(): Tensor {
    return this.unary("argMin");
  }

  /** Running sum along the last axis; with `reverse`, from its end. */
  cumulativeSum({ reverse = false }: { reverse?: boolean } = {}): Tensor {
    return this.unary("cumulativeSum", { reverse });
  }

  /** One size may be -1: what is left. */
  reshape(shape: Shape): Tensor {
    const known = shape.reduce((product, n) => (n === -1 ? product : product * n), 1);
    return this.unary("reshape", { shape: shape.map((n) => (n === -1 ? this.size / known : n)) });
  }

  /** Axis i of the result is axis permutation[i] of this. */
  transpose(permutation: readonly number[]): Tensor {
    return this.unary("transpose", { permutation: [...permutation] });
  }

  /** Elements starts + i * strides, i < sizes; strides default to 1. */
  slice(
    starts: readonly number[],
    sizes: Shape,
    strides: readonly number[] = sizes.map(() => 1),
  ): Tensor {
    return this.unary("slice", { starts: [...starts], sizes: [...sizes], strides: [...strides] });
  }

  broadcastTo(shape: Shape): Tensor {
    return this.unary("broadcastTo", { shape: [...shape] });
  }

  /** Rows of this table along `axis` (default 0) by i32 index; indices outside are clamped. */
  gather(indices: Tensor, axis = 0): Tensor {
    return this.single("gather", [this, indices], {
      axis: normalizeAxis("gather", axis, this.rank),
    });
  }

  matmul(b: Tensor, { transposeA = false, transposeB = false }: MatmulOptions = {}): Tensor {
    return this.single("matmul", [this, b], { transposeA, transposeB });
  }

  /** A number as a constant of this tensor's type. */
  operand(b: Tensor | number): Tensor {
    return typeof b === "number" ? this.trace.constant(b, [], this.dtype) : b;
  }

  /** The result of a node with one output. */
  private single(op: string, inputs: readonly Tensor[], attrs: Attrs = {}): Tensor {
    return this.trace.append(op, inputs, attrs)[0]!;
  }

  private unary(op: string, attrs: Attrs = {}): Tensor {
    return this.single(op, [this], attrs);
  }

  private binary(op: string, b: Tensor | number): Tensor {
    return this.single(op, [this, this.operand(b)]);
  }

  /** Ops reduce one run of adjacent axes; other sets are reduced run by run, the last first, later runs by `then`. */
  private reduce(op: string, axes: Axes | undefined, keepDims: boolean, then = op): Tensor {
    const runs = adjacentRuns(normalizeAxes(op, axes, this.rank)).reverse();
    return runs.reduce<Tensor>(
      (x, run, i) => x.unary(i === 0 ? op : then, { axes: run, keepDims }),
      this,
    );
  }
}

export interface MatmulOptions {
  /** The last two axes of a are stored swapped; default false. */
  transposeA?: boolean;
  /** The last two axes of b are stored swapped; default false. */
  transposeB?: boolean;
}
