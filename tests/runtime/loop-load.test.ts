// Runs and bindings leave the event loop free, and the measure shows what does not.
import { describe, expect, it } from "vitest";
import { Buffer } from "../../lib/runtime/buffer.js";
import { compile } from "../../lib/runtime/program.js";
import { computeFor, holdsLoopUp, leavesLoopFree, waitFor } from "./loop-load.js";
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
    ["held up by work", () => computeFor(15), holdsLoopUp],
    ["held up by waiting", () => waitFor(100), holdsLoopUp],
    ["free", () => undefined, leavesLoopFree],
  ])("is seen to be %s", async (_, block, isSeen) => {
    const work = async (): Promise<void> => {
      for (let i = 0; i < 5; i++) {
        await sleep(5);
        block();
      }
    };
    expect(await isSeen(work)).toBe(true);
  });
});
