// Too little memory, by a limit on allocations: an error with figures and the largest buffers wherever it strikes, and
// everything works again afterwards.
import { afterEach, describe, expect, it } from "vitest";
import { DiffusionError } from "../../lib/errors.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { native } from "../../lib/runtime/native.js";
import { compile } from "../../lib/runtime/program.js";
import { trace } from "../../lib/trace/trace.js";
import { longGraph } from "./workload.js";

const size = 1024;
const bytes = 4 * size * size;
const x = new Float32Array(size * size);
const weight = { name: "first.weight", shape: [size, size], init: { kind: "zeros" } } as const;

afterEach(() => native().setAllocationLimit(0));

/** Refuses what comes on top of what is held now and `free` bytes; gives the limit. */
function leave(free: number): number {
  native().setAllocationLimit(1);
  const refused = messageOf(() => Buffer.alloc("u8", [2]));
  const limit = Number(/, (\d+) in use/.exec(refused)![1]) + free;
  native().setAllocationLimit(limit);
  return limit;
}

function messageOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(DiffusionError);
    expect(error).toMatchObject({ code: "memory" });
    return (error as Error).message;
  }
  throw new Error("expected a failure");
}

const rejection = async (work: Promise<unknown>): Promise<string> => {
  const error: unknown = await work.then(
    () => undefined,
    (e: unknown) => e,
  );
  return messageOf(() => {
    throw error;
  });
};

/** Two weights, one of them used after arithmetic that binding does once. */
const preparedGraph = trace((t) => {
  const input = t.input("x", { shape: [size, size] });
  const second = t.parameter({ ...weight, name: "second.weight" });
  t.output("y", input.matmul(t.parameter(weight)).matmul(second.mul(2).exp()).sum());
});

/** Weights packed as floats. */
const asDefined = { winograd: false };

const weights = (): Record<string, Buffer> => ({
  "first.weight": Buffer.alloc("f32", [size, size], "first.weight"),
  "second.weight": Buffer.alloc("f32", [size, size], "second.weight"),
});

describe("too little memory", () => {
  it("for a run names its largest tensors and what is held", async () => {
    using program = await compile(longGraph(size, 2));
    using w = Buffer.alloc("f32", [size, size], "decoder.weight");
    using session = await program.bind({ w });
    const limit = leave(bytes + 4096); // enough for the input, not for the tensors
    const message = await rejection(session.run({ x }));
    expect(message).toMatch(
      new RegExp(
        `expected \\d+ bytes for the tensors of a run, got a limit of ${limit}, \\d+ in use`,
      ),
    );
    expect(message).toMatch(/in use \(largest: .*buffer decoder\.weight f32\[1024, 1024\] 4194304/);
    expect(message).toMatch(
      /largest of what was wanted: (%\d+ matmul f32\[1024,1024\] 4194304(, )?){2}/,
    );
    native().setAllocationLimit(0);
    expect((await session.run({ x }))["y"]![0]).toBe(0);
  });

  it("for the input of a run names it", async () => {
    using program = await compile(longGraph(size, 1));
    using w = Buffer.alloc("f32", [size, size]);
    using session = await program.bind({ w });
    leave(bytes / 2);
    expect(await rejection(session.run({ x }))).toContain(`expected ${bytes} bytes for input x`);
  });

  it("for packed weights names the largest of them", async () => {
    using program = await compile(preparedGraph, asDefined);
    const buffers = weights();
    leave(bytes);
    const message = await rejection(program.bind(buffers));
    expect(message).toContain(`expected ${program.plan().weightBytes} bytes for packed weights`);
    expect(message).toMatch(/wanted: .*packed first\.weight f32\[1024,1024\] 4194304/);
    expect(message).toMatch(/largest: buffer \S+\.weight/);
    native().setAllocationLimit(0);
    using session = await program.bind(buffers);
    expect((await session.run({ x }))["y"]![0]).toBe(0);
    Object.values(buffers).forEach((buffer) => buffer.dispose());
  });

  it("for the preparation of weights names its tensors", async () => {
    using program = await compile(preparedGraph, asDefined);
    const buffers = weights();
    leave(program.plan().weightBytes + 4096);
    const message = await rejection(program.bind(buffers));
    expect(message).toMatch(/bytes for the preparation of weights/);
    expect(message).toMatch(/wanted: %\d+ exp f32\[1024,1024\] 4194304/);
    expect(message).toMatch(/largest: packed weights 8388608/);
    Object.values(buffers).forEach((buffer) => buffer.dispose());
  });

  it("for a buffer names it and what is held", () => {
    using held = Buffer.alloc("f32", [size, size], "encoder.weight");
    const limit = leave(1000);
    const message = messageOf(() => Buffer.alloc("f32", [4096, 4096], "ema.encoder.weight"));
    expect(message).toContain(
      "expected 67108864 bytes for buffer ema.encoder.weight f32[4096, 4096]",
    );
    expect(message).toContain(`got a limit of ${limit}`);
    expect(message).toContain("buffer encoder.weight f32[1024, 1024] 4194304");
    expect(held.byteLength).toBe(bytes);
  });

  it("beyond the machine is refused at once", () => {
    const message = messageOf(() => Buffer.alloc("f32", [2 ** 20, 2 ** 20]));
    expect(message).toMatch(
      /^memory: expected 4398046511104 bytes for buffer .*, got \d+ available/,
    );
  });
});
