// Files of torch.save in both layouts, hand-made and by torch itself where it is installed: every value bit for bit.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Checkpoint } from "../../lib/checkpoint/checkpoint.js";
import { openCheckpoint, type OpenOptions } from "../../lib/checkpoint/open-checkpoint.js";
import {
  floats,
  pickle,
  stateDict,
  storageId,
  storageOf,
  tensor,
  torchLegacy,
  torchZip,
  zip,
  type Pickled,
} from "./torch-writer.js";

const folder = (): Promise<string> => mkdtemp(join(tmpdir(), "smalti-torch-"));

async function opened(bytes: Uint8Array, options: OpenOptions = {}): Promise<Checkpoint> {
  const path = join(await folder(), "a.ckpt");
  await writeFile(path, bytes);
  return openCheckpoint(path, options);
}

const dict = (entries: Readonly<Record<string, Pickled>>): Map<Pickled, Pickled> =>
  new Map(Object.entries(entries));

const bytesOf = (array: ArrayBufferView): Buffer =>
  Buffer.from(array.buffer, array.byteOffset, array.byteLength);

const layoutsOfFiles = {
  zip: (root: Pickled, storages: Parameters<typeof torchZip>[1]) => torchZip(root, storages),
  zip64: (root: Pickled, storages: Parameters<typeof torchZip>[1]) =>
    torchZip(root, storages, true),
  legacy: torchLegacy,
};

describe.each(Object.entries(layoutsOfFiles))("%s", (kind, write) => {
  it("reads every element type as it is stored", async () => {
    const raw = Uint8Array.from({ length: 48 }, (_, i) => (i * 37) & 255);
    const types = { Float: "F32", Double: "F64", Half: "F16", BFloat16: "BF16", Long: "I64", Int: "I32", Short: "I16", Char: "I8", Byte: "U8", Bool: "BOOL" }; // prettier-ignore
    const storages = Object.keys(types).map((type, i) => storageOf(String(i), type, raw));
    const root = dict(
      Object.fromEntries(
        storages.map((s) => [s.type, tensor(storageId(s), { shape: [s.count / 2, 2] })]),
      ),
    );
    using file = await opened(write(root, storages));
    expect(file.format).toBe(kind === "legacy" ? "torch legacy" : "torch zip");
    for (const [type, dtype] of Object.entries(types)) {
      expect(file.info(type)).toMatchObject({ dtype, bytes: 48 });
      expect(bytesOf(await file.read(type)).equals(raw)).toBe(true);
    }
    await expect(file.readF32("Long")).rejects.toThrow(/floats in "Long", got I64/);
    expect(() => file.info("Flaot")).toThrow(/did you mean "Float"/);
  });

  it("reads shared storages, offsets, transposed, sliced, repeated, scalar and empty tensors", async () => {
    const base = floats(
      "7",
      Array.from({ length: 24 }, (_, i) => i),
    );
    const on = (layout: Parameters<typeof tensor>[1]): Pickled => tensor(storageId(base), layout);
    const root = dict({
      whole: on({ shape: [2, 3, 4] }),
      tail: on({ shape: [4], offset: 20 }),
      turned: on({ shape: [4, 3, 2], strides: [1, 4, 12] }),
      every: on({ shape: [2, 2], strides: [12, 2], offset: 1 }),
      repeated: on({ shape: [2, 3], strides: [1, 0] }),
      windows: on({ shape: [3, 2], strides: [1, 1] }),
      scalar: on({ shape: [], offset: 5 }),
      empty: on({ shape: [0, 4] }),
      parameter: { call: ["torch._utils._rebuild_parameter", on({ shape: [2] }), true, null] },
    });
    using file = await opened(write(root, [base]));
    const values = async (name: string): Promise<number[]> => [...(await file.readF32(name))];
    expect(await values("whole")).toEqual(Array.from({ length: 24 }, (_, i) => i));
    expect(await values("tail")).toEqual([20, 21, 22, 23]);
    const turned = await values("turned");
    for (let i = 0; i < 4; ++i)
      for (let j = 0; j < 3; ++j)
        for (let k = 0; k < 2; ++k) expect(turned[i * 6 + j * 2 + k]).toBe(i + 4 * j + 12 * k);
    expect(await values("every")).toEqual([1, 3, 13, 15]);
    expect(await values("repeated")).toEqual([0, 0, 0, 1, 1, 1]);
    expect(await values("windows")).toEqual([0, 1, 1, 2, 2, 3]);
    expect(await values("scalar")).toEqual([5]);
    expect(file.info("scalar").shape).toEqual([]);
    expect(await values("empty")).toEqual([]);
    expect(await values("parameter")).toEqual([0, 1]);
    expect([...(await file.read("turned"))].slice(0, 3)).toEqual([0, 12, 4]);
    const out = new Float32Array(4);
    expect(await file.readF32("tail", out)).toBe(out);
    await expect(file.readF32("whole", out)).rejects.toMatchObject({ code: "shape" });
  });

  it("takes the weights of a Lightning file and leaves optimisers, callbacks and objects alone", async () => {
    const weights = stateDict({ "a.weight": [2, 3], "a.bias": [2] });
    const moment = floats("90", [1, 2]);
    const root = dict({
      epoch: 3,
      callbacks: new Map<Pickled, Pickled>([
        [{ global: "pytorch_lightning.callbacks.ModelCheckpoint" }, { float: 0.5 }],
      ]),
      optimizer_states: [new Map([["state", new Map([[0, dict({ exp_avg: tensor(storageId(moment), { shape: [2] }) })]])]])], // prettier-ignore
      hyper_parameters: { object: ["argparse.Namespace", dict({ lr: { float: 0.1 }, heads: 8, net: dict({ depth: 2 }) })] }, // prettier-ignore
      state_dict: weights.dict,
      strategy: { call: ["my.module.Strategy", "a", { tuple: [1, 2] }] },
    });
    using file = await opened(write(root, [...weights.storages, moment]));
    expect(file.names).toEqual(["a.weight", "a.bias"]);
    expect(file.notes.join("\n")).toMatch(/weights from state_dict/);
    expect(file.notes.join("\n")).toMatch(/left out: callbacks, optimizer_states/);
    expect(file.configs[0]!.value).toEqual({ lr: 0.1, heads: 8, net: { depth: 2 } });
  });
});

describe("details of the formats", () => {
  it("reads views of storages of legacy files", async () => {
    const base = floats("3", [0, 1, 2, 3, 4, 5]);
    const view = storageId(base, { tuple: ["view", 2, 3] });
    const root = dict({ x: tensor(view, { shape: [2], offset: 1 }), y: tensor(view, { shape: [3] }) }); // prettier-ignore
    using file = await opened(torchLegacy(root, [base]));
    expect([...(await file.readF32("x"))]).toEqual([3, 4]);
    expect([...(await file.readF32("y"))]).toEqual([2, 3, 4]);
    const beyond = tensor(view, { shape: [4] });
    await expect(opened(torchLegacy(dict({ x: beyond }), [base]))).rejects.toThrow(/within its 3/);
  });

  it("reads untyped storages, dtypes and float8 of later versions", async () => {
    const raw = Uint8Array.from({ length: 8 }, (_, i) => i);
    const storage: Pickled = { persistent: { tuple: ["storage", { global: "torch.storage.UntypedStorage" }, "0", "cpu", 8] } }; // prettier-ignore
    const v3 = (dtype: string, offset: number, size: number): Pickled => ({
      call: [
        "torch._utils._rebuild_tensor_v3",
        ...[storage, offset, { tuple: [size] }, { tuple: [1] }, false, null],
        { global: `torch.${dtype}` },
      ],
    });
    const root = dict({ a: v3("bfloat16", 1, 3), b: v3("float8_e4m3fn", 4, 4), c: v3("int16", 0, 4) }); // prettier-ignore
    using file = await opened(
      zip([{ name: "x/data.pkl", data: pickle(root) }, { name: "x/data/0", data: raw }]), // prettier-ignore
    );
    expect(file.info("a").dtype).toBe("BF16");
    expect(bytesOf(await file.read("a"))).toEqual(Buffer.from([2, 3, 4, 5, 6, 7]));
    expect(file.info("b").dtype).toBe("F8_E4M3");
    expect(bytesOf(await file.read("c")).length).toBe(8);
  });

  it("reads module objects, numpy arrays and scalars, and lists what it cannot read", async () => {
    const w = floats("0", [1, 2, 3, 4]);
    const leaf: Pickled = {
      object: ["my.Linear", dict({ _parameters: dict({ weight: tensor(storageId(w), { shape: [2, 2] }) }), _buffers: new Map(), _modules: new Map(), bias: true })], // prettier-ignore
    };
    const numpy: Pickled = {
      raw: Buffer.concat([
        Buffer.from("cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tC\x01btR(K\x01(K\x02K\x02tcnumpy\ndtype\n(X\x02\0\0\0f4K\0K\x01tR(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89C\x10", "latin1"), // prettier-ignore
        bytesOf(Float32Array.from([5, 6, 7, 8])),
        Buffer.from("tb"),
      ]),
    };
    const root: Pickled = {
      object: ["my.Net", dict({ _parameters: new Map(), _buffers: dict({ table: numpy }), _modules: dict({ fc: leaf }) })], // prettier-ignore
    };
    using file = await opened(torchZip(root, [w]));
    expect([...(await file.readF32("fc.weight"))]).toEqual([1, 2, 3, 4]);
    expect([...(await file.readF32("table"))]).toEqual([5, 6, 7, 8]);
    const complex = storageOf("0", "Float", new Uint8Array(16));
    const id: Pickled = { persistent: { tuple: ["storage", { global: "torch.ComplexFloatStorage" }, "0", "cpu", 2] } }; // prettier-ignore
    using other = await opened(torchZip(dict({ z: tensor(id, { shape: [2] }) }), [complex]));
    expect(other.names).toEqual([]);
    expect(other.notes).toEqual(["not readable: z (complex64)"]);
    const negated: Pickled = { call: ["torch._utils._rebuild_tensor_v2", storageId(w), 0, { tuple: [4] }, { tuple: [1] }, false, null, dict({ neg: true, conj: false })] }; // prettier-ignore
    using view = await opened(torchZip(dict({ a: negated, b: tensor(storageId(w), { shape: [4] }) }), [w])); // prettier-ignore
    expect([view.names, view.notes]).toEqual([["b"], ["not readable: a (neg view of float32)"]]);
  });

  it("reads strided tensors larger than a piece, in pieces", async () => {
    const [rows, columns] = [1500, 2000]; // 12 MB, more than one piece
    const values = Float32Array.from({ length: rows * columns }, (_, i) => i);
    const storage = storageOf("0", "Float", new Uint8Array(values.buffer));
    const root = dict({ t: tensor(storageId(storage), { shape: [columns, rows], strides: [1, columns] }) }); // prettier-ignore
    using file = await opened(torchZip(root, [storage]));
    const turned = await file.readF32("t");
    let wrong = 0;
    for (let c = 0; c < columns; c += 7)
      for (let r = 0; r < rows; r += 11) if (turned[c * rows + r] !== r * columns + c) ++wrong;
    expect(wrong).toBe(0);
  });
});

describe("averaged weights", () => {
  const raw = { "model.diffusion_model.in.0.weight": [2], "model.diffusion_model.out.bias": [2], "first_stage_model.x": [1] }; // prettier-ignore
  const lit = { "model_ema.diffusion_modelin0weight": [2], "model_ema.diffusion_modeloutbias": [2], "model_ema.num_updates": [1], "model_ema.decay": [1] }; // prettier-ignore

  it("lays LitEma's names without dots over the raw ones, or leaves them out", async () => {
    const value = (_: number, name: string): number => (name.startsWith("model_ema") ? 9 : 1);
    const { dict: state, storages } = stateDict({ ...raw, ...lit }, value);
    const bytes = torchZip(dict({ state_dict: state }), storages);
    using averaged = await opened(bytes);
    expect(averaged.names).toEqual(Object.keys(raw));
    expect([...(await averaged.readF32("model.diffusion_model.in.0.weight"))]).toEqual([9, 9]);
    expect([...(await averaged.readF32("first_stage_model.x"))]).toEqual([1]);
    expect(averaged.notes.join()).toMatch(
      /averaged weights \(model_ema\.\*, 2 tensors\).*--no-ema/,
    );
    using plain = await opened(bytes, { ema: false });
    expect(plain.names).toEqual(Object.keys(raw));
    expect([...(await plain.readF32("model.diffusion_model.in.0.weight"))]).toEqual([1, 1]);
  });

  it("finds them in sections of their own, with other starts, and in pairs of networks", async () => {
    const a = stateDict({ "transformer.blocks.0.w": [1], "transformer.emb.w": [1], "codec.w": [1] }, () => 1); // prettier-ignore
    const b = stateDict({ "blocks.0.w": [1], "emb.w": [1] }, () => 9, 100);
    const storages = [...a.storages, ...b.storages];
    const bytes = torchZip(dict({ last_epoch: 1, model: a.dict, ema: b.dict }), storages);
    using whole = await opened(bytes);
    expect(whole.names).toEqual(["transformer.blocks.0.w", "transformer.emb.w", "codec.w"]);
    expect([...(await whole.readF32("transformer.emb.w"))]).toEqual([9]);
    using section = await opened(bytes, { section: "ema" });
    expect(section.names).toEqual(["blocks.0.w", "emb.w"]);
    await expect(opened(bytes, { section: "modle" })).rejects.toThrow(/did you mean "model"/);
    const pair = stateDict({ "online_network.a": [1], "target_network.a": [1], "vae.b": [1] }, (_, name) => (name.startsWith("target") ? 9 : 1)); // prettier-ignore
    using second = await opened(torchZip(dict({ state_dict: pair.dict }), pair.storages));
    expect(second.names).toEqual(["online_network.a", "vae.b"]);
    expect([...(await second.readF32("online_network.a"))]).toEqual([9]);
    const lucid = stateDict({ "ema_model.a": [1], "online_model.a": [1], initted: [1] }, (_, name) => (name.startsWith("ema") ? 9 : 1), 50); // prettier-ignore
    const inner = stateDict({ a: [1] }, () => 1);
    const roots = dict({ model: inner.dict, ema: lucid.dict });
    using third = await opened(torchZip(roots, [...lucid.storages, ...inner.storages]));
    expect([...(await third.readF32("a"))]).toEqual([9]);
  });

  it("asks instead of guessing, and unwraps parallel and compiled modules", async () => {
    const { dict: state, storages } = stateDict({ "module._orig_mod.a": [1], "module._orig_mod.b": [1] }); // prettier-ignore
    const bytes = torchLegacy(state, storages);
    using file = await opened(bytes);
    expect(file.names).toEqual(["a", "b"]);
    await expect(opened(bytes, { ema: true })).rejects.toThrow(
      /averaged weights \(EMA\), got none/,
    );
    const one = stateDict({ a: [1] });
    const two = stateDict({ a: [1] }, () => 2, 10);
    const several = dict({ model: one.dict, ema_fast: two.dict, ema_slow: two.dict });
    await expect(opened(torchZip(several, [...one.storages, ...two.storages]))).rejects.toThrow(
      /one set of averaged weights, got ema_fast, ema_slow; name one with --section/,
    );
  });
});

/** A Python with torch: the one of the path, or the system's. */
const python = ["python3", "/usr/bin/python3"].find(
  (name) => spawnSync(name, ["-c", "import torch"]).status === 0,
);

const script = `
import collections, enum, json, sys, argparse, struct
import torch
from torch import nn
folder = sys.argv[1]
g = torch.Generator().manual_seed(1)
base = torch.randn(6, 8, generator=g) * 10
sd = collections.OrderedDict()
for name in "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8".split():
    sd["w_" + name] = base.to(getattr(torch, name))
sd["w_bool"] = base > 0
sd["turned"] = sd["w_float32"].t()
sd["sliced"] = sd["w_float16"][1:4, ::3]
sd["repeated_"] = torch.arange(3.).reshape(3, 1).expand(3, 5)
sd["scalar"] = torch.tensor(3)
sd["empty"] = torch.zeros(0, 4)
sd["parameter"] = nn.Parameter(base[0].clone())
sd["special"] = torch.tensor([float("nan"), float("inf"), -0.0, 1e-40])
class Callback: pass
class Kind(enum.Enum): A = 1
lightning = {"epoch": 1, "state_dict": sd, "callbacks": {Callback: {"best": torch.tensor(1.)}},
  "optimizer_states": [torch.optim.Adam([nn.Parameter(base)]).state_dict()],
  "hyper_parameters": argparse.Namespace(lr=1e-3, kind=Kind.A)}
for name, value in {"bare": sd, "lightning": lightning}.items():
    torch.save(value, f"{folder}/{name}.zip.pt")
    torch.save(value, f"{folder}/{name}.legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(value, f"{folder}/{name}.protocol4.pt", pickle_protocol=4)
class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        for name, value in sd.items(): self.register_buffer(name, value.detach())
    def forward(self, x: torch.Tensor): return x
torch.save(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), f"{folder}/module.legacy.pt", _use_new_zipfile_serialization=False)
torch.save({"w": base, "sparse": torch.eye(3).to_sparse(), "q": torch.quantize_per_tensor(base, 0.1, 0, torch.qint8)}, f"{folder}/sparse.pt")
torch.jit.script(Holder()).save(f"{folder}/script.pt")
torch.save(base, f"{folder}/tensor.pt")
manifest = {}
with open(f"{folder}/values.bin", "wb") as out:
    for name, value in sd.items():
        value = value.detach().contiguous()
        flat = bytes(value.reshape(-1).view(torch.uint8).tolist()) if value.dim() and value.numel() and value.dtype != torch.bool else (
            bytes(value.reshape(-1).to(torch.uint8).tolist()) if value.dtype == torch.bool else struct.pack("<q", int(value)) if value.numel() else b"")
        manifest[name] = {"shape": list(value.shape), "bytes": len(flat)}
        out.write(flat)
print(json.dumps(manifest))
`;

describe.skipIf(!python)("files that torch wrote", () => {
  it("come back bit for bit from every layout", async () => {
    const place = await folder();
    await writeFile(join(place, "write.py"), script); // TorchScript wants its source in a file
    const text = execFileSync(python!, [join(place, "write.py"), place], { encoding: "utf8" });
    const manifest = JSON.parse(text) as Record<string, { shape: number[]; bytes: number }>;
    const all = await readFile(join(place, "values.bin"));
    const files = ["bare", "lightning"].flatMap((name) =>
      ["zip", "legacy", "protocol4"].map((layout) => `${name}.${layout}.pt`),
    );
    for (const name of [...files, "script.pt"]) {
      using file = await openCheckpoint(join(place, name));
      expect(file.names.sort(), name).toEqual(Object.keys(manifest).sort());
      let at = 0;
      for (const [tensorName, { shape, bytes }] of Object.entries(manifest)) {
        expect(file.info(tensorName).shape).toEqual(shape);
        const read = bytesOf(await file.read(tensorName));
        expect(read.equals(all.subarray(at, at + bytes)), `${name} ${tensorName}`).toBe(true);
        at += bytes;
      }
    }
    using alone = await openCheckpoint(join(place, "tensor.pt"));
    expect(alone.info("value").shape).toEqual([6, 8]);
    using module = await openCheckpoint(join(place, "module.legacy.pt"));
    expect(module.names).toEqual(["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]); // prettier-ignore
    using sparse = await openCheckpoint(join(place, "sparse.pt"));
    expect(sparse.names).toEqual(["w"]);
    expect(sparse.notes.join()).toMatch(/not readable: sparse \(sparse float32\), q \(QInt8\)/);
    using lightning = await openCheckpoint(join(place, "lightning.zip.pt"));
    expect(lightning.configs[0]!.value).toMatchObject({ lr: 1e-3 });
  });
});
