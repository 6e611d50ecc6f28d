// Compiled sessions of one set of weights, by what they do and for which batch size.
import { DiffusionError } from "../errors.js";
import type { Graph } from "../ir/graph.js";
import type { Buffer, TensorData } from "./buffer.js";
import {
  compile,
  type CompileOptions,
  type Program,
  type RunOptions,
  type RunOutputs,
  type Session,
} from "./program.js";

interface Entry {
  made: Promise<{ program: Program; session: Session }>;
  /** Runs that wait for it or are under way. */
  users: number;
  isDropped: boolean;
}

/** How a session is compiled, beside its graph, and what stops compilation and run. */
export type CachedRunOptions = RunOptions & Pick<CompileOptions, "quantize">;

/** Compiles on first use; keeps those in use, and beside them the most recently used few. */
export class SessionCache {
  /** The most recently used last. */
  readonly #entries = new Map<string, Entry>();

  constructor(
    readonly buffers: ReadonlyMap<string, Buffer> = new Map(),
    private readonly limit = 8,
  ) {}

  /**
   * Runs the graph of a key: the same graph and way to compile for the same key. The signal also stops the compilation; who
   * waits for the same session with another signal compiles again. Throws as compile, bind and run.
   */
  async run(
    key: string,
    graph: () => Graph,
    inputs: Readonly<Record<string, TensorData>> = {},
    options: CachedRunOptions = {},
  ): Promise<RunOutputs> {
    const { signal } = options;
    const entry = this.#entry(key, graph, options);
    try {
      const { session } = await entry.made;
      return await session.run(inputs, signal ? { signal } : {});
    } catch (error) {
      const isAbort = error instanceof DiffusionError && error.code === "aborted";
      if (!isAbort || signal?.aborted) throw error;
    } finally {
      if (--entry.users === 0 && entry.isDropped) dispose(entry);
    }
    return this.run(key, graph, inputs, options);
  }

  #entry(key: string, graph: () => Graph, options: CachedRunOptions): Entry {
    const known = this.#entries.get(key);
    const entry = known ?? { made: this.#make(graph(), options), users: 0, isDropped: false };
    ++entry.users;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    if (known) return entry;
    entry.made.catch(() => {
      if (!entry.isDropped) this.#drop(key);
    });
    for (const [other, { users }] of this.#entries) {
      if (this.#entries.size <= this.limit) break;
      if (users === 0) this.#drop(other);
    }
    return entry;
  }

  async #make(graph: Graph, options: CachedRunOptions): Entry["made"] {
    const program = await compile(graph, options);
    const wanted = graph.inputs.filter(({ role }) => role !== "input").map(({ name }) => name);
    const buffers = Object.fromEntries(wanted.map((name) => [name, this.buffers.get(name)!]));
    return { program, session: await program.bind(buffers, options) };
  }

  #drop(key: string): void {
    const entry = this.#entries.get(key)!;
    this.#entries.delete(key);
    entry.isDropped = true;
    if (entry.users === 0) dispose(entry);
  }

  /** Frees sessions, those in use after their last run, and the buffers. */
  dispose(): void {
    [...this.#entries.keys()].forEach((key) => this.#drop(key));
    this.buffers.forEach((buffer) => buffer.dispose());
  }
}

function dispose({ made }: Entry): void {
  made.then(
    ({ program, session }) => {
      session.dispose();
      program.dispose();
    },
    () => undefined, // who asked for it is told
  );
}
