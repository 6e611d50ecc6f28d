// What a published family of checkpoints looks like, as data: how its tensors are recognised, which configuration
// their shapes show, which facts they do not show, and the key map into our names. One entry a layout, listed in
// families.ts.
import { DiffusionError, formatShape } from "../errors.js";
import type { ParamSpec } from "../ir/param.js";
import type { KeyMap } from "../nn/key-map.js";
import type { Rule } from "./check-config.js";
import type { DiffusionProcess, Spacing } from "./diffusion-process.js";

/** A fact that names and shapes do not show, such as a number of heads. */
export interface Fact {
  /** What it is, in a few words; shown when it is asked for. */
  what: string;
  rule: Rule;
  /**
   * Set when every checkpoint of this layout has the same value because the original code has no
   * other; it is named in the output and can be overruled. Leave it out to have the fact asked for.
   */
  fixed?: unknown;
}

/** Facts by name, from the user, from a configuration file, or fixed. */
export type FactValues = Readonly<Record<string, unknown>>;

/** A parsed configuration file of the original (diffusers config.json, a project's yaml). */
export type ConfigFile = Readonly<Record<string, unknown>>;

/** How the original code samples by default; the names are those of DiffusionSampling. */
export interface PublishedSampling {
  sampler: string;
  steps: number;
  spacing: Spacing;
  guidanceScale: number;
  guidanceChannels?: number;
  clamp?: boolean;
  rederive?: boolean;
}

/** What follows from the facts of a denoiser. */
export interface PublishedSettings {
  process: DiffusionProcess;
  defaults: PublishedSampling;
  /** Height and width of the state, where the network does not say. */
  size?: readonly [number, number];
  latentScale?: number;
}

/** Facts of a network that only a pipeline needs; those that nothing fixes are asked for. */
export interface PipelineFacts {
  facts: Readonly<Record<string, Fact>>;
  /** Facts that a configuration decides. */
  decided?(config: object): FactValues;
  readConfig?(file: ConfigFile): Record<string, unknown> | undefined;
  /** Of a denoiser. */
  settings?(config: object, facts: FactValues): PublishedSettings;
}

export interface Family {
  /** Kebab case, e.g. "taming-vqgan". */
  name: string;
  /** One line for people: architecture and code base. */
  title: string;
  /** Model name of pipeline.json, e.g. "vqgan". */
  model: string;
  /** Component name in our folder. */
  role: "codec" | "model" | "text-encoder" | "class-embedder" | "discriminator" | "perceptual";
  /**
   * Whether the names may begin at once, outside all places, or only where a name matches; default true. A family that is
   * asked for by name is looked for there too.
   */
  whole?: boolean | RegExp;
  /**
   * Where the tensors may lie in a bigger checkpoint: the matched start of a name is cut off and
   * other names do not belong to this part. Tried in order; default only the whole checkpoint.
   */
  places?: readonly RegExp[];
  /** Each must match a name (after cutting). */
  marks: readonly RegExp[];
  /** None may match a name. */
  absent?: readonly RegExp[];
  facts: Readonly<Record<string, Fact>>;
  /**
   * Facts, and any other keys of our configuration, that a configuration file of the original says.
   * Return undefined when the file is not of this family; throw "option" for a setting that our
   * model does not have. Keys that are no facts are compared with what the shapes show.
   */
  readConfig?(file: ConfigFile): Record<string, unknown> | undefined;
  /** Our configuration. Every fact is present in `facts`. Throws through `shapes` when tensors are missing. */
  configure(shapes: ShapeView, facts: FactValues): object;
  /** Foreign names -> ours. */
  keys(config: object, shapes: ShapeView): KeyMap;
  /** What the model needs. Must not allocate. */
  build(config: object): { parameters: readonly ParamSpec[]; states?: readonly ParamSpec[] };
  /** What a pipeline of it has to know beyond the network. */
  pipeline?: PipelineFacts;
  /** Configurations with a name, to recognise: a subset of the keys of our configuration each. */
  published?: Readonly<Record<string, object>>;
}

/** Names and shapes of the tensors of one model, with questions that families ask. */
export class ShapeView {
  constructor(
    readonly where: string,
    readonly shapes: ReadonlyMap<string, readonly number[]>,
  ) {}

  has(name: string): boolean {
    return this.shapes.has(name);
  }

  some(pattern: RegExp): boolean {
    for (const name of this.shapes.keys()) if (pattern.test(name)) return true;
    return false;
  }

  /** Shape of a tensor. Throws "checkpoint" when there is none, or none with `rank` axes. */
  shape(name: string, rank?: number): readonly number[] {
    const shape = this.shapes.get(name);
    if (shape && (rank === undefined || shape.length === rank)) return shape;
    throw new DiffusionError(
      "checkpoint",
      `${this.where}: expected a tensor "${name}"${rank === undefined ? "" : ` with ${rank} axes`}, got ${shape ? formatShape(shape) : "none"}`,
    );
  }

  /** Extent of one axis. Throws "checkpoint" when there is no such tensor or axis. */
  extent(name: string, axis: number): number {
    const shape = this.shape(name);
    const extent = shape[axis];
    if (extent !== undefined) return extent;
    throw new DiffusionError(
      "checkpoint",
      `${this.where}: expected "${name}" with more than ${axis} axes, got ${formatShape(shape)}`,
    );
  }

  /** How many different numbers the first group of the pattern takes, e.g. /^blocks\.(\d+)\./. */
  count(pattern: RegExp): number {
    const found = new Set<string>();
    for (const name of this.shapes.keys()) {
      const index = pattern.exec(name)?.[1];
      if (index !== undefined) found.add(index);
    }
    return found.size;
  }

  /** The same tensors under other names; those without one are left out. */
  renamed(name: (theirs: string, shape: readonly number[]) => string | undefined): ShapeView {
    const entries = [...this.shapes].flatMap(([theirs, shape]): [string, readonly number[]][] => {
      const ours = name(theirs, shape);
      return ours === undefined ? [] : [[ours, shape]];
    });
    return new ShapeView(this.where, new Map(entries));
  }

  /** A whole quotient. Throws "checkpoint" naming `what` when there is a rest. */
  ratio(a: number, b: number, what: string): number {
    if (b > 0 && Number.isInteger(a / b)) return a / b;
    throw new DiffusionError(
      "checkpoint",
      `${this.where}: expected ${what} to be whole, got ${a} / ${b}`,
    );
  }
}
