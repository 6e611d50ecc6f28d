// Compiled sessions of one set of weights, by what they do and for which batch size.
import { DiffusionError } from "../errors.js";
import type { Graph } from "../ir/graph.js";
import type { Buffer } from "../runtime/buffer.js";
import { compile, type Program, type Session } from "../runtime/program.js";

interface Entry {
  program: Program;
  session: Session;
}

/** Compiles on first use, keeps the most recently used few. */
export class SessionCache {
  readonly #entries = new Map<string, Promise<Entry>>();

  constructor(
    readonly buffers: ReadonlyMap<string, Buffer>,
    private readonly limit = 8,
  ) {}

  /** The signal stops the compilation; who waits for the same session with another signal compiles again. */
  async get(key: string, graph: () => Graph, signal?: AbortSignal): Promise<Session> {
    const known = this.#entries.get(key);
    const entry = known ?? this.#compile(graph(), signal ? { signal } : {});
    this.#entries.delete(key);
    this.#entries.set(key, entry); // last = most recently used
    if (!known) entry.catch(() => this.#entries.delete(key));
    if (this.#entries.size > this.limit) this.#drop(this.#entries.keys().next().value!);
    try {
      return (await entry).session;
    } catch (error) {
      const isAbort = error instanceof DiffusionError && error.code === "aborted";
      if (isAbort && !signal?.aborted) return this.get(key, graph, signal);
      throw error;
    }
  }

  async #compile(graph: Graph, stop: { signal?: AbortSignal }): Promise<Entry> {
    const program = await compile(graph, stop);
    const wanted = graph.inputs.filter(({ role }) => role !== "input").map(({ name }) => name);
    const session = await program.bind(
      Object.fromEntries(wanted.map((name) => [name, this.buffers.get(name)!])),
      stop,
    );
    return { program, session };
  }

  #drop(key: string): void {
    const entry = this.#entries.get(key);
    this.#entries.delete(key);
    entry?.then(
      ({ program, session }) => {
        session.dispose();
        program.dispose();
      },
      () => undefined, // who asked for it is told
    );
  }

  dispose(): void {
    [...this.#entries.keys()].forEach((key) => this.#drop(key));
    this.buffers.forEach((buffer) => buffer.dispose());
  }
}
