// NumPy files: round trips, column-major input, and hostile bytes.
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { encodeNpy, parseNpy, readNpy, writeNpy } from "../../lib/checkpoint/npy.js";
import { DiffusionError } from "../../lib/errors.js";

function raw(dict: string, data: Uint8Array, version = 1): Buffer {
  const length = Buffer.alloc(version === 1 ? 2 : 4);
  if (version === 1) length.writeUInt16LE(dict.length);
  else length.writeUInt32LE(dict.length);
  return Buffer.concat([
    Buffer.from("\x93NUMPY", "latin1"),
    Buffer.from([version, 0]),
    length,
    Buffer.from(dict),
    data,
  ]);
}

describe("npy", () => {
  it("brings arrays back", async () => {
    const path = join(await mkdtemp(join(tmpdir(), "smalti-")), "a.npy");
    const arrays = [
      { shape: [2, 3], data: Float32Array.from([1, 2, 3, 4, 5, NaN]) },
      { shape: [2], data: Int32Array.from([-1, 7]) },
      { shape: [], data: Float64Array.from([0.1]) },
      { shape: [0, 2], data: new Uint8Array(0) },
      { shape: [1], data: BigInt64Array.from([-9n]) },
    ];
    for (const array of arrays) {
      await writeNpy(path, array);
      expect(await readNpy(path)).toMatchObject(array);
    }
    expect(encodeNpy(arrays[0]!).length % 4).toBe(0);
    expect(
      parseNpy(encodeNpy({ shape: [1], data: Uint16Array.of(0x3c00), dtype: "f16" })).dtype,
    ).toBe("f16");
  });

  it("turns column-major arrays round, in every format version", () => {
    const dict = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }\n";
    for (const version of [1, 2, 3])
      expect([...parseNpy(raw(dict, Buffer.from([0, 3, 1, 4, 2, 5]), version)).data]).toEqual([
        0, 1, 2, 3, 4, 5,
      ]);
  });

  it.each([
    ["another format", Buffer.from("hello world, hello"), /NumPy array file/],
    ["version 9", raw("{}", Buffer.alloc(0), 9), /version 1 to 3, got 9/],
    [
      "big endian",
      raw("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", Buffer.alloc(4)),
      /little-endian/,
    ],
    [
      "objects",
      raw("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", Buffer.alloc(8)),
      /descr/,
    ],
    [
      "text",
      raw("{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }", Buffer.alloc(4)),
      /little-endian/,
    ],
    [
      "missing data",
      raw("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", Buffer.alloc(4)),
      /8 bytes of data.*got 4/,
    ],
  ])("refuses %s", (_, bytes, message) => expect(() => parseNpy(bytes)).toThrow(message));

  it("answers damaged files with a checkpoint error or an array", () => {
    const good = encodeNpy({ shape: [2, 2], data: Float32Array.from([1, 2, 3, 4]) });
    const damage = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 6 });
    fc.assert(
      fc.property(damage, fc.nat(good.length), (changes, cut) => {
        const bytes = Buffer.from(good);
        for (const [at, value] of changes) bytes[at] = value;
        for (const tried of [bytes, bytes.subarray(0, cut)])
          try {
            parseNpy(tried);
          } catch (error) {
            expect(error).toBeInstanceOf(DiffusionError);
            expect((error as DiffusionError).code).toBe("checkpoint");
          }
      }),
      { numRuns: 3000 },
    );
  });

  it("refuses arrays that do not fit their shape or kind", () => {
    expect(() => encodeNpy({ shape: [3], data: new Float32Array(2) })).toThrow(/3 values/);
    expect(() => encodeNpy({ shape: [2], data: new Float32Array(2), dtype: "f64" })).toThrow(
      /values of f64, got Float32Array/,
    );
  });
});
