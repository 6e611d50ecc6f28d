// A process that runs one workload on request: the first line it prints says that it is ready, every further one answers
// a line on its stdin.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { clearTimeout, setTimeout } from "node:timers";

const patience = 600_000; // ms for one answer
// Node reads these certificates at each start, 40 ms on either side of a comparison that uses none.
const environment = { ...process.env, NODE_EXTRA_CA_CERTS: undefined };

export class Worker {
  #child;
  #lines;
  #errors = "";

  /** `startMs`: from the start of the process to its first result. */
  constructor(label, child, lines) {
    this.label = label;
    this.#child = child;
    this.#lines = lines;
    child.stderr.on("data", (text) => (this.#errors = (this.#errors + text).slice(-2000)));
  }

  /** Starts it and waits until it has run once. */
  static async start(label, { command, args, env }) {
    const begin = performance.now();
    const child = spawn(command, args, { env: { ...environment, ...env } });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const worker = new Worker(label, child, lines);
    Object.assign(worker, await worker.answer());
    worker.startMs = performance.now() - begin;
    return worker;
  }

  async answer() {
    const timer = setTimeout(() => this.#child.kill(), patience);
    const { value, done } = await this.#lines.next();
    clearTimeout(timer);
    if (done) throw new Error(`${this.label} ended early: ${this.#errors.trim() || "no message"}`);
    return JSON.parse(value);
  }

  /** Times of runs for about that many seconds. */
  burst(seconds) {
    this.#child.stdin.write(`${seconds}\n`);
    return this.answer();
  }

  async stop() {
    if (this.#child.exitCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.stdin.end();
    this.#child.kill();
    await ended;
  }
}
