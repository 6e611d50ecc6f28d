// A checkpoint of 2.6 GB (sparse: it takes no room on the disk) with averages and optimiser states is loaded within its model
// and 100 MB, and converted within 250 MB, in processes of their own.
import { execFileSync } from "node:child_process";
import { mkdtemp, open, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { pickle, storageId, tensor, zip, type Pickled } from "./torch-writer.js";

const layers = 40;
const side = 2016; // 16 MB each: 650 MB a copy
const layerBytes = side * side * 4;

let folder: string;
let path: string;

/** A dictionary of square layers on storages from `first`. */
const dictionary = (first: number): Map<Pickled, Pickled> =>
  new Map(
    Array.from({ length: layers }, (_, i): [Pickled, Pickled] => [
      `blocks.${i}.weight`,
      tensor(storageId({ key: String(first + i), type: "Float", count: side * side }), {
        shape: [side, side],
      }),
    ]),
  );

/** The archive with empty storages, cut apart at the ends of its local headers, with the data between them left out. */
async function writeSparse(root: Pickled, count: number): Promise<void> {
  const items = Array.from({ length: count }, (_, i) => ({
    name: `archive/data/${i}`,
    data: new Uint8Array(0),
  }));
  const whole = zip([{ name: "archive/data.pkl", data: pickle(root) }, ...items]);
  const end = whole.length - 22;
  const directory = whole.readUInt32LE(end + 16);
  const file = await open(path, "w");
  let from = 0;
  let to = 0;
  const copy = async (until: number): Promise<void> => {
    await file.write(whole, from, until - from, to);
    to += until - from;
    from = until;
  };
  for (let at = directory; at < end;) {
    const name = whole.toString("latin1", at + 46, at + 46 + whole.readUInt16LE(at + 28));
    const header = whole.readUInt32LE(at + 42);
    await copy(header);
    whole.writeUInt32LE(to, at + 42);
    if (name !== "archive/data.pkl") {
      for (const place of [header + 18, header + 22, at + 20, at + 24])
        whole.writeUInt32LE(layerBytes, place);
      await copy(header + 30 + whole.readUInt16LE(header + 26) + whole.readUInt16LE(header + 28));
      to += layerBytes;
    }
    at += 46 + whole.readUInt16LE(at + 28) + whole.readUInt16LE(at + 30);
  }
  await copy(directory);
  whole.writeUInt32LE(to, end + 16);
  await copy(whole.length);
  await file.close();
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "smalti-memory-"));
  path = join(folder, "large.ckpt");
  const moments = Array.from({ length: 2 }, (_, i) => dictionary((2 + i) * layers));
  const root = new Map<Pickled, Pickled>([
    ["state_dict", dictionary(0)],
    ["optimizer_states", moments],
    ["ema", dictionary(layers)],
  ]);
  await writeSparse(root, 4 * layers);
});

afterAll(() => rm(folder, { recursive: true }));

/** Runs a script on the built library with `layer` and `specs` defined; what it prints is JSON. */
function run<T>(body: string): T {
  const root = pathToFileURL(resolve(import.meta.dirname, "../..")).href;
  const dist = `${root}/dist`;
  const script = `
    import { peakMemory } from "${root}/dist/cli/bench-peak.js";
    import { openCheckpoint } from "${dist}/checkpoint/open-checkpoint.js";
    import { fitWeights, loadMappedWeights, MappedReader } from "${dist}/checkpoint/remap.js";
    import { writeSafetensors } from "${dist}/checkpoint/safetensors.js";
    const map = { drop: [], rules: [{ from: /^(.*)$/, to: "$1", layout: "linear" }] };
    const specs = Array.from({ length: ${layers} }, (_, i) => ({ name: \`blocks.\${i}.weight\`, shape: [${side}, ${side}], init: { kind: "zeros" } }));
    const file = await openCheckpoint(${JSON.stringify(path)});
    const fit = fitWeights(specs, map, { shapes: new Map([...file.tensors].map(([n, { shape }]) => [n, shape])) });
    ${body}
    console.log(JSON.stringify({ peak: peakMemory(), ...out }));`;
  const text = execFileSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
  });
  return JSON.parse(text) as T;
}

it("loads within the model and 100 MB", async () => {
  const { size, blocks } = await stat(path);
  expect(size).toBeGreaterThan(2.6e9);
  expect(blocks * 512).toBeLessThan(10e6);
  const { peak, bytes, notes } = run<{ peak: number; bytes: number; notes: string[] }>(`
    const weights = await loadMappedWeights(file, fit);
    let bytes = 0;
    for (const values of weights.values()) bytes += values.byteLength;
    const out = { bytes, notes: file.notes };`);
  expect(bytes).toBe(layers * layerBytes);
  expect(notes.join()).toMatch(/averaged weights \(ema, 40 tensors\)/);
  console.log("peak", peak, bytes, peak - bytes);
  expect(peak - bytes).toBeLessThan(100e6);
});

it("converts one tensor at a time", () => {
  const { peak } = run<{ peak: number }>(`
    const reader = new MappedReader(file, fit);
    await writeSafetensors(${JSON.stringify(join(folder, "out.safetensors"))}, specs.slice(0, 12).map((spec) => ({ ...spec, dtype: "f16", data: () => reader.read(spec) })));
    const out = {};`);
  expect(peak).toBeLessThan(250e6);
});
