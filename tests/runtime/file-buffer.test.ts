// Weights that stay in their file: the same values in every stored type, memory for one at a time, clear errors.
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { floatsToBfloats, floatsToHalves } from "../../lib/checkpoint/half.js";
import { Buffer } from "../../lib/runtime/buffer.js";
import { native } from "../../lib/runtime/native.js";
import { compile } from "../../lib/runtime/program.js";
import { trace } from "../../lib/trace/trace.js";

const folder = mkdtempSync(join(tmpdir(), "smalti-file-buffer-"));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => native().setAllocationLimit(0));

const offset = 12; // aligned to nothing but a float
const halvesOf = { f32: (x: Float32Array) => x, f16: floatsToHalves, bf16: floatsToBfloats };

/** A file with the values after some other bytes. */
function write(name: string, values: Float32Array, dtype: "f32" | "f16" | "bf16" = "f32"): string {
  const stored = halvesOf[dtype](values);
  const path = join(folder, name);
  const head = new Uint8Array(offset).fill(255);
  const body = new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
  writeFileSync(path, new Uint8Array([...head, ...body]));
  return path;
}

const size = 96;
const ramp = Float32Array.from({ length: size * size }, (_, i) => Math.sin(i) * 3);
const x = Float32Array.from({ length: size }, (_, i) => Math.cos(i));
const spec = (name: string, shape: readonly number[]) =>
  ({ name, shape, init: { kind: "zeros" } }) as const;

/** A packed weight and one that runs read as it is. */
const graph = trace((t) => {
  const product = t.input("x", { shape: [1, size] }).matmul(t.parameter(spec("w", [size, size])));
  t.output("y", product.add(t.parameter(spec("b", [size]))));
});

describe("weights of a file", () => {
  it.each(["f32", "f16", "bf16"] as const)(
    "give what values in memory give, as %s",
    async (dtype) => {
      const source = { path: write(`w.${dtype}`, ramp, dtype), offset, dtype };
      const fromFile = {
        w: Buffer.fromFile(source, [size, size], "w"),
        b: Buffer.fromFile(source, [size], "b"),
      };
      const values = fromFile.w.read() as Float32Array;
      const step = { f32: 0, f16: 2 ** -10, bf16: 2 ** -7 }[dtype];
      values.forEach((value, i) =>
        expect(Math.abs(value - ramp[i]!)).toBeLessThanOrEqual(step * 3),
      );
      const inMemory = {
        w: Buffer.fromArray(values, "f32", [size, size]),
        b: Buffer.fromArray(values.subarray(0, size), "f32", [size]),
      };
      const program = await compile(graph);
      const results = [];
      for (const buffers of [fromFile, inMemory, fromFile]) {
        const session = await program.bind(buffers);
        results.push((await session.run({ x }))["y"]);
        session.dispose();
      }
      expect(results[0]).toEqual(results[1]);
      expect(results[2]).toEqual(results[1]);
    },
  );

  it("need memory for the packed weights and one original", async () => {
    const side = 512;
    const bytes = 4 * side * side;
    const names = Array.from({ length: 6 }, (_, i) => `w${i}`);
    const program = await compile(
      trace((t) => {
        const chain = names.map((name) => t.parameter(spec(name, [side, side])));
        t.output(
          "y",
          chain.reduce((y, w) => y.matmul(w), t.input("x", { shape: [1, side] })),
        );
      }),
    );
    const path = write("chain", new Float32Array(side * side).fill(0.01));
    const source = { path, offset, dtype: "f32" } as const;
    const buffers = Object.fromEntries(
      names.map((name) => [name, Buffer.fromFile(source, [side, side], name)]),
    );
    native().setAllocationLimit(1);
    const used = Number(/, (\d+) in use/.exec(messageOf(() => Buffer.alloc("f32", [2])))![1]);
    native().setAllocationLimit(used + program.plan().weightBytes + 2 * bytes);
    const session = await program.bind(buffers);
    session.dispose();
  });

  it("are refused when the file is cut short or missing, or is to be written", async () => {
    const source = { path: write("short", ramp), offset, dtype: "f32" } as const;
    const w = Buffer.fromFile(source, [size, size], "w");
    const b = Buffer.alloc("f32", [size]);
    truncateSync(source.path, 400);
    const program = await compile(graph);
    await expect(program.bind({ w, b })).rejects.toMatchObject({ code: "checkpoint" });
    expect(() => w.read()).toThrow(/short: expected 36864 bytes at 12, got the end of the file/);
    expect(() => w.write(ramp)).toThrow(/write: expected a buffer in memory/);
    const missing = { ...source, path: join(folder, "none") };
    expect(() => Buffer.fromFile(missing, [1])).toThrow(
      /none: expected a readable file, got No such/,
    );
  });

  it("are still read as they were when the file is replaced", async () => {
    const source = { path: write("old", ramp), offset, dtype: "f32" } as const;
    const w = Buffer.fromFile(source, [size, size], "w");
    rmSync(source.path);
    write("old", new Float32Array(size * size));
    expect(w.read()).toEqual(ramp);
    const now = Buffer.fromFile(source, [size, size], "w");
    expect(now.read()).toEqual(new Float32Array(size * size));
  });

  it("cannot be updated by a program", async () => {
    const update = trace((t) => {
      const state = t.state("p", { shape: [size] });
      t.update("p", state.add(1));
    });
    const program = await compile(update);
    const source = { path: write("state", ramp), offset, dtype: "f32" } as const;
    const p = Buffer.fromFile(source, [size], "p");
    await expect(program.bind({ p })).rejects.toThrow(/bind: expected memory for p/);
  });
});

function messageOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error("expected a failure");
}
