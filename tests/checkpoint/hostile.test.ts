// Checkpoints from strangers: whatever the bytes are, the answer is a list of tensors or an error of code "checkpoint" with
// the reason, soon and without harm.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { memorySource } from "../../lib/checkpoint/byte-source.js";
import type { Checkpoint } from "../../lib/checkpoint/checkpoint.js";
import { openCheckpoint, readOne } from "../../lib/checkpoint/open-checkpoint.js";
import { unpickle } from "../../lib/checkpoint/pickle.js";
import { parseYaml } from "../../lib/checkpoint/yaml.js";
import { DiffusionError } from "../../lib/errors.js";
import { processorTime } from "../processor-time.js";
import {
  floats,
  pickle,
  stateDict,
  storageId,
  tensor,
  torchLegacy,
  torchZip,
  zip,
  type Pickled,
} from "./torch-writer.js";

const open = (bytes: Uint8Array): Promise<Checkpoint> => readOne(memorySource("file", bytes));
const dict = (entries: Readonly<Record<string, Pickled>>): Map<Pickled, Pickled> =>
  new Map(Object.entries(entries));
const raw = (text: string): Pickled => ({ raw: Buffer.from(text, "latin1") });
const inZip = (data: Uint8Array): Buffer => zip([{ name: "archive/data.pkl", data }]);
/** A pickle of these codes, in a zip file. */
const codes = (text: string): Buffer => inZip(Buffer.from(`\x80\x02${text}.`, "latin1"));

const six = floats("0", [0, 1, 2, 3, 4, 5]);
const on = (layout: Parameters<typeof tensor>[1]): Uint8Array =>
  torchZip(dict({ x: tensor(storageId(six), layout) }), [six]);
const huge = (value: number): Pickled =>
  raw(`\x8a\x08${Buffer.from(BigUint64Array.of(BigInt(value)).buffer).toString("latin1")}`);
const rebuilt = (shape: Pickled, strides: Pickled, offset: Pickled = 0): Uint8Array =>
  torchZip(
    dict({
      x: { call: ["torch._utils._rebuild_tensor_v2", storageId(six), offset, shape, strides, false, null] }, // prettier-ignore
    }),
    [six],
  );

/** A zip archive with some bytes of its directory changed. */
const spoilt = (bytes: Uint8Array, pattern: string, change: (at: Buffer) => void): Buffer => {
  const copy = Buffer.from(bytes);
  change(copy.subarray(copy.lastIndexOf(Buffer.from(pattern, "latin1"))));
  return copy;
};

const good = torchZip(dict({ x: tensor(storageId(six), { shape: [6] }) }), [six]);
const goodLegacy = torchLegacy(dict({ x: tensor(storageId(six), { shape: [6] }) }), [six]);

const deep = 200_000;
const hostile: [string, Uint8Array, RegExp][] = [
  // Names that run code.
  ["os.system", codes("cos\nsystem\n(X\x02\0\0\0lstR"), /"os\.system", which can run code/],
  ["posix.system inside the state", torchZip(dict({ state_dict: dict({ a: { call: ["posix.system", "touch /tmp/x"] } }) }), []), /"posix\.system"/], // prettier-ignore
  ["subprocess", codes("csubprocess\nPopen\n]X\x02\0\0\0lsa\x85R"), /"subprocess\.Popen"/],
  ["eval", codes("c__builtin__\neval\n(X\x01\0\0\x001tR"), /"__builtin__\.eval"/],
  ["builtins by STACK_GLOBAL", codes("\x8c\x08builtins\x8c\x04exec\x93)R"), /"builtins\.exec"/],
  ["getattr of a module", codes("c__builtin__\ngetattr\nX\x02\0\0\0osX\x06\0\0\0system\x86R"), /getattr of the text "os"/], // prettier-ignore
  ["importlib", codes("cimportlib\nimport_module\n."), /"importlib\.import_module"/],
  ["a dunder", codes("ctorch\nx.__globals__\n."), /__globals__/],
  ["INST", codes("(X\x02\0\0\0lsios\nsystem\n"), /"os\.system"/],
  ["a nested pickle", codes("cpickle\nloads\n(X\x01\0\0\0.tR"), /"pickle\.loads"/],
  ["torch.hub", codes("ctorch.hub\nload\n."), /"torch\.hub\.load"/],
  ["calling an instance", codes("cmy\nThing\n)R)R"), /a class or function by name, got an object/],
  // Damaged stack machines.
  ["an empty stack", codes(""), /a value on the stack/],
  ["no mark", codes("t"), /a mark on the stack/],
  ["POP beyond a mark", codes("]((aa"), /a value on the stack/],
  ["a memo that is not there", codes("h\x05"), /none with number 5/],
  ["an unknown code", codes("\xfe"), /a pickle code, got 0xfe at byte 2/],
  ["protocol 9", inZip(Buffer.from([0x80, 9, 0x4e, 0x2e])), /protocol 0 to 5, got 9/],
  ["an extension", codes("\x82\x01"), /extension registry/],
  ["a buffer outside", codes("\x97"), /kept outside/],
  ["a text beyond the end", codes("X\xff\xff\xff\x7f"), /the end of data\.pkl/],
  ["a bytes of 2^60", codes("\x8e\0\0\0\0\0\0\0\x10"), /a length|the end of data\.pkl/],
  ["no STOP", inZip(Buffer.from("\x80\x02N", "latin1")), /the end of data\.pkl/],
  ["a pickle of nothing", inZip(Buffer.alloc(0)), /the end of data\.pkl after 0 bytes/],
  ["an integer of a megabyte", codes("\x8b\0\0\x10\0"), /integers of at most 1024 bytes/],
  ["keys without values", codes("}(NNNu"), /pairs of key and value/],
  ["filling a number", codes("K\x01(Ne"), /a list to fill, got 1/],
  ["state of None", codes("N}b"), /an object that has a state/],
  // Bombs.
  ["lists of a list, doubled 60 times", codes(`]q\0${Array.from({ length: 60 }, () => "](h\0h\0eq\0").join("")}`), /^$/], // prettier-ignore
  ["copies of copies", codes(`](${"N".repeat(50_000)}eq\0${"ccollections\ndeque\nh\0\x85R0".repeat(3_000)}h\0`), /a bomb/], // prettier-ignore
  ["texts encoded again and again", codes(`X\0\0\x01\0${"a".repeat(65536)}q\0${"c_codecs\nencode\nh\0X\x06\0\0\0latin1\x86R0".repeat(500)}h\0`), /a bomb/], // prettier-ignore
  ["a million dictionaries", codes(`](${"}".repeat(1_000_001)}e`), /at most 1000000 objects/],
  ["a dictionary of itself", codes("}q\0X\x01\0\0\0ah\0s"), /^$/],
  ["dictionaries shared in 2^40 ways", codes(`}q\0${Array.from({ length: 40 }, (_, i) => `}q\x01(X\x01\0\0\0ah\0X\x01\0\0\0bh\0u${i % 2 ? "q\0" : "q\0"}`).join("")}}(X\x01\0\0\0xh\0${"X\x01\0\0\0y"}h\0u`), /^$|a bomb/], // prettier-ignore
  ["deep lists", codes(`${"]".repeat(deep)}${"a".repeat(deep - 1)}`), /^$/],
  ["deep dictionaries", codes(`${"}X\x01\0\0\0a".repeat(deep)}N${"s".repeat(deep)}`), /^$/],
  [
    "a repeated value of 2^40",
    rebuilt({ tuple: [huge(2 ** 40)] }, { tuple: [0] }),
    /repeated values/,
  ],
  // Shapes and storages.
  ["a shape of 2^60", rebuilt({ tuple: [huge(2 ** 60)] }, { tuple: [1] }), /a shape of at most 16/],
  ["a shape of 2^30 x 2^30", rebuilt({ tuple: [2 ** 30, 2 ** 30] }, { tuple: [2 ** 30, 1] }), /fewer than 2\^53|within its 6/], // prettier-ignore
  ["one value too many", on({ shape: [7] }), /values within its 6 elements/],
  ["an offset beyond", on({ shape: [1], offset: 6 }), /within its 6/],
  ["strides beyond", on({ shape: [2, 2], strides: [5, 1] }), /within its 6/],
  ["a negative stride", on({ shape: [2], strides: [-1], offset: 3 }), /strides from 0/],
  ["a negative size", on({ shape: [-2] }), /a shape/],
  ["a broken size", rebuilt({ tuple: [{ float: 1.5 }] }, { tuple: [1] }), /a shape/],
  ["more strides than axes", on({ shape: [2], strides: [1, 1] }), /1 strides/],
  ["40 axes", on({ shape: Array<number>(40).fill(1) }), /at most 16 sizes/],
  ["a tensor without a storage", torchZip(dict({ x: tensor("0", { shape: [1] }) }), []), /a storage, got the text/], // prettier-ignore
  ["a storage that is not there", torchZip(dict({ x: tensor(storageId(six), { shape: [6] }) }), []), /an entry "archive\/data\/0", got none/], // prettier-ignore
  ["a storage of another size", torchZip(dict({ x: tensor(storageId({ ...six, count: 7 }), { shape: [7] }) }), [six]), /28 bytes for storage 0 of 7 float32, got 24/], // prettier-ignore
  ["a storage of two types", torchZip({ tuple: [tensor(storageId(six), { shape: [6] }), tensor(storageId({ ...six, type: "Int" }), { shape: [6] })] }, [six]), /6 float32 everywhere, got 6 int32/], // prettier-ignore
  ["a storage of 2^52", torchLegacy(dict({ x: tensor(storageId({ ...six, count: 2 ** 52 }), { shape: [2] }) }), [{ ...six, count: 2 ** 52 }]), /truncated/], // prettier-ignore
  ["a key that leads out", torchZip(dict({ x: tensor(storageId({ ...six, key: "../../etc/passwd" }), { shape: [6] }) }), []), /an entry "archive\/data\/\.\.\/\.\./], // prettier-ignore
  ["a storage class of somebody else", torchZip(dict({ x: tensor({ persistent: { tuple: ["storage", { global: "my.FloatStorage" }, "0", "cpu", 6] } }, { shape: [6] }) }), [six]), /a persistent id of a storage, got my\.FloatStorage/], // prettier-ignore
  ["another persistent id", torchZip({ persistent: "module" }, []), /a persistent id of a storage/],
  // Archives.
  ["names that lead out", zip([{ name: "../data.pkl", data: pickle(null) }]), /zip slip/],
  ["absolute names", zip([{ name: "/etc/data.pkl", data: pickle(null) }]), /zip slip/],
  ["names of Windows", zip([{ name: "a\\data.pkl", data: pickle(null) }]), /zip slip/],
  ["a name twice", zip([{ name: "a/data.pkl", data: pickle(null) }, { name: "a/data.pkl", data: pickle(1) }]), /twice/], // prettier-ignore
  ["two data.pkl", zip([{ name: "a/data.pkl", data: pickle(null) }, { name: "b/data.pkl", data: pickle(1) }]), /one data\.pkl .*got 2/], // prettier-ignore
  ["no data.pkl", zip([{ name: "a.npy", data: Buffer.alloc(4) }]), /none among 1 entries/],
  ["a wrong checksum", zip([{ name: "a/data.pkl", data: pickle(null), crc: 12345 }]), /checksum/],
  [
    "compression",
    zip([{ name: "a/data.pkl", data: pickle(null), method: 8 }]),
    /without compression/,
  ],
  ["big-endian values", zip([{ name: "a/data.pkl", data: pickle(null) }, { name: "a/byteorder", data: Buffer.from("big") }]), /little-endian/], // prettier-ignore
  ["overlapping entries", spoilt(good, "PK\x01\x02", (at) => at.writeUInt32LE(5, 42)), /an overlap|something else/], // prettier-ignore
  ["an entry with another local name", spoilt(good, "archive/data/0", () => good.copy(good)), /^$/], // prettier-ignore
  ["a directory beyond the file", spoilt(good, "PK\x05\x06", (at) => at.writeUInt32LE(good.length, 16)), /a directory within/], // prettier-ignore
  ["a million entries", spoilt(good, "PK\x05\x06", (at) => at.writeUInt16LE(60000, 10)), /a zip directory entry/], // prettier-ignore
  ["an encrypted entry", spoilt(good, "PK\x01\x02", (at) => at.writeUInt16LE(1, 8)), /encrypted/],
  ["a truncated archive", good.subarray(0, good.length - 30), /truncated/],
  ["half an archive", good.subarray(0, good.length / 2), /truncated/],
  ["a truncated legacy file", goodLegacy.subarray(0, goodLegacy.length - 1), /truncated/],
  ["a legacy file with a wrong length", spoilt(goodLegacy, "\x06\0\0\0\0\0\0\0", (at) => at.writeUInt8(7, 0)), /6 elements in storage 0, got 7/], // prettier-ignore
  // Other files.
  ["a pointer of Git LFS", Buffer.from("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), /Git LFS/], // prettier-ignore
  ["a web page", Buffer.from("<!DOCTYPE html><html></html>"), /a web page/],
  ["a plain pickle", pickle(dict({ a: 1 })), /a plain pickle/],
  ["nothing", Buffer.alloc(0), /only 0 bytes/],
];

describe("hostile files", () => {
  it.each(hostile)("%s", async (_, bytes, message) => {
    const spent = processorTime();
    const reason = await open(bytes).then(
      () => "",
      (error: unknown) => {
        expect(error).toBeInstanceOf(DiffusionError);
        expect((error as DiffusionError).code).toBe("checkpoint");
        return (error as Error).message;
      },
    );
    if (!message.test("")) expect(reason).toMatch(message);
    expect(reason.length).toBeLessThan(1000);
    expect(spent()).toBeLessThan(10_000);
  });

  it("runs nothing, as a file on disk and by the command", async ({ skip }) => {
    const place = await mkdtemp(join(tmpdir(), "smalti-hostile-"));
    const proof = join(place, "proof");
    const path = join(place, "evil.pt");
    await writeFile(path, torchZip({ call: ["os.system", `touch ${proof}`] }, []));
    await expect(openCheckpoint(path)).rejects.toThrow(/was not executed/);
    expect(existsSync(proof)).toBe(false);
    // The file is real: Python's own unpickler, where there is one, does run it.
    const code = "import pickle,sys,zipfile; pickle.load(zipfile.ZipFile(sys.argv[1]).open('archive/data.pkl'))"; // prettier-ignore
    const { error, status } = spawnSync("python3", ["-c", code, path]);
    if (error) return skip("python3 is not installed");
    expect([status, existsSync(proof)]).toEqual([0, true]);
  });

  it("keeps shards inside their folder", async () => {
    const place = await mkdtemp(join(tmpdir(), "smalti-hostile-"));
    const index = join(place, "model.safetensors.index.json");
    for (const file of ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 3, null]) {
      await writeFile(index, JSON.stringify({ weight_map: { a: file } }));
      await expect(openCheckpoint(index)).rejects.toMatchObject({ code: "checkpoint", message: expect.stringMatching(/could lead out/) }); // prettier-ignore
    }
    for (const text of ["", "[]", '{"weight_map":[]}', "{}", "null"]) {
      await writeFile(index, text);
      await expect(openCheckpoint(index)).rejects.toMatchObject({ code: "checkpoint" });
    }
    await expect(openCheckpoint(place, { part: "../.." })).rejects.toMatchObject({
      code: "option",
    });
  });
});

/** Opens whatever it is, reads every small tensor, and accepts only our own errors. */
async function onlyOurErrors(bytes: Uint8Array): Promise<void> {
  try {
    const file = await open(bytes);
    for (const { name, elements } of file.tensors.values()) {
      expect(elements).toBeLessThanOrEqual(1 << 24);
      if (elements < 1000) expect((await file.read(name)).length).toBe(elements);
    }
  } catch (error) {
    if (!(error instanceof DiffusionError)) throw error;
    expect(["checkpoint", "option"]).toContain(error.code);
  }
}

const rich = (() => {
  const { dict: state, storages } = stateDict({ "a.weight": [2, 3], "a.bias": [2], "model_ema.aweight": [2, 3] }); // prettier-ignore
  const root = dict({
    epoch: 1,
    state_dict: state,
    hyper_parameters: { object: ["argparse.Namespace", dict({ lr: { float: 0.1 }, list: [1, "two", null, true] })] }, // prettier-ignore
    callbacks: new Map<Pickled, Pickled>([[{ global: "my.Callback" }, { tuple: [1, 2] }]]),
  });
  return { zip: torchZip(root, storages), wide: torchZip(root, storages, true), legacy: torchLegacy(root, storages) }; // prettier-ignore
})();

const allCodes = "(012FGIKLJMNPQRSTUVXabcdeghijlopqrstu]})\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96"; // prettier-ignore
const pieces = [
  ..."ctorch._utils\n_rebuild_tensor_v2\n|ccollections\nOrderedDict\n|ctorch\nFloatStorage\n|X\x07\0\0\0storage|X\x01\0\0\x000|K\x06|h\0|q\0|q\x01|h\x01|\x94|cnumpy\ndtype\n|cnumpy.core.multiarray\n_reconstruct\n|cmy\nClass\n|c__builtin__\nset\n|c_codecs\nencode\n|X\x06\0\0\0latin1|G\0\0\0\0\0\0\0\0|I01\n|(lp0\n|Vabc\n|S'a'\n".split("|"), // prettier-ignore
  ...allCodes,
];

describe("fuzzing", () => {
  it("random bytes behind every first letter", async () => {
    const start = fc.constantFrom("", "PK\x03\x04", "\x80\x02", "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", '{"a'); // prettier-ignore
    await fc.assert(
      fc.asyncProperty(start, fc.uint8Array({ maxLength: 300 }), (head, rest) =>
        onlyOurErrors(Buffer.concat([Buffer.from(head, "latin1"), rest])),
      ),
      { numRuns: 3000 },
    );
  });

  it("sequences of pickle codes", () => {
    const sequence = fc.array(fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...pieces) }, { weight: 1, arbitrary: fc.string({ maxLength: 3 }) }), { maxLength: 60 }); // prettier-ignore
    fc.assert(
      fc.property(sequence, (parts) => {
        try {
          unpickle(Buffer.from(`\x80\x02${parts.join("")}.`, "latin1"), "fuzz");
        } catch (error) {
          const isOurs = error instanceof DiffusionError && error.code === "checkpoint";
          expect(isOurs || (error as Error).constructor.name === "PickleEnd").toBe(true);
        }
      }),
      { numRuns: 10_000 },
    );
  });

  it.each(Object.entries(rich))("damaged good files: %s", async (_, file) => {
    const damage = fc.array(fc.tuple(fc.nat(file.length - 1), fc.nat(255)), { maxLength: 6 });
    const cut = fc.oneof(fc.constant(file.length), fc.nat(file.length));
    await fc.assert(
      fc.asyncProperty(damage, cut, (changes, length) => {
        const bytes = Buffer.from(file);
        for (const [at, value] of changes) bytes[at] = value;
        return onlyOurErrors(bytes.subarray(0, length));
      }),
      { numRuns: 2500 },
    );
  });

  it("texts that are almost YAML", () => {
    const part = fc.constantFrom(..."a: |- |\n|  |[|]|{|}|, |'|\"|#|x|1e-4|: |:|\t|>|&|*|!|~".split("|"), "|"); // prettier-ignore
    fc.assert(
      fc.property(fc.array(part, { maxLength: 60 }), (parts) => {
        try {
          parseYaml(parts.join(""), "fuzz");
        } catch (error) {
          expect(error).toBeInstanceOf(DiffusionError);
        }
      }),
      { numRuns: 5000 },
    );
    const spent = processorTime();
    for (const text of [
      "[".repeat(1e5),
      "- ".repeat(4000),
      "a:\n ".repeat(2e4),
      `a: ${"'".repeat(8000)}`,
      `${" ".repeat(8000)}x`,
    ])
      // prettier-ignore
      expect(() => parseYaml(text, "deep")).not.toThrow(RangeError);
    expect(spent()).toBeLessThan(5000);
  });
});
