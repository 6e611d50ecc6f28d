// Compiled sessions of one set of weights, by what they do and for which batch size.
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

  async get(key: string, graph: () => Graph): Promise<Session> {
    const known = this.#entries.get(key);
    const entry = known ?? this.#compile(graph());
    this.#entries.delete(key);
    this.#entries.set(key, entry); // last = most recently used
    if (!known) entry.catch(() => this.#entries.delete(key));
    if (this.#entries.size > this.limit) this.#drop(this.#entries.keys().next().value!);
    return (await entry).session;
  }

  async #compile(graph: Graph): Promise<Entry> {
    const program = await compile(graph);
    const wanted = graph.inputs.filter(({ role }) => role !== "input").map(({ name }) => name);
    const session = await program.bind(
      Object.fromEntries(wanted.map((name) => [name, this.buffers.get(name)!])),
    );
    return { program, session };
  }

  #drop(key: string): void {
    const entry = this.#entries.get(key);
    this.#entries.delete(key);
    void entry?.then(({ program, session }) => {
      session.dispose();
      program.dispose();
    });
  }

  dispose(): void {
    [...this.#entries.keys()].forEach((key) => this.#drop(key));
    this.buffers.forEach((buffer) => buffer.dispose());
  }
}
