// Runs and bindings leave the event loop free, and the measure shows what does not.
import { describe, expect, it } from "vitest";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import { computeFor, leavesLoopFree, waitFor } from "./loop-load.js";
import { longGraph, sleep } from "./workload.js";

const size = 512;

describe("the event loop", () => {
  it("is free while the core binds and runs", async () => {
    using w = Buffer.alloc("f32", [size, size]);
    using program = await compile(longGraph(size, 30));
    using session = await program.bind({ w });
    const x = new Float32Array(size * size);
    expect(await leavesLoopFree(() => session.run({ x }))).toBe(true);
    expect(await leavesLoopFree(async () => (await program.bind({ w })).dispose())).toBe(true);
  });

  it.each([
    ["work", () => computeFor(15), false],
    ["waiting", () => waitFor(100), false],
    ["nothing", () => undefined, true],
  ])("is seen to be held up by %s", async (_, block, isFree) => {
    const work = async (): Promise<void> => {
      for (let i = 0; i < 5; i++) {
        await sleep(5);
        block();
      }
    };
    expect(await leavesLoopFree(work)).toBe(isFree);
  });
});
