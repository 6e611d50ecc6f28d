// Runs a function once on symbolic tensors and returns the graph it built.
import { DiffusionError, formatShape } from "../errors.js";
import { GraphBuilder } from "../ir/builder.js";
import type { DType } from "../ir/dtype.js";
import type { Attrs, Graph, Node, Role, Spec } from "../ir/graph.js";
import { formatSpec } from "../ir/op.js";
import type { ParamSpec } from "../ir/param.js";
import { mergeDuplicates } from "../ir/prune.js";
import { sameShape } from "../ir/shape.js";
import type { Shape } from "../ir/shape.js";
import { Tensor } from "./tensor.js";
import type { InputSpec, Trace } from "./tensor.js";

export type { InputSpec, Trace } from "./tensor.js";
export type { Role } from "../ir/graph.js";

export interface TraceOptions {
  /** Role of parameters: packed once for sampling, or updated by training. Default "weight". */
  parameters?: "weight" | "state";
  /** Float type; "f64" runs on the reference backend only. Default "f32". */
  dtype?: "f32" | "f64";
}

/** The graph of what `fn` declares, computes and names as outputs, without dead or repeated nodes. */
export function trace(fn: (t: Trace) => void, options: TraceOptions = {}): Graph {
  const t = new GraphTrace(options);
  fn(t);
  return mergeDuplicates(t.graph);
}

/** Longest list of constants that is looked up before it is appended again. */
const memoisedValues = 64;

/** A trace on a graph of its own; `trace` is the usual way to get one. */
export class GraphTrace implements Trace {
  readonly dtype: DType;
  readonly recorded = new Map<string, Tensor>();
  readonly #builder = new GraphBuilder();
  readonly #parameterRole: Role;
  readonly #tensors = new Map<number, Tensor>();
  readonly #constants = new Map<string, Tensor>();
  readonly #inputs = new Map<string, { tensor: Tensor; role: Role }>();
  #scope = "";

  constructor({ parameters = "weight", dtype = "f32" }: TraceOptions = {}) {
    this.dtype = dtype;
    this.#parameterRole = parameters;
  }

  get graph(): Graph {
    return this.#builder.graph;
  }

  input(name: string, spec: InputSpec): Tensor {
    return this.declare(name, "input", spec);
  }

  state(name: string, spec: InputSpec): Tensor {
    return this.declare(name, "state", spec);
  }

  parameter({ name, shape }: ParamSpec): Tensor {
    return this.declare(name, this.#parameterRole, { shape });
  }

  constant(value: number | readonly number[], shape?: Shape, dtype: DType = this.dtype): Tensor {
    const values = typeof value === "number" ? [value] : [...value];
    const attrs = {
      dtype: this.floating(dtype),
      shape: [...(shape ?? (typeof value === "number" ? [] : [values.length]))],
      values,
    };
    if (values.length > memoisedValues) return this.append("constant", [], attrs)[0]!;
    const key = `${attrs.dtype} ${attrs.shape.join()} ${values.map((v) => (Object.is(v, -0) ? "-0" : v)).join()}`;
    const known = this.#constants.get(key);
    if (known) return known;
    const made = this.append("constant", [], attrs)[0]!;
    this.#constants.set(key, made);
    return made;
  }

  output(name: string, x: Tensor): void {
    this.checkOwn("output", [x]);
    if (this.graph.outputs.some((output) => output.name === name)) {
      throw new DiffusionError("internal", `output: expected a new name, got "${name}" again`);
    }
    this.#builder.addOutput(name, x.id);
  }

  update(state: string, x: Tensor): void {
    this.checkOwn("update", [x]);
    const target = this.#inputs.get(state);
    if (target?.role !== "state") {
      throw new DiffusionError(
        "internal",
        `update: expected the name of a state, got "${state}"${target ? `, which is ${target.role}` : ""}`,
      );
    }
    if (target.tensor.dtype !== x.dtype || !sameShape(target.tensor.shape, x.shape)) {
      throw new DiffusionError(
        "shape",
        `update: expected ${formatSpec(target.tensor)} for ${state}, got ${formatSpec(x)}`,
      );
    }
    this.#builder.addOutput(state, x.id, state);
  }

  record(name: string, x: Tensor): void {
    this.recorded.set(name, x);
  }

  scoped<T>(name: string, fn: () => T): T {
    const outer = this.#scope;
    this.#scope = outer === "" || name === "" ? outer + name : `${outer}.${name}`;
    try {
      return fn();
    } finally {
      this.#scope = outer;
    }
  }

  append(op: string, inputs: readonly Tensor[], attrs: Attrs = {}): Tensor[] {
    this.checkOwn(op, inputs);
    const ids = inputs.map(({ id }) => id);
    return this.#builder.append(op, ids, attrs, this.#scope).map((id) => this.tensor(id));
  }

  /** Appends a node of another graph, whose outputs have these specs; gives their ids. */
  copy({ op, attrs, scope }: Node, inputs: readonly number[], specs: readonly Spec[]): number[] {
    return this.#builder.push(op, inputs, attrs, specs, scope);
  }

  tensor(id: number): Tensor {
    const known = this.#tensors.get(id);
    if (known) return known;
    const { dtype, shape } = this.#builder.spec(id);
    const made = new Tensor(this, id, dtype, shape);
    this.#tensors.set(id, made);
    return made;
  }

  floating(dtype: DType): DType {
    return dtype === "f32" ? this.dtype : dtype;
  }

  /** A graph input of any role, once for each name. */
  declare(name: string, role: Role, { shape, dtype = this.dtype }: InputSpec): Tensor {
    const spec = { shape, dtype: this.floating(dtype) };
    const known = this.#inputs.get(name);
    if (!known) {
      const tensor = this.tensor(this.#builder.declare(name, role, spec));
      this.#inputs.set(name, { tensor, role });
      return tensor;
    }
    const isSame = known.tensor.dtype === spec.dtype && sameShape(known.tensor.shape, shape);
    if (known.role === role && isSame) return known.tensor;
    throw new DiffusionError(
      "shape",
      `${role} ${name}: expected ${known.role} ${formatSpec(known.tensor)} as declared before, got ${role} ${formatSpec(spec)}`,
    );
  }

  private checkOwn(where: string, tensors: readonly Tensor[]): void {
    const stranger = tensors.find((x) => x.trace !== this);
    if (!stranger) return;
    throw new DiffusionError(
      "internal",
      `${where}: expected tensors of one trace, got ${stranger.dtype}${formatShape(stranger.shape)} of another`,
    );
  }
}
