// Updates of state: every reader sees the old value, whatever the order, and optimisers are one pass.
import { describe, expect, it } from "vitest";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import { trace, type Trace } from "../../lib/trace/trace.js";

const shape = [4];

/** Runs `fn` once on states p = 1, q = 2; returns outputs and new states. */
async function step(
  fn: (t: Trace) => void,
): Promise<{ outputs: Record<string, unknown>; p: number; q: number }> {
  const program = await compile(trace(fn));
  const buffers = {
    p: Buffer.fromArray(new Float32Array(4).fill(1), "f32", shape),
    q: Buffer.fromArray(new Float32Array(4).fill(2), "f32", shape),
  };
  const session = await program.bind(buffers);
  const outputs = await session.run();
  return { outputs, p: Number(buffers.p.read()[3]), q: Number(buffers.q.read()[3]) };
}

describe("state", () => {
  it("exchanges two states", async () => {
    const { p, q } = await step((t) => {
      const [a, b] = [t.state("p", { shape }), t.state("q", { shape })];
      t.update("p", b);
      t.update("q", a);
    });
    expect([p, q]).toEqual([2, 1]);
  });

  it("computes both updates from old values", async () => {
    const { p, q } = await step((t) => {
      const [a, b] = [t.state("p", { shape }), t.state("q", { shape })];
      t.update("p", a.add(b));
      t.update("q", b.sub(a).sum().broadcastTo(shape));
    });
    expect([p, q]).toEqual([3, 4]);
  });

  it("returns the old value as an output beside the update", async () => {
    const { outputs, p } = await step((t) => {
      const a = t.state("p", { shape });
      t.state("q", { shape });
      t.output("old", a);
      t.output("new", a.mul(5));
      t.update("p", a.mul(5));
    });
    expect(p).toBe(5);
    expect(outputs).toEqual({ old: new Float32Array(4).fill(1), new: new Float32Array(4).fill(5) });
  });

  it("updates two states with one value", async () => {
    const { p, q } = await step((t) => {
      const sum = t.state("p", { shape }).add(t.state("q", { shape }));
      t.update("p", sum);
      t.update("q", sum);
    });
    expect([p, q]).toEqual([3, 3]);
  });

  it("updates from reversed memory without tearing", async () => {
    const program = await compile(
      trace((t) => {
        const a = t.state("p", { shape: [2, 3] });
        t.update("p", a.transpose([1, 0]).reshape([2, 3]));
      }),
    );
    const p = Buffer.fromArray(Float32Array.of(0, 1, 2, 3, 4, 5), "f32", [2, 3]);
    await (await program.bind({ p })).run();
    expect([...p.read()]).toEqual([0, 3, 1, 4, 2, 5]);
  });

  it("turns moments and parameter into one instruction that writes in place", async () => {
    const graph = trace((t) => {
      const g = t.input("g", { shape: [64, 64] });
      const state = (name: string) => t.state(name, { shape: [64, 64] });
      const m = state("m").mul(0.9).add(g.mul(0.1));
      const v = state("v").mul(0.99).add(g.square().mul(0.01));
      t.update("p", state("p").sub(m.div(v.sqrt().add(1e-8)).mul(0.001)));
      t.update("m", m);
      t.update("v", v);
    });
    const program = await compile(graph);
    expect(program.plan()).toMatchObject({ instructions: 1, arenaBytes: 0 });
  });
});
