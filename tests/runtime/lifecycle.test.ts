// Handles: what happens after dispose, and over many cycles of load, run and dispose.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { encode } from "../../lib/ir/encode.js";
import { native } from "../../lib/runtime/native.js";
import { compile } from "../../lib/runtime/program.js";
import { bindZeros, longGraph, smallGraph } from "./workload.js";

const x = new Float32Array(32).fill(1);

describe("lifecycle", () => {
  it("runs, updates state in place and keeps it", async () => {
    const bound = await bindZeros(smallGraph());
    await bound.session.run({ x });
    await bound.session.run({ x });
    expect(bound.buffers["p"]!.read()).toEqual(new Float32Array(8).fill(2));
    bound.dispose();
  });

  it("keeps a session alive without its program and buffers", async () => {
    const bound = await bindZeros(smallGraph());
    bound.program.dispose();
    Object.values(bound.buffers).forEach((buffer) => buffer.dispose());
    expect((await bound.session.run({ x }))["y"]).toHaveLength(32);
    bound.session.dispose();
  });

  it("gives coded errors after dispose", async () => {
    const bound = await bindZeros(smallGraph());
    bound.dispose();
    bound.dispose();
    await expect(bound.session.run({ x })).rejects.toMatchObject({ code: "option" });
    await expect(bound.program.bind(bound.buffers)).rejects.toMatchObject({ code: "option" });
    expect(() => bound.program.plan()).toThrow(/disposed/);
    expect(() => bound.buffers["p"]!.read()).toThrow(/disposed/);
  });

  it("finishes a run whose session is disposed meanwhile", async () => {
    const bound = await bindZeros(longGraph(256, 20));
    const run = bound.session.run({ x: new Float32Array(256 * 256) });
    bound.dispose();
    expect((await run)["y"]![0]).toBe(0);
  });

  it("refuses to touch a buffer that a queued run updates", async () => {
    const bound = await bindZeros(smallGraph());
    const run = bound.session.run({ x });
    expect(() => bound.buffers["p"]!.read()).toThrow(/in use by a run/);
    expect(() => bound.buffers["p"]!.write(new Float32Array(8))).toThrow(/in use by a run/);
    await run;
    expect(bound.buffers["p"]!.read()[0]).toBe(1);
    bound.dispose();
  });

  it("does not grow over 200 cycles", { timeout: 120_000 }, async () => {
    const graph = longGraph(256, 3);
    const input = { x: new Float32Array(256 * 256) };
    const cycle = async (): Promise<void> => {
      const bound = await bindZeros(graph);
      await bound.session.run(input);
      bound.dispose();
    };
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    /** Resident bytes in the last of that many cycles: the median of a few readings, each without garbage. */
    const residentAfter = async (cycles: number): Promise<number> => {
      const readings: number[] = [];
      for (let i = 0; i < cycles; i++) {
        await cycle();
        if (i % 10 !== 9) continue;
        collect();
        if (i >= cycles - 50) readings.push(process.memoryUsage().rss);
      }
      return readings.toSorted((a, b) => a - b)[readings.length >> 1]!;
    };
    const before = await residentAfter(200); // the allocators and the compiler of JavaScript settle
    expect((await residentAfter(200)) / before).toBeLessThan(1.03);
  });

  it("names an unknown instruction set", async () => {
    await expect(compile(smallGraph(), { isa: "sse9" })).rejects.toMatchObject({ code: "device" });
  });

  it("keeps the caller in the stack of an error", async () => {
    const askForTooMuch = async (): Promise<unknown> => compile(smallGraph(), { isa: "sse9" });
    const error = (await askForTooMuch().catch((e: unknown) => e)) as Error;
    expect(error.stack).toContain("askForTooMuch");
  });

  it("queues many runs at once, in order", async () => {
    const bound = await bindZeros(smallGraph());
    const runs = await Promise.all(Array.from({ length: 50 }, () => bound.session.run({ x })));
    expect(runs).toHaveLength(50);
    expect(bound.buffers["p"]!.read()[0]).toBe(50);
    bound.dispose();
  });

  it("copies inputs when the run is asked for", async () => {
    const bound = await bindZeros(longGraph(64, 1));
    bound.buffers["w"]!.dispose();
    const data = new Float32Array(64 * 64);
    const run = bound.session.run({ x: data });
    data.fill(NaN);
    structuredClone(data.buffer, { transfer: [data.buffer] });
    expect((await run)["y"]![0]).toBe(0);
    bound.dispose();
  });

  it("checks array lengths in the addon too", async () => {
    const addon = native();
    const program = await addon.compile(encode(smallGraph()), "");
    const buffers = [new addon.NativeBuffer(256), new addon.NativeBuffer(32)];
    const session = await program.bind(buffers);
    expect(() => session.run([new Float32Array(31)], [new Float32Array(32)], null)).toThrow(
      /expected a typed array of 128 bytes/,
    );
    expect(() => session.run([], [new Float32Array(32)], null)).toThrow(/expected 1 inputs/);
    await expect(program.bind([buffers[0]!])).rejects.toMatchObject({ code: "option" });
    await expect(program.bind([buffers[1]!, buffers[0]!])).rejects.toMatchObject({ code: "shape" });
    expect(() => program.bind([{} as never])).toThrow(/NativeBuffer/);
  });
});
