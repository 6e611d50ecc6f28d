// Round trips, and files from strangers: whatever the bytes are, the answer is a header or an error of code "checkpoint".
import { chmod, mkdtemp, readdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { writeFileAtomic } from "../../lib/files/atomic-write.js";
import {
  openSafetensors,
  parseSafetensors,
  readSafetensors,
  writeSafetensors,
  type StoredArray,
  type TensorToWrite,
} from "../../lib/checkpoint/safetensors.js";
import { DiffusionError } from "../../lib/errors.js";

const named = (tensors: Record<string, Omit<TensorToWrite, "name">>): TensorToWrite[] =>
  Object.entries(tensors).map(([name, tensor]) => ({ name, ...tensor }));
const folder = (): Promise<string> => mkdtemp(join(tmpdir(), "smalti-"));

function fileOf(header: unknown, dataBytes: number): Buffer {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, Buffer.alloc(dataBytes)]);
}

describe("writing and reading", () => {
  it("brings every kind of array back, widest first and aligned", async () => {
    const path = join(await folder(), "a.safetensors");
    const tensors: Record<string, Omit<TensorToWrite, "name">> = {
      "b.bytes": { shape: [3], data: Uint8Array.from([1, 2, 3]) },
      "a.floats": { shape: [2, 2], data: Float32Array.from([1, -2, 0.1, NaN]) },
      counter: { shape: [], data: BigInt64Array.from([-5n]) },
      doubles: { shape: [1, 2], data: Float64Array.from([Math.PI, -0]) },
      halves: { shape: [1], data: Uint16Array.from([0x3c00]), dtype: "f16" },
      nothing: { shape: [0, 4], data: new Float32Array(0) },
    };
    await writeSafetensors(path, named(tensors), { model: "ü" });
    const file = await openSafetensors(path);
    expect(file.metadata).toEqual({ model: "ü" });
    expect(file.names.slice(0, 2).sort()).toEqual(["counter", "doubles"]);
    for (const [name, { shape, data }] of Object.entries(tensors)) {
      expect(file.info(name).shape).toEqual(shape);
      expect(file.info(name).offset % (data as StoredArray).BYTES_PER_ELEMENT).toBe(0);
      expect(await file.read(name)).toEqual(data);
    }
    expect([...(await file.readF32("halves"))]).toEqual([1]);
    expect((await file.readF32("doubles"))[0]).toBe(Math.fround(Math.PI));
    await expect(file.readF32("counter")).rejects.toThrow(/floats in "counter", got I64/);
    expect(() => file.info("a.float")).toThrow(/did you mean "a\.floats"/);
    await file.close();
    await file.close();
    await expect(file.read("counter")).rejects.toThrow(/a closed one/);
    expect((await readSafetensors(path)).tensors.get("b.bytes")!.data).toEqual(
      tensors["b.bytes"]!.data,
    );
  });

  it("converts floats when asked, all of them or by name", async () => {
    const path = join(await folder(), "a.safetensors");
    const data = Float32Array.from({ length: 1 << 21 }, (_, i) => i % 100);
    await writeSafetensors(path, [{ name: "x", shape: [1 << 21], data, dtype: "bf16" }]);
    using file = await openSafetensors(path);
    expect(file.info("x").dtype).toBe("BF16");
    const read = await file.readF32("x");
    expect(Buffer.from(read.buffer).equals(Buffer.from(data.buffer))).toBe(true);
    const two = [
      { name: "keep", shape: [1], data: data.slice(0, 1) },
      { name: "half", shape: [1], data: data.slice(7, 8), dtype: "f16" as const },
    ];
    await writeSafetensors(path, two);
    const { tensors } = await readSafetensors(path);
    expect([tensors.get("keep")!.dtype, tensors.get("half")!.dtype]).toEqual(["F32", "F16"]);
  });

  it("refuses tensors that contradict themselves", async () => {
    const path = join(await folder(), "a.safetensors");
    const write = (tensor: object): Promise<void> => writeSafetensors(path, [{ name: "x", ...tensor } as TensorToWrite]); // prettier-ignore
    await expect(write({ shape: [2], data: new Float32Array(3) })).rejects.toThrow(
      /2 values for \[2\], got 3/,
    );
    await expect(write({ shape: [2], data: new Uint8Array(2), dtype: "f32" })).rejects.toThrow(
      /values of F32/,
    );
    await expect(write({ shape: [2], data: new Uint8Array(2), dtype: "f31" })).rejects.toThrow(
      /values of F31/,
    );
    await expect(
      write({ shape: [1], data: new Uint8Array(1), name: "__metadata__" }),
    ).rejects.toThrow(/reserved/);
    const twice = [0, 1].map(() => ({ name: "x", shape: [1], data: new Uint8Array(1) }));
    await expect(writeSafetensors(path, twice)).rejects.toThrow(/2 names, got 1/);
    expect(await readdir(join(path, ".."))).toEqual([]);
  });

  it("is read and written by others: the layout of the reference implementation", async () => {
    const path = join(await folder(), "a.safetensors");
    await writeSafetensors(path, [{ name: "x", shape: [1], data: Float32Array.from([2]) }]);
    const bytes = await readFile(path);
    const length = Number(bytes.readBigUInt64LE(0));
    expect(length % 8).toBe(0);
    expect(JSON.parse(bytes.toString("utf8", 8, 8 + length))).toEqual({
      x: { dtype: "F32", shape: [1], data_offsets: [0, 4] },
    });
    expect(bytes.readFloatLE(8 + length)).toBe(2);
  });
});

describe("files from strangers", () => {
  const entry = (shape: unknown, begin: unknown, end: unknown, dtype: unknown = "U8"): object => ({ dtype, shape, data_offsets: [begin, end] }); // prettier-ignore

  it.each([
    ["nothing", Buffer.alloc(0), /only 0 bytes/],
    ["a huge header length", Buffer.from("ffffffffffffffff00000000", "hex"), /header of at most/],
    [
      "a header beyond the file",
      fileOf({}, 0).fill(200, 0, 1),
      /truncated or not a safetensors file/,
    ],
    ["no JSON", fileOf("{nope", 0), /UTF-8 JSON/],
    [
      "no UTF-8",
      Buffer.concat([fileOf("", 0).fill(3, 0, 1), Buffer.from([0xff, 0xfe, 0xfd])]),
      /UTF-8 JSON/,
    ],
    ["a list", fileOf([1], 0), /JSON object/],
    ["metadata of numbers", fileOf({ __metadata__: { a: 1 } }, 0), /__metadata__ of texts/],
    ["no entry", fileOf({ x: 3 }, 0), /dtype, shape and data_offsets/],
    ["an unknown dtype", fileOf({ x: entry([1], 0, 1, "F31") }, 1), /a dtype among/],
    ["a dtype from the prototype", fileOf({ x: entry([1], 0, 1, "toString") }, 1), /a dtype among/],
    ["a negative size", fileOf({ x: entry([-1], 0, 1) }, 1), /a shape/],
    ["a broken size", fileOf({ x: entry([1.5], 0, 1) }, 1), /a shape/],
    ["too many axes", fileOf({ x: entry(Array(40).fill(1), 0, 1) }, 1), /a shape/],
    ["an overflowing shape", fileOf({ x: entry([2 ** 52, 2 ** 52], 0, 1) }, 1), /bytes for U8/],
    ["offsets backwards", fileOf({ x: entry([1], 1, 0) }, 1), /data_offsets/],
    [
      "a wrong byte count",
      fileOf({ x: entry([4], 0, 4, "F32") }, 4),
      /16 bytes for F32 \[4\], got 4 bytes/,
    ],
    [
      "overlapping tensors",
      fileOf({ x: entry([4], 0, 4), y: entry([4], 2, 6) }, 6),
      /must not overlap/,
    ],
    ["a gap", fileOf({ x: entry([1], 0, 1), y: entry([1], 2, 3) }, 3), /leave gaps/],
    ["a late start", fileOf({ x: entry([1], 1, 2) }, 2), /start at data byte 0/],
    ["missing data", fileOf({ x: entry([9], 0, 9) }, 8), /9 bytes of data, got 8/],
    ["a tail", fileOf({ x: entry([1], 0, 1) }, 8), /has a tail/],
  ])("refuses %s", async (_, bytes, message) => {
    expect(() => parseSafetensors(bytes)).toThrow(message);
    const path = join(await folder(), "bad.safetensors");
    await writeFile(path, bytes);
    await expect(openSafetensors(path)).rejects.toMatchObject({ code: "checkpoint", message: expect.stringMatching(message) }); // prettier-ignore
  });

  it("names a missing file", async () => {
    await expect(openSafetensors("/nowhere/x.safetensors")).rejects.toThrow(/no such file/);
    await expect(openSafetensors(tmpdir())).rejects.toMatchObject({ code: "checkpoint" });
  });

  it("accepts names that are special in JavaScript", () => {
    const header =
      '{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"constructor":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}';
    expect([...parseSafetensors(fileOf(header, 2)).tensors.keys()]).toEqual([
      "__proto__",
      "constructor",
    ]);
  });

  const onlyCheckpointErrors = (bytes: Uint8Array): void => {
    try {
      const { tensors } = parseSafetensors(bytes);
      for (const { offset, bytes: size } of tensors.values())
        expect(offset + size).toBeLessThanOrEqual(bytes.length);
    } catch (error) {
      expect(error).toBeInstanceOf(DiffusionError);
      expect((error as DiffusionError).code).toBe("checkpoint");
    }
  };

  it("never does anything else: random bytes", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), onlyCheckpointErrors), {
      numRuns: 3000,
    });
  });

  it("never does anything else: random JSON and deep JSON", () => {
    fc.assert(
      fc.property(fc.json(), fc.nat(40), (json, data) => onlyCheckpointErrors(fileOf(json, data))),
      { numRuns: 3000 },
    );
    onlyCheckpointErrors(fileOf("[".repeat(1_000_000), 0));
    onlyCheckpointErrors(fileOf('{"a":'.repeat(500_000), 0));
  });

  it("never does anything else: almost right headers", () => {
    const number = fc.oneof(
      fc.nat(20),
      fc.integer(),
      fc.double(),
      fc.constantFrom(2 ** 53, -0, 1e308, null, "4", true, []),
    );
    const almost = fc.record({
      dtype: fc.oneof(fc.constantFrom("U8", "F32", "BF16", "I64"), fc.string()),
      shape: fc.oneof(fc.array(number, { maxLength: 4 }), fc.anything()),
      data_offsets: fc.oneof(fc.tuple(number, number), fc.anything()),
    });
    const header = fc.dictionary(fc.oneof(fc.string(), fc.constant("__metadata__")), fc.oneof(almost, fc.anything()), { maxKeys: 4 }); // prettier-ignore
    fc.assert(
      fc.property(header, fc.nat(64), (value, data) => {
        let text = "null";
        try {
          text = JSON.stringify(value) ?? "null";
        } catch {
          // not every value has JSON (bigint); those headers cannot exist
        }
        onlyCheckpointErrors(fileOf(text, data));
      }),
      { numRuns: 3000 },
    );
  });

  it("never does anything else: damaged good files", () => {
    const good = fileOf(
      { x: entry([4], 0, 16, "F32"), y: entry([2, 2], 16, 24, "BF16"), __metadata__: { a: "b" } },
      24,
    );
    const damage = fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 5 });
    fc.assert(
      fc.property(damage, fc.nat(good.length), (changes, cut) => {
        const bytes = Buffer.from(good);
        for (const [at, value] of changes) bytes[at] = value;
        onlyCheckpointErrors(bytes);
        onlyCheckpointErrors(bytes.subarray(0, cut));
      }),
      { numRuns: 3000 },
    );
  });
});

describe("writeFileAtomic", () => {
  it("keeps the old file and no temporary one when a part fails or the caller aborts", async () => {
    const path = join(await folder(), "a.bin");
    await writeFileAtomic(path, "old");
    const failing = (function* (): Generator<Uint8Array> {
      yield Buffer.from("new");
      throw Object.assign(new Error("write"), { code: "ENOSPC" });
    })();
    await expect(
      writeFileAtomic(path, failing, { where: "save", code: "checkpoint" }),
    ).rejects.toMatchObject({
      code: "checkpoint",
      message: expect.stringMatching(/save: .*a\.bin.*a full disk \(ENOSPC\); free some space/),
    });
    await expect(
      writeFileAtomic(path, "new", { signal: AbortSignal.abort() }),
    ).rejects.toMatchObject({ code: "aborted" });
    expect(await readFile(path, "utf8")).toBe("old");
    expect(await readdir(join(path, ".."))).toEqual(["a.bin"]);
  });

  it("explains folders that cannot be written to", async () => {
    const parent = await folder();
    await expect(writeFileAtomic(parent, "x")).rejects.toThrow(
      /a folder of that name|not empty|EISDIR|ENOTEMPTY/,
    );
    await expect(writeFileAtomic("/proc/smalti/x", "x")).rejects.toMatchObject({ code: "data" });
    await chmod(parent, 0o500);
    if (process.getuid?.() !== 0)
      await expect(writeFileAtomic(join(parent, "x"), "x")).rejects.toThrow(
        /no permission.*choose a folder/,
      );
    await chmod(parent, 0o700);
  });

  it("really meets a full disk", async () => {
    await expect(writeFileAtomic("/dev/full/x", "x")).rejects.toMatchObject({ code: "data" });
  });
});
