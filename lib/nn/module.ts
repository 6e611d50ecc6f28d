// Named parameters: a scope hands out specs by dotted path and remembers them in order of creation.
// Layers are closures on a scope; nothing here holds values.
import { DiffusionError } from "../errors.js";
import type { Init, ParamSpec } from "../ir/param.js";
import { sizeOf, type Shape } from "../ir/shape.js";

interface Registry {
  readonly parameters: Map<string, ParamSpec>;
  readonly state: Map<string, ParamSpec>;
}

/** A place in the tree of named parameters. */
export class ParamScope {
  readonly path: string;
  readonly #registry: Registry;

  constructor(path = "", registry: Registry = { parameters: new Map(), state: new Map() }) {
    this.path = path;
    this.#registry = registry;
  }

  child(name: string | number): ParamScope {
    return new ParamScope(this.nameOf(String(name)), this.#registry);
  }

  /** A trained parameter. */
  param(name: string, shape: Shape, init: Init): ParamSpec {
    return this.#add(this.#registry.parameters, name, shape, init);
  }

  /** State that is kept but not trained, such as running statistics. */
  state(name: string, shape: Shape, init: Init): ParamSpec {
    return this.#add(this.#registry.state, name, shape, init);
  }

  nameOf(name: string): string {
    return this.path === "" ? name : `${this.path}.${name}`;
  }

  /** Parameters at or below this scope, in order of creation. */
  specs(): ParamSpec[] {
    return this.#below(this.#registry.parameters);
  }

  /** Untrained state at or below this scope, in order of creation. */
  states(): ParamSpec[] {
    return this.#below(this.#registry.state);
  }

  #below(specs: Map<string, ParamSpec>): ParamSpec[] {
    const prefix = this.path === "" ? "" : `${this.path}.`;
    return [...specs.values()].filter(({ name }) => name.startsWith(prefix));
  }

  #add(into: Map<string, ParamSpec>, name: string, shape: Shape, init: Init): ParamSpec {
    const spec: ParamSpec = { name: this.nameOf(name), shape, init };
    if (this.#registry.parameters.has(spec.name) || this.#registry.state.has(spec.name)) {
      throw new DiffusionError(
        "internal",
        `ParamScope: expected a new parameter name, got ${spec.name} again`,
      );
    }
    into.set(spec.name, spec);
    return spec;
  }
}

/** Number of values in a list of parameters. */
export const parameterCount = (specs: readonly ParamSpec[]): number =>
  specs.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
